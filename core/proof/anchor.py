"""Anchors: the head of a log at one time, as text that can be signed and published.

An anchor is a checkpoint of transparency logs (https://c2sp.org/tlog-checkpoint), and
its signature that of a signed note (https://c2sp.org/signed-note):

    herdbook/01a21c7f-51d1-7697-9e2f-946528c79be7     origin: id of the first event
    37                                                events
    jPkD…=                                            root of the Merkle tree, base64
    chain 571b50e4…                                   hash of the last event
    time 2026-11-27T10:14:57Z                         when it was made

    — alice cvAyb…                                    signatures, if there are any
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime

import msgspec

from herdbook.events.errors import CallerError

ORIGIN = "herdbook/"

_TEXT = re.compile(
    r"(?P<origin>herdbook/\S+)\n"
    r"(?P<position>[1-9][0-9]{0,17})\n"
    r"(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"chain (?P<hash>[0-9a-f]{64})\n"
    r"time (?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)\n"
)
_SIGNATURE = re.compile(r"— (?P<name>[^\s+]+) (?P<data>[A-Za-z0-9+/]+={0,2})\n")


class Signature(msgspec.Struct, frozen=True):
    """A signature of an anchor.

    Attributes:
        name: The name of the key.
        key_id: Four bytes that identify the key.
        signature: The signature itself.
    """

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """Return the line of a signed note."""
        data = base64.b64encode(self.key_id + self.signature).decode()
        return f"— {self.name} {data}\n"


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a log at one time.

    Attributes:
        origin: Which log: ``herdbook/`` and the id of its first event.
        position: The position of the last event, and so the number of events.
        root: The root of the Merkle tree over all events, 32 bytes.
        hash: The hash of the last event.
        time: When the anchor was made, UTC, whole seconds.
        signatures: Its signatures.
    """

    origin: str
    position: int
    root: bytes
    hash: str
    time: datetime
    signatures: tuple[Signature, ...] = ()

    def body(self) -> str:
        """Return the text that is signed."""
        root = base64.b64encode(self.root).decode()
        time = self.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return (
            f"{self.origin}\n{self.position}\n{root}\nchain {self.hash}\ntime {time}\n"
        )

    def text(self) -> str:
        """Return the whole anchor: the body, an empty line, and the signatures."""
        return f"{self.body()}\n{''.join(each.line() for each in self.signatures)}"


def parse_anchors(text: str, *, source: str) -> list[Anchor]:
    """Parse a file of anchors, one after another.

    Args:
        text: The file.
        source: The name of the file, for errors.

    Raises:
        CallerError: A part of it is not an anchor.
    """
    anchors: list[Anchor] = []
    at = 0
    while at < len(text):
        if text[at] == "\n":
            at += 1
            continue
        found = _TEXT.match(text, at)
        if found is None:
            line = text.count("\n", 0, at) + 1
            raise CallerError(
                f"{source}, line {line},",
                "is not the first line of an anchor",
                "Use the output of herdbook anchor, unchanged",
            )
        at = found.end()
        at += text.startswith("\n", at)
        signatures, at = _signatures(text, at, source)
        anchors.append(_anchor(found, signatures, source))
    return anchors


def parse_signatures(text: str, *, source: str) -> tuple[Signature, ...]:
    """Parse the lines of signatures; what follows them is ignored.

    Args:
        text: The lines.
        source: What they belong to, for errors.

    Raises:
        CallerError: A line has no valid base64.
    """
    return _signatures(text, 0, source)[0]


def _signatures(text: str, at: int, source: str) -> tuple[tuple[Signature, ...], int]:
    """Return the signatures from a place in a text on, and where they end."""
    found: list[Signature] = []
    while signed := _SIGNATURE.match(text, at):
        found.append(_signature(signed, source))
        at = signed.end()
    return tuple(found), at


def _anchor(
    found: re.Match[str], signatures: tuple[Signature, ...], source: str
) -> Anchor:
    try:
        time = datetime.strptime(found["time"], "%Y-%m-%dT%H:%M:%S%z")
    except ValueError as error:
        raise CallerError(
            source, f"has an anchor with an invalid time: {found['time']!r}"
        ) from error
    return Anchor(
        origin=found["origin"],
        position=int(found["position"]),
        root=_decoded(found["root"], source, "has an anchor with an invalid root"),
        hash=found["hash"],
        time=time,
        signatures=signatures,
    )


def _signature(found: re.Match[str], source: str) -> Signature:
    data = _decoded(
        found["data"], source, f"has an invalid signature by {found['name']}"
    )
    return Signature(name=found["name"], key_id=data[:4], signature=data[4:])


def _decoded(text: str, source: str, problem: str) -> bytes:
    """Return the bytes of base64 text.

    Raises:
        CallerError: It is not base64, or not in the one form that encoding gives:
            the unused bits of the last digit could be changed unnoticed.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        data = b""
    if base64.b64encode(data).decode() != text:
        raise CallerError(source, problem)
    return data
