"""Edit the token file: add or remove one token and leave the rest as it is.

The rest of the file stays the same to the byte, with its comments. The new content is
written to a temporary file that then replaces the old one, so no reader sees half a
file. A lock on the directory serializes concurrent edits.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from herdbook.core.errors.suggestions import did_you_mean
from herdbook.core.models.toml_file import parse_toml
from herdbook.service.auth.tokens import (
    Role,
    Token,
    TokenLimits,
    is_token_name,
    new_token,
    parse_tokens,
    sha256_of,
)
from herdbook.service.errors import InvalidServiceError, UnknownTokenError

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_TABLE: Final = re.compile(
    rb"[ \t]*\[[ \t]*tokens[ \t]*\.[ \t]*(\"?)(?P<name>[A-Za-z0-9._-]+)\1[ \t]*\]"
    rb"[ \t]*(#.*)?"
)
_ANY_TABLE: Final = re.compile(rb"[ \t]*\[")
_MODE: Final = 0o600


def add_token(
    path: Path,
    name: str,
    role: Role,
    *,
    replace: bool = False,
    limits: TokenLimits | None = None,
) -> str:
    """Create a token, add its hash to a file, and return the secret.

    Args:
        path: The file; it is created with mode 0600 if it does not exist.
        name: The name of the token.
        role: The role of the token.
        replace: Replace a token of the same name.
        limits: What the token may use of the gateway; everything by default.

    Raises:
        InvalidServiceError: The name is not valid or exists already, or the file is
            not valid or cannot be written.
    """
    if not is_token_name(name):
        raise InvalidServiceError(
            "the name",
            "is not a valid token name",
            "Use up to 64 letters, digits, '.', '_' and '-'",
        )
    secret = new_token()
    token = Token(
        name=name,
        role=role,
        sha256=sha256_of(secret),
        limits=limits or TokenLimits(),
    )
    with _locked(path):
        _add(path, token, replace=replace)
    return secret


def remove_token(path: Path, name: str) -> None:
    """Remove a token from a file.

    Raises:
        UnknownTokenError: The file has no token of that name.
        InvalidServiceError: It is the only token in the file, or the file is not valid
            or cannot be written.
    """
    with _locked(path):
        before = path.read_bytes()
        known = _tokens(before, path)
        left = tuple(token for token in known if token.name != name)
        if left == known:
            near = did_you_mean(name, [token.name for token in known]).strip()
            raise UnknownTokenError(f"token {name}", f"does not exist in {path}", near)
        if not left:
            raise InvalidServiceError(
                f"token {name}",
                "is the only token in the file",
                "Add another token first",
            )
        after = _without_table(before, name)
        _check_result(after, left, path, name)
        _replace_file(path, after)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the directory of a file; convert errors of the system."""
    try:
        with _locked_directory(path.resolve().parent):
            yield
    except OSError as error:
        raise InvalidServiceError(
            f"token file {path}",
            f"cannot be written: {error.strerror}",
            "Choose a path in a directory that you can write to",
        ) from error


def _add(path: Path, token: Token, *, replace: bool) -> None:
    before = path.read_bytes() if path.exists() else b""
    known = {one.name: one for one in _tokens(before, path)}
    if token.name not in known:
        after = _with_table(before, token)
    elif replace:
        after = _without_table(before, token.name) + _table(token, before)
    else:
        raise InvalidServiceError(
            f"token {token.name}",
            f"already exists in {path}",
            "Choose another name, or replace it with --replace",
        )
    _check_result(after, _expected(known, token), path, token.name)
    _replace_file(path, after)


def _check_result(
    content: bytes, expected: tuple[Token, ...], path: Path, name: str
) -> None:
    """Check that an edit had exactly the wanted effect.

    Raises:
        InvalidServiceError: It had not: TOML allows forms that this module does not
            edit, for example an inline table.
    """
    if not _has(content, expected, path):
        raise InvalidServiceError(
            f"token {name}",
            f"is written in {path} in a form that cannot be edited automatically",
            "Remove it there by hand, then try again",
        )


def _has(content: bytes, tokens: tuple[Token, ...], path: Path) -> bool:
    try:
        return _tokens(content, path) == tokens
    except InvalidServiceError:
        return False


def _expected(known: dict[str, Token], token: Token) -> tuple[Token, ...]:
    others = (one for one in known.values() if one.name != token.name)
    return (*others, token)


def _tokens(content: bytes, path: Path) -> tuple[Token, ...]:
    """Parse the content of a token file.

    Raises:
        InvalidServiceError: The content is not valid.
    """
    tables = parse_toml(content, f"token file {path}", InvalidServiceError)
    return parse_tokens(tables, path)


def _with_table(before: bytes, token: Token) -> bytes:
    end = b"" if not before or before.endswith(b"\n") else b"\n"
    return before + end + _table(token, before)


def _table(token: Token, before: bytes) -> bytes:
    """Return the TOML table of a token, after an empty line if one is needed."""
    name = token.name if _BARE.fullmatch(token.name) else f'"{token.name}"'
    gap = "\n" if before.strip() else ""
    text = f'{gap}[tokens.{name}]\nrole = "{token.role.value}"\n'
    text += f'sha256 = "{token.sha256}"\n'
    for key, value in msgspec.structs.asdict(token.limits).items():
        if value:  # JSON of texts and numbers is TOML too
            text += f"{key} = {msgspec.json.encode(value).decode()}\n"
    return text.encode()


def _without_table(before: bytes, name: str) -> bytes:
    """Return the content of a file without the table of one token."""
    lines: list[bytes] = []
    inside = False
    for line in before.splitlines(keepends=True):
        if _ANY_TABLE.match(line):
            found = _TABLE.fullmatch(line.rstrip(b"\r\n"))
            inside = found is not None and found["name"] == name.encode()
        if not inside or line.lstrip().startswith(b"#"):
            lines.append(line)
    return b"".join(lines).rstrip(b"\r\n") + b"\n" if lines else b""


def _replace_file(path: Path, content: bytes) -> None:
    """Replace a file atomically, with the same mode."""
    target = path.resolve()
    mode = target.stat().st_mode & 0o777 if target.exists() else _MODE
    number, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(number, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise


@contextmanager
def _locked_directory(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a directory: the file itself is replaced."""
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)
