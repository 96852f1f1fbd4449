"""HTTP/1.1 on one connection, with a timeout wherever the client could stall it.

``H11Protocol`` of uvicorn 0.54 waits without a limit for the head of a request, for
the rest of a body that was refused, and for a client that does not read. This protocol
aborts the connection in each case.
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
from herdbook.service.http.strict_parser import RefusedRequestError, StrictConnection
from herdbook.service.settings import ServiceSettings

RECEIVE_BYTES: Final = 16_384
"""Bytes that are received and parsed at once, before other connections run."""

MOST_DISCARDED: Final = 8 * 1024 * 1024
"""Bytes that are received and discarded after a refusal, so that the client finishes
sending and reads the response."""

LINGER_S: Final = 2.0
"""Seconds for which incoming bytes are discarded after a refusal."""


class BoundedProtocol(H11Protocol):
    """A connection with timeouts on reading and writing.

    ``scope["state"]["abort"]`` lets the application abort the connection.

    Args:
        limits: The limits on size and time.
        admit: Makes room for this connection, or aborts it.
        page: Returns the page of an error, for browsers; None to answer with JSON.
        given: The arguments of ``H11Protocol``.

    Attributes:
        idle_since: When the connection became idle, by the clock of the event loop.
    """

    def __init__(
        self,
        *,
        limits: ServiceSettings,
        admit: Callable[[BoundedProtocol], None],
        page: Callable[[HerdbookError], str] | None = None,
        **given: Any,
    ) -> None:
        super().__init__(**given)
        self.conn = StrictConnection(h11.SERVER, limits.header_bytes)
        self.idle_since = 0.0
        self._limits = limits
        self._admit = admit
        self._page = page
        self._timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._unread = 0
        self._discarded = 0
        self._discarding = False
        self._context = contextvars.copy_context()

    @property
    def idle(self) -> bool:
        """Whether no request is in progress."""
        return self._request is None or self._request.response_complete

    @property
    def _request(self) -> RequestResponseCycle | None:
        """The last request, or None; uvicorn declares ``cycle`` without the None."""
        return cast("RequestResponseCycle | None", self.cycle)

    def connection_made(  # type: ignore[override]  # uvicorn narrows the transport
        self, transport: asyncio.Transport
    ) -> None:
        """Start to wait for a request, if there is room for the connection."""
        self.app_state = {**self.app_state, "abort": transport.abort}
        self.idle_since = self.loop.time()
        # The default of asyncio is 256 KiB, which h11 can take seconds to parse.
        cast("Any", transport).max_size = RECEIVE_BYTES
        super().connection_made(transport)
        # Any unsent byte calls pause_writing, which starts the timeout of the reader.
        transport.set_write_buffer_limits(high=0)
        self._admit(self)
        self._update_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all timers."""
        self._stop_timer()
        self._stop_reader_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse incoming bytes, or discard them after a refusal."""
        if self._discarding:
            self._discarded += len(data)
            if self._discarded > MOST_DISCARDED:
                self.transport.abort()
        elif not self.transport.is_closing():
            super().data_received(data)
            self._update_timer()

    def handle_events(self) -> None:
        """Start requests in the context variables of the connection.

        uvicorn starts a pipelined request where the previous response ends, so it
        would inherit the actor and the correlation id of the previous request.
        """
        if self._discarding:
            return
        self._context.copy().run(super().handle_events)
        if self._request is not None:
            self._request.transport = cast(
                "Any", _ResponseTransport(self.transport, self._close_gracefully)
            )

    def _should_upgrade(self) -> bool:
        """Treat a request to upgrade as a plain one; uvicorn would log a warning."""
        return False

    def on_response_complete(self) -> None:
        """Wait for the next request, unless this one has not fully arrived."""
        self.idle_since = self.loop.time()
        if self._unfinished and not self.transport.is_closing():
            self._linger()
        super().on_response_complete()
        self._update_timer()

    def send_400_response(self, msg: str) -> None:
        """Send the error for invalid HTTP, and discard all further bytes."""
        del msg
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.abort()  # a response has started; a second cannot follow
            return
        page = self._page if _is_from_a_browser(self.conn.trailing_data[0]) else None
        for event in _response(_refusal(sys.exc_info()[1], self._limits), page):
            self.transport.write(self.conn.send(event) or b"")
        if self._request is not None:
            self._request.disconnected = True
            self._request.message_event.set()
        self._linger()

    @property
    def _unfinished(self) -> bool:
        """Whether the body of the request has not fully arrived."""
        return self.conn.their_state is h11.SEND_BODY

    def _close_gracefully(self) -> None:
        """Close the connection after its last response."""
        if self._unfinished or self.conn.trailing_data[0]:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Shut down the sending side, and give the client time to read the response.

        Closing a socket with unread bytes sends a reset, which can destroy the
        response. Further bytes are discarded without parsing them.
        """
        if self._discarding:
            return
        self._discarding = True
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.transport.write_eof()
        self._stop_timer()
        self._timer = self.loop.call_later(
            min(LINGER_S, self._limits.request_within_s), self.transport.abort
        )

    def shutdown(self) -> None:
        """Close an idle connection; close another one after its response."""
        if self.idle:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        """Start the timeout of a client that has unread bytes."""
        super().pause_writing()
        self._unread = self.transport.get_write_buffer_size()
        self._reader_timer = self._later(self._limits.send_within_s, self._check_reader)

    def resume_writing(self) -> None:
        """Cancel the timeout: the client has read everything."""
        super().resume_writing()
        self._stop_reader_timer()

    def _check_reader(self) -> None:
        """Abort the connection if the client has read nothing since the last check."""
        unread = self.transport.get_write_buffer_size()
        if unread >= self._unread:
            self.transport.abort()
            return
        self._unread = unread
        self._reader_timer = self._later(self._limits.send_within_s, self._check_reader)

    def _update_timer(self) -> None:
        """Run the request timer exactly while a request head is expected."""
        if self._discarding or self.transport.is_closing():
            return
        if self._expects_head():
            if self._timer is None:
                self._timer = self._later(
                    self._limits.request_within_s, self.transport.abort
                )
            return
        self._stop_timer()
        if self.cycle.response_complete and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self._later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _expects_head(self) -> bool:
        """Return whether the first head, or the rest of a head, has not arrived."""
        if self._request is None:
            return True
        return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_reader_timer(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _later(self, seconds: float, call: Callable[[], object]) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, call)


class _ResponseTransport:
    """The transport that a response is written to, with a graceful ``close``."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


def _refusal(error: BaseException | None, limits: ServiceSettings) -> HerdbookError:
    """Return the error for a request that could not be parsed."""
    if isinstance(error, RefusedRequestError):
        return error.refusal
    if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
        return TooLargeError(
            "the request head",
            f"is larger than {limits.header_bytes} bytes",
            "Send fewer or shorter headers",
        )
    return BadRequestError("the request", "is not valid HTTP/1.1")


def _is_from_a_browser(head: bytes) -> bool:
    """Return whether the head of a request, maybe cut off, asks for a page."""
    return b"text/html" in head.lower() and not head.partition(b" ")[2].startswith(
        b"/v1"
    )


def _response(
    refusal: HerdbookError, page: Callable[[HerdbookError], str] | None
) -> tuple[h11.Response, h11.Data, h11.EndOfMessage]:
    """Return the response to a request that could not be parsed."""
    status, headers, body = problems.answer(refusal)
    if page is not None:
        headers = {**headers, "content-type": "text/html; charset=utf-8"}
        body = page(refusal).encode()
    headers = {**headers, "content-length": str(len(body)), "connection": "close"}
    sent = completed([(k.encode(), v.encode()) for k, v in headers.items()])
    return (
        h11.Response(
            status_code=status, headers=sent, reason=HTTPStatus(status).phrase.encode()
        ),
        h11.Data(data=body),
        h11.EndOfMessage(),
    )
