"""A strict HTTP/1.1 parser on top of h11.

It limits the number of headers and chunks, because a limit in bytes does not limit the
work: 64 KiB in chunks of one byte take a thousand times as long to parse as one chunk.
It refuses what h11 0.16 accepts for old clients but a proxy may read differently (bare
LF, folded headers, trailers), because such differences allow request smuggling.
"""

from __future__ import annotations

import re
from typing import Any, Final

import h11

from herdbook.core import HerdbookError
from herdbook.service.errors import BadRequestError, TooLargeError

MOST_HEADERS: Final = 128
"""Maximum number of header lines of a request."""

MOST_CHUNKS: Final = 1024
"""Maximum number of chunks of a body."""

_END: Final = b"\r\n\r\n"
_AMBIGUOUS: Final = re.compile(rb"(?<!\r)\n|\r[^\n]|\n[ \t]")
"""A bare LF or CR, or a folded header."""

_VERSIONS: Final = frozenset({b"1.0", b"1.1"})


class RefusedRequestError(h11.RemoteProtocolError):
    """A request that h11 accepts and this parser refuses.

    Attributes:
        refusal: The error of the response.
    """

    def __init__(self, refusal: HerdbookError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class StrictConnection(h11.Connection):
    """The server side of a connection; refuses ambiguous or oversized requests."""

    _chunks = 0

    def next_event(self) -> Any:
        """Return the next event.

        Raises:
            RefusedRequestError: The request is ambiguous or has too many parts.
            h11.RemoteProtocolError: The request is not valid HTTP.
        """
        if self.their_state is h11.IDLE:
            # Checked before h11 parses the head, which takes 5 microseconds per line.
            check_head(self.trailing_data[0])
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = 0
            if event.http_version not in _VERSIONS:
                raise _invalid("is not HTTP/1.1")
        elif isinstance(event, h11.Data) and event.chunk_start:
            self._chunks += 1
            if self._chunks > MOST_CHUNKS:
                raise RefusedRequestError(
                    TooLargeError(
                        "the body",
                        f"has more than {MOST_CHUNKS} chunks",
                        "Send larger chunks, or a Content-Length",
                    )
                )
        elif isinstance(event, h11.EndOfMessage) and event.headers:
            raise _invalid("has trailers after its body")
        return event


def check_head(received: bytes) -> None:
    """Check the part of a request head that has arrived.

    Raises:
        RefusedRequestError: The head is ambiguous or has too many lines.
    """
    head = received.partition(_END)[0]
    if _AMBIGUOUS.search(head):
        raise _invalid("has a line that does not end in CRLF, or a folded header")
    if head.count(b"\n") > MOST_HEADERS:
        raise RefusedRequestError(
            TooLargeError(
                "the request",
                f"has more than {MOST_HEADERS} headers",
                "Send fewer headers",
            )
        )


def _invalid(state: str) -> RefusedRequestError:
    return RefusedRequestError(BadRequestError("the request", state))
