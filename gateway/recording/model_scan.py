"""Find the model's name in the body of a request while the body streams by.

The body may have gigabytes of images, in pieces of any size, so it is not collected.
Only strings directly below the top of a JSON object are looked at. Go reads keys
without regard to case and takes the last of several equal ones, and so does this scan.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from herdbook.gateway.protocol.json_bodies import Fields, text_of

_LONGEST: Final = 1024
"""Bytes of a string that are collected; model names are shorter."""

_AT_TOP: Final = re.compile(rb'["{}\[\],]')
_BELOW: Final = re.compile(rb'["{}\[\]]')
_IN_STRING: Final = re.compile(rb'["\\]')


class ModelScan:
    """Reads the strings at the top of a JSON object.

    Args:
        keys: Keys to look for, in lower case.
    """

    __slots__ = (
        "_collected",
        "_depth",
        "_escaped",
        "_in_string",
        "_key",
        "_keys",
        "_wants_key",
        "found",
    )

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.found: dict[str, str] = {}
        self._keys = keys
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._wants_key = False
        self._key = ""
        self._collected = b""

    def feed(self, data: bytes) -> None:
        """Read the next piece of the body."""
        at = 0
        end = len(data)
        while at < end:
            at = self._string(data, at) if self._in_string else self._between(data, at)

    def feed_whole(self, data: bytes, fields: Fields) -> None:
        """Read a whole body at once, whose fields were read already.

        Args:
            data: The body.
            fields: Its fields as ``request_fields`` returns them; empty if that failed.
        """
        found: dict[str, str] = {}
        for key in self._keys:
            value = bytes(fields.get(key, b""))
            if value.startswith(b'"'):
                found[key] = _decoded(value[1:-1])
            elif value:
                self.feed(data)  # not a text, but an earlier equal key may have one
                return
        if fields:
            self.found = found
        else:
            self.feed(data)

    def _between(self, data: bytes, at: int) -> int:
        """Read to the next string; return where to continue."""
        while True:
            top = self._depth == 1
            mark = (_AT_TOP if top else _BELOW).search(data, at)
            if mark is None:
                return len(data)
            at = mark.end()
            match mark[0]:
                case b'"':
                    self._in_string = True
                    self._collected = b""
                    return at
                case b"," if top:
                    self._wants_key = True
                case b"{" | b"[":
                    self._depth += 1
                    self._wants_key = self._depth == 1
                case _:
                    self._depth -= 1

    def _string(self, data: bytes, at: int) -> int:
        """Read to the end of a string; return where to continue."""
        if self._escaped:
            self._escaped = False
            self._collect(data[at : at + 1])
            return at + 1
        mark = _IN_STRING.search(data, at)
        if mark is None:
            self._collect(data[at:])
            return len(data)
        if mark[0] == b"\\":
            self._collect(data[at : mark.end()])
            self._escaped = True
        else:
            self._collect(data[at : mark.start()])
            self._in_string = False
            self._finish()
        return mark.end()

    def _collect(self, data: bytes) -> None:
        if self._depth == 1 and len(self._collected) <= _LONGEST:
            self._collected += data[: _LONGEST + 1]

    def _finish(self) -> None:
        """Receive a string that has ended: a key or a value."""
        if self._depth != 1:
            return
        text = _decoded(self._collected)
        if self._wants_key:
            self._wants_key = False
            self._key = text.lower()
        elif self._key in self._keys:
            self.found[self._key] = text
            self._key = ""


def _decoded(raw: bytes) -> str:
    """Return the value of a JSON string; empty if it is too long or not valid."""
    if len(raw) > _LONGEST:
        return ""
    try:
        return text_of(b'"%b"' % raw)
    except msgspec.DecodeError:
        return ""
