"""HTTP/1.1 read strictly: one way to read each request, and a bound in pieces.

A limit in bytes does not bound the work where the cost is in pieces: 64 KiB in
chunks of one byte take a thousand times as long to parse as in one chunk. What h11
accepts for old clients, and another server in front may read differently, is refused
here: that is how a second request is smuggled in behind the first.
"""

from __future__ import annotations

import re
from typing import Any, Final

import h11

from herdbook.core import HerdbookError
from herdbook.service.errors import BadRequestError, TooLargeError

MOST_HEADERS: Final = 128
"""Header lines of a request, at most."""

MOST_CHUNKS: Final = 1024
"""Chunks of a body, at most."""

_END: Final = b"\r\n\r\n"
_AMBIGUOUS: Final = re.compile(rb"(?<!\r)\n|\r[^\n]|\n[ \t]")
"""A bare LF or CR, and a header that is continued on the next line."""

_VERSIONS: Final = frozenset({b"1.0", b"1.1"})


class RefusedByUsError(h11.RemoteProtocolError):
    """A request that h11 would read and we refuse.

    Attributes:
        refusal: The error to answer with.
    """

    def __init__(self, refusal: HerdbookError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class StrictConnection(h11.Connection):
    """The server's side of a connection; refuses what is ambiguous or too much."""

    _chunks = 0

    def next_event(self) -> Any:
        """Return the next event.

        Raises:
            RefusedByUsError: The request is ambiguous, or in too many pieces.
            h11.RemoteProtocolError: It is not HTTP.
        """
        if self.their_state is h11.IDLE:
            # Before h11 parses it: that would take 5 microseconds per line.
            check_head(self.trailing_data[0])
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = 0
            if event.http_version not in _VERSIONS:
                raise _invalid("is not HTTP/1.1")
        elif isinstance(event, h11.Data) and event.chunk_start:
            self._chunks += 1
            if self._chunks > MOST_CHUNKS:
                raise RefusedByUsError(
                    TooLargeError(
                        "the request's body",
                        f"has more than {MOST_CHUNKS} chunks",
                        "Send it in larger chunks, or with a Content-Length",
                    )
                )
        elif isinstance(event, h11.EndOfMessage) and event.headers:
            raise _invalid("has headers behind its body")
        return event


def check_head(received: bytes) -> None:
    """Check what has come of a request's head.

    Raises:
        RefusedByUsError: It is ambiguous, or has too many lines.
    """
    head = received.partition(_END)[0]
    if _AMBIGUOUS.search(head):
        raise _invalid("has a line that does not end in CRLF, or a folded header")
    if head.count(b"\n") > MOST_HEADERS:
        raise RefusedByUsError(
            TooLargeError(
                "the request's head",
                f"has more than {MOST_HEADERS} headers",
                "Send fewer headers",
            )
        )


def _invalid(state: str) -> RefusedByUsError:
    return RefusedByUsError(BadRequestError("the request", state))
