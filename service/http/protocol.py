"""HTTP over one connection, with a bound on all that the other side can hold up.

uvicorn's own protocol waits without end for a request that does not come, for the
rest of a body that nobody wants, and for a reader that does not read. Here each has
its time, and then the connection is cut.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from herdbook.core import HerdbookError
from herdbook.service import problems
from herdbook.service.errors import BadRequestError, TooLargeError
from herdbook.service.http.exchange import completed
from herdbook.service.http.strict_parser import RefusedByUsError, StrictConnection
from herdbook.service.settings import ServiceSettings

RECEIVE_BYTES: Final = 16_384
"""Bytes that are received and parsed before other connections have their turn."""

MOST_UNWANTED: Final = 8 * 1024 * 1024
"""Bytes behind a refusal that are received and thrown away, unparsed, so that their
sender comes to read why it was refused."""

LINGER_S: Final = 2.0
"""Seconds for which what still comes is thrown away once a request was refused."""


class BoundedProtocol(H11Protocol):
    """A connection that cannot be held up.

    The application finds what cuts it at ``scope["state"]["abort"]``.

    Args:
        limits: How long what may take.
        admit: Makes room for this connection, or cuts it.
        given: What uvicorn gives each protocol.

    Attributes:
        idle_since: Since when it is idle, if it is, by the loop's clock.
    """

    def __init__(
        self,
        *,
        limits: ServiceSettings,
        admit: Callable[[BoundedProtocol], None],
        **given: Any,
    ) -> None:
        super().__init__(**given)
        self.conn = StrictConnection(h11.SERVER, limits.header_bytes)
        self.idle_since = 0.0
        self._limits = limits
        self._accept_connection = admit
        self._clock: asyncio.TimerHandle | None = None
        self._reader_clock: asyncio.TimerHandle | None = None
        self._unread = 0
        self._unwanted = 0
        self._deaf = False
        self._around = contextvars.copy_context()

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self._begun is None or self._begun.response_complete

    @property
    def _begun(self) -> RequestResponseCycle | None:
        """The last request; None before the first, which uvicorn's types leave out."""
        return cast("RequestResponseCycle | None", self.cycle)

    def connection_made(  # type: ignore[override]  # uvicorn narrows the transport
        self, transport: asyncio.Transport
    ) -> None:
        """Begin to wait for a request, if there is room for the connection."""
        self.app_state = {**self.app_state, "abort": transport.abort}
        self.idle_since = self.loop.time()
        # asyncio's own is 256 KiB, which h11 may parse for seconds in one go.
        cast("Any", transport).max_size = RECEIVE_BYTES
        super().connection_made(transport)
        # Whatever waits to be sent counts, so that a reader who has stopped is seen.
        transport.set_write_buffer_limits(high=0)
        self._accept_connection(self)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        self._stop_clock()
        self._stop_reader_clock()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come, or throw it away."""
        if self._deaf:
            self._unwanted += len(data)
            if self._unwanted > MOST_UNWANTED:
                self.transport.abort()
        elif not self.transport.is_closing():
            super().data_received(data)
            self._watch()

    def handle_events(self) -> None:
        """Begin requests in the connection's own context.

        A request that came right behind another one is begun where that one's answer
        ends, and would be recorded as a part of it.
        """
        if self._deaf:
            return
        self._around.copy().run(super().handle_events)
        if self._begun is not None:
            self._begun.transport = cast("Any", _Outlet(self.transport, self._let_go))

    def _should_upgrade(self) -> bool:
        """Answer a request for another protocol as a plain one, without a warning."""
        return False

    def on_response_complete(self) -> None:
        """Wait for the next request, unless this one has not wholly come."""
        self.idle_since = self.loop.time()
        if self._unfinished and not self.transport.is_closing():
            self._linger()
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as every error is answered, and hear no more."""
        del msg
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.abort()  # an answer has begun, and a second cannot follow
            return
        for event in _answer(_refusal(sys.exc_info()[1], self._limits)):
            self.transport.write(self.conn.send(event) or b"")
        if self._begun is not None:
            self._begun.disconnected = True
            self._begun.message_event.set()
        self._linger()

    @property
    def _unfinished(self) -> bool:
        """Whether the other side has not sent all of the request yet."""
        return self.conn.their_state is h11.SEND_BODY

    def _let_go(self) -> None:
        """Close the connection after its last answer."""
        if self._unfinished or self.conn.trailing_data[0]:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """End what we send, and wait a moment for the other side to have read it.

        To close at once, with something unread, would take the answer away from it.
        What still comes is not parsed: whoever was refused shall not cost any more.
        """
        if self._deaf:
            return
        self._deaf = True
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.transport.write_eof()
        self._stop_clock()
        self._clock = self.loop.call_later(
            min(LINGER_S, self._limits.request_within_s), self.transport.abort
        )

    def shutdown(self) -> None:
        """Close a connection that is idle; let another one end with its answer."""
        if self.idle:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        """Begin to watch a reader for whom something waits."""
        super().pause_writing()
        self._unread = self.transport.get_write_buffer_size()
        self._reader_clock = self._later(self._limits.send_within_s, self._look)

    def resume_writing(self) -> None:
        """Leave a reader alone that has taken everything."""
        super().resume_writing()
        self._stop_reader_clock()

    def _look(self) -> None:
        """Cut a reader that has taken nothing since the last look."""
        unread = self.transport.get_write_buffer_size()
        if unread >= self._unread:
            self.transport.abort()
            return
        self._unread = unread
        self._reader_clock = self._later(self._limits.send_within_s, self._look)

    def _watch(self) -> None:
        """Have a clock run exactly while something is due from the other side."""
        if self._deaf or self.transport.is_closing():
            return
        if self._is_due():
            if self._clock is None:
                self._clock = self._later(
                    self._limits.request_within_s, self.transport.abort
                )
            return
        self._stop_clock()
        if self.cycle.response_complete and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self._later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _is_due(self) -> bool:
        """Return whether the other side owes a head, or the rest of one."""
        if self._begun is None:
            return True
        return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _stop_reader_clock(self) -> None:
        if self._reader_clock is not None:
            self._reader_clock.cancel()
            self._reader_clock = None

    def _later(self, seconds: float, call: Callable[[], object]) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, call)


class _Outlet:
    """What a request's answer is written to: closes the connection in our way."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


def _refusal(error: BaseException | None, limits: ServiceSettings) -> HerdbookError:
    """Return why a request cannot be read."""
    if isinstance(error, RefusedByUsError):
        return error.refusal
    if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
        return TooLargeError(
            "the request's head",
            f"has more than {limits.header_bytes} bytes",
            "Send fewer or shorter headers",
        )
    return BadRequestError("the request", "is not valid HTTP/1.1")


def _answer(
    refusal: HerdbookError,
) -> tuple[h11.Response, h11.Data, h11.EndOfMessage]:
    """Return the answer to a request that cannot be read."""
    status, headers, body = problems.answer(refusal)
    headers = {**headers, "content-length": str(len(body)), "connection": "close"}
    sent = completed([(k.encode(), v.encode()) for k, v in headers.items()])
    return (
        h11.Response(
            status_code=status, headers=sent, reason=HTTPStatus(status).phrase.encode()
        ),
        h11.Data(data=body),
        h11.EndOfMessage(),
    )
