"""Ed25519 keys that sign anchors, in the forms of https://c2sp.org/signed-note.

Needs the extra ``proof`` (the package ``cryptography``).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import msgspec

from herdbook.core.errors.files import read_remedy
from herdbook.core.proof.anchor import Anchor, Signature
from herdbook.events.errors import CallerError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_ED25519 = b"\x01"
"""The type of a key in a signed note."""

_KEY_BYTES = 32

_NAME = re.compile(r"[^\s+]{1,100}")


class PublicKey(msgspec.Struct, frozen=True):
    """A key that verifies signatures.

    Attributes:
        name: The name of the key.
        raw: The key, 32 bytes.
    """

    name: str
    raw: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes that identify the key."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.raw).digest()[:4]

    def text(self) -> str:
        """Return the key as one line: name, id and key."""
        key = base64.b64encode(_ED25519 + self.raw).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"

    def has_signed(self, anchor: Anchor) -> bool:
        """Return whether an anchor has a valid signature by this key."""
        return self.has_signed_text(anchor.body(), anchor.signatures)

    def has_signed_text(self, text: str, signatures: Iterable[Signature]) -> bool:
        """Return whether a signature of a text is valid and by this key."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PublicKey,
        )

        key = Ed25519PublicKey.from_public_bytes(self.raw)
        for each in signatures:
            if (each.name, each.key_id) != (self.name, self.key_id):
                continue
            try:
                key.verify(each.signature, text.encode())
            except InvalidSignature:
                continue
            return True
        return False


def parse_public_key(text: str) -> PublicKey:
    """Parse a public key.

    Raises:
        CallerError: It is not one.
    """
    if "PRIVATE KEY" in text:  # which no message may show
        raise CallerError(
            "the given public key",
            "is a private key",
            "Use the file that ends with .pub",
        )
    name, _, rest = text.strip().partition("+")
    key_id, _, key = rest.partition("+")
    try:
        raw = base64.b64decode(key, validate=True)
    except binascii.Error:
        raw = b""
    found = PublicKey(name, raw[1:])
    is_key = raw[:1] == _ED25519 and len(raw) == _KEY_BYTES + 1
    if not name or not is_key or found.key_id.hex() != key_id:
        raise CallerError(
            f"{text.strip()[:60]!r}",
            "is not a public key",
            "Use the line that herdbook key new prints",
        )
    return found


def new_key(path: Path, name: str) -> PublicKey:
    """Make a private key in a new file that only its owner may read.

    The public key is written next to it, with the ending ``.pub``.

    Raises:
        CallerError: The name is not valid, or a file exists or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )

    if not _NAME.fullmatch(name):
        raise CallerError(
            f"{name[:60]!r}",
            "is not a valid name for a key",
            "Leave out spaces and '+'",
        )
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = _public(key, name)
    _write_new(path, private, 0o600)
    _write_new(_public_path(path), f"{public.text()}\n".encode(), 0o644)
    return public


def sign(anchor: Anchor, path: Path) -> Anchor:
    """Return an anchor with another signature added.

    Args:
        anchor: The anchor.
        path: The file of the private key; its public key is next to it.

    Raises:
        CallerError: The key cannot be read, or others can read it.
    """
    signature = sign_text(anchor.body(), path)
    return msgspec.structs.replace(anchor, signatures=(*anchor.signatures, signature))


def sign_text(text: str, path: Path) -> Signature:
    """Return the signature of a text, which ends with a line break.

    Args:
        text: The text.
        path: The file of the private key; its public key is next to it.

    Raises:
        CallerError: The key cannot be read, or others can read it.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )

    try:
        key = serialization.load_pem_private_key(_private(path), password=None)
        public = parse_public_key(_public_path(path).read_text("utf-8"))
    except OSError as error:
        name = str(error.filename or path)
        raise CallerError(
            name, f"cannot be read: {error.strerror}", read_remedy(error)
        ) from error
    except (ValueError, TypeError) as error:
        raise CallerError(
            str(path),
            "is not a private key",
            "Use the file that herdbook key new created, not the one that ends in .pub",
        ) from error
    if not isinstance(key, Ed25519PrivateKey) or _public(key, public.name) != public:
        raise CallerError(
            str(path),
            "does not belong to the public key next to it",
            "Put the public key that was created with it next to it",
        )
    return Signature(public.name, public.key_id, key.sign(text.encode()))


def check_key(path: Path) -> None:
    """Check that a private key can sign, before the work is done that it will sign.

    Raises:
        CallerError: The key cannot be read, or others can read it.
    """
    sign_text("herdbook\n", path)


def _private(path: Path) -> bytes:
    """Return the content of the file of a private key.

    Raises:
        CallerError: Others may read it. As in ssh, the owner has to be this user: a key
            that an administrator mounts for a service is not refused.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        found, data = os.fstat(file.fileno()), file.read()
        is_open = found.st_uid == os.geteuid() and found.st_mode & 0o077
        if is_open and b"PRIVATE KEY" in data:
            raise CallerError(
                str(path), "can be read by others", f"Run: chmod 600 {quote(str(path))}"
            )
        return data


def _public(key: Ed25519PrivateKey, name: str) -> PublicKey:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    raw = key.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    return PublicKey(name, raw)


def _public_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.pub")


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    except OSError as error:
        raise CallerError(
            str(path),
            f"cannot be created: {error.strerror or error}",
            "Choose another file",
        ) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
