"""What anchors prove, checked without Herdbook: ``hashlib`` and ``cryptography``."""

from __future__ import annotations

import base64
import re
from hashlib import sha256

from campaign.faults.truth import Row
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_ANCHOR = re.compile(
    r"((?P<origin>\S+)\n(?P<size>\d+)\n(?P<root>\S+)\nchain (?P<hash>\S+)\ntime \S+\n)"
    r"\n— (?P<name>\S+) (?P<signature>\S+)\n\n*"
)


def are_true(text: str, public: str, history: list[Row]) -> bool:
    """Return whether a file has anchors of a log only, each signed by a key.

    Args:
        text: The file.
        public: The line of the public key.
        history: The events of the log.
    """
    at = 0
    while at < len(text):
        found = _ANCHOR.match(text, at)
        if found is None or not _is_true(found, public.strip(), history):
            return False
        at = found.end()
    return bool(text)


def _is_true(anchor: re.Match[str], public: str, history: list[Row]) -> bool:
    name, key_id, key = public.split("+", 2)
    try:
        raw = base64.b64decode(anchor["signature"], validate=True)
        verifier = Ed25519PublicKey.from_public_bytes(base64.b64decode(key)[1:])
        verifier.verify(raw[4:], anchor[1].encode())
    except (ValueError, InvalidSignature):
        return False
    size = int(anchor["size"])
    if base64.b64encode(raw).decode() != anchor["signature"]:
        return False
    if (anchor["name"], raw[:4].hex()) != (name, key_id) or size > len(history):
        return False
    leaves = [bytes.fromhex(row.hash) for row in history[:size]]
    return (anchor["origin"], anchor["hash"], anchor["root"]) == (
        f"herdbook/{history[0].event_id}",
        history[size - 1].hash,
        base64.b64encode(_root(leaves)).decode(),
    )


def _root(leaves: list[bytes]) -> bytes:
    """Return the root of a Merkle tree (RFC 9162, section 2.1.1)."""
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\x01" + _root(leaves[:half]) + _root(leaves[half:])).digest()
