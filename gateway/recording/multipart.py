"""Find fields of a form (``multipart/form-data``) while it streams by."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from herdbook.gateway.protocol.json_bodies import Fields

_LONGEST: Final = 4_096
"""Bytes of the head of a part, or of a value, that are collected."""

_NAME: Final = re.compile(rb'[ ;]name="([^"]*)"', re.IGNORECASE)


class FormScan:
    """Reads short values of a form; files pass by without being collected.

    Args:
        keys: The fields to look for.

    Attributes:
        found: The first value of each.
    """

    def __init__(self, keys: Collection[str]) -> None:
        self.found: dict[str, str] = {}
        self._keys = keys
        self._mark = b""
        self._name = ""
        self._in_head = True
        self._value = b""
        self._rest: bytes | None = b""

    def feed(self, data: bytes) -> None:
        """Read the next piece of the form."""
        if self._rest is not None:
            self._rest += data
        while self._rest is not None and self._step(self._rest):
            pass

    def feed_whole(self, data: bytes, fields: Fields) -> None:
        """Read a whole form; it has no fields of JSON."""
        del fields
        self.feed(data)

    def _step(self, rest: bytes) -> bool:
        """Read to the next mark; return whether there was one."""
        if not self._mark:
            return self._begin(*rest.partition(b"\r\n"))
        if self._in_head:
            return self._head(*rest.partition(b"\r\n\r\n"))
        before, mark, rest = rest.partition(self._mark)
        kept = 0 if mark else min(len(self._mark) - 1, len(before))
        value = before[: len(before) - kept]
        if len(self._value) <= _LONGEST:
            self._value += value[: _LONGEST + 1]
        self._rest = rest if mark else before[len(before) - kept :]
        if mark:
            self._finish()
        return bool(mark)

    def _begin(self, line: bytes, end: bytes, rest: bytes) -> bool:
        if end and line.startswith(b"--"):
            self._mark, self._rest = b"\r\n" + line, rest
        elif end or len(line) > _LONGEST:
            self._rest = None  # not a form
        return bool(end)

    def _head(self, head: bytes, end: bytes, rest: bytes) -> bool:
        if len(head) > _LONGEST:
            self._rest = None
        elif end:
            named = _NAME.search(head)
            self._name = named[1].decode("utf-8", "replace") if named else ""
            self._value, self._in_head, self._rest = b"", False, rest
        return bool(end)

    def _finish(self) -> None:
        """Receive the value of a part that has ended."""
        self._in_head = True
        if self._name in self._keys and len(self._value) <= _LONGEST:
            self.found.setdefault(self._name, self._value.decode("utf-8", "replace"))
