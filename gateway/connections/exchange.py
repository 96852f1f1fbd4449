"""One request and its answer, between a connection of a client and one to the server.

The exchange moves bytes and decides nothing about HTTP: the connections on both sides
parse and frame. Pieces that arrive together are written together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from herdbook.events.facts import UseOutcome
from herdbook.gateway.connections.sides import ClientSide, ServerSide
from herdbook.gateway.protocol.answers import Refusal
from herdbook.gateway.protocol.headers import (
    OF_LENGTH,
    Headers,
    Request,
    Values,
    answer_head,
    values_of,
)

if TYPE_CHECKING:
    from herdbook.gateway.recording.uses import UseTracker


LONGEST_BODY: Final = 16 << 20
"""Bytes up to which a body is collected; a longer one is sent as it is."""


_MOST_REPEATED: Final = 1 << 20
"""Bytes of a request that are kept to send them again."""


Ready: TypeAlias = Callable[["Exchange", bytes | None], None]
"""Called with the whole body of a request that was collected, or with None if it is
too long for that. It must call ``Exchange.begin``, or raise a ``Refusal``."""


class RouteCallbacks(Protocol):
    """Called by an exchange, to report how the chosen server answered."""

    def answered(self, exchange: Exchange, status: int) -> bool:
        """Note that the server has started to answer.

        Returns:
            Whether the request was sent to another server, so that this answer is not
            needed.
        """
        ...

    def failed(self, exchange: Exchange) -> bool:
        """Note that the server failed before the client was sent an answer.

        Returns:
            Whether the request was sent to another server.
        """
        ...


Change: TypeAlias = Callable[[int, bytes], bytes]
"""Returns the body to send in place of an answer's body, by its status."""


class _HeldAnswer:
    """An answer that is collected until it is complete, to change its body."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.head: tuple[int, bytes, Headers] | None = None
        self.pieces: list[bytes] = []
        self.size = 0


class Exchange:
    """A request on its way to the server, and its answer on the way back.

    ``begin`` or ``collect`` must be called next.

    Args:
        request: The head of the request, as received.
        client: The connection of the client.
        tracker: Records what the exchange shows about the use of a model.
        finished: Called once at the end.

    Attributes:
        request: The head of the request.
        answer_headers: Headers to add to the answer.
        request_complete: Whether the whole request was received.
        answer_started: Whether the client was sent a part of the answer.
        route: Who chose the server, and may choose another one; None for nobody.
        repeatable: Whether it changes nothing if the server gets the request twice.
    """

    __slots__ = (
        "_chunked",
        "_client",
        "_close",
        "_collected",
        "_ended",
        "_finished",
        "_held",
        "_ready",
        "_request_out",
        "_sent",
        "_sent_bytes",
        "_server",
        "_size",
        "_to_client",
        "answer_headers",
        "answer_started",
        "repeatable",
        "request",
        "request_complete",
        "route",
        "tracker",
    )

    def __init__(
        self,
        request: Request,
        client: ClientSide,
        tracker: UseTracker | None,
        finished: Callable[[Exchange], None],
    ) -> None:
        self.request = request
        self.tracker = tracker
        self.request_complete = False
        self.answer_started = False
        self.route: RouteCallbacks | None = None
        self.repeatable = False
        self._client = client
        self._server: ServerSide | None = None
        self._finished = finished
        self.answer_headers: Headers = []
        self._request_out: list[bytes] = []
        self._collected: list[bytes] | None = None
        self._ready: Ready | None = None
        self._size = 0
        self._sent: list[bytes] | None = None
        self._sent_bytes = 0
        self._held: _HeldAnswer | None = None
        self._to_client: list[bytes] = []
        self._chunked = False
        self._close = False
        self._ended = False

    def connect(self, server: ServerSide) -> None:
        """Use a connection to the server; the next flush sends what was received."""
        self._server = server
        self._client.hold(held=False)

    def begin(self, request: Request, head: bytes, body: bytes | None) -> None:
        """Send a head, and then what was collected of the body or another body.

        Args:
            request: How the body is framed for the server.
            head: The head to send to the server.
            body: The whole body in place of what was collected; None for that.
        """
        self.request = request
        self._sent, self._sent_bytes = ([] if self.repeatable else None), 0
        self._request_out.append(head)
        collected, self._collected = self._collected or [], None
        for piece in collected if body is None else [body]:
            self._add(piece)
        if self.request_complete and request.chunked:
            self._request_out.append(b"0\r\n\r\n")

    def begin_again(self, request: Request, head: bytes, body: bytes) -> None:
        """Send a request, whose body was collected, to another server.

        Args:
            request: How the body is framed.
            head: The head to send.
            body: The whole body.
        """
        self._leave_server()
        self._request_out.clear()
        self._to_client.clear()
        self.begin(request, head, body)

    def collect(self, ready: Ready) -> None:
        """Collect the body until it is complete, or longer than ``LONGEST_BODY``."""
        self._collected = []
        self._ready = ready

    @property
    def changes_answer(self) -> bool:
        """Whether the answer is collected, to change its body."""
        return self._held is not None

    def change_answer(self, change: Change) -> None:
        """Collect the answer and change its body.

        An answer that is compressed or longer than ``LONGEST_BODY`` passes as it is.
        """
        self._held = _HeldAnswer(change)

    def request_body(self, data: bytes) -> None:
        """Receive a piece of the request's body."""
        if self._collected is None:
            if self.tracker is not None:
                self.tracker.request_body(data)
            self._add(data)
            return
        self._collected.append(data)
        self._size += len(data)
        if self._size > LONGEST_BODY:
            assert self._ready is not None
            if self.tracker is not None:
                for piece in self._collected:
                    self.tracker.request_body(piece)
            self._ready(self, None)

    def request_end(self) -> None:
        """Receive the end of the request.

        Raises:
            Refusal: The request that was collected must not be sent.
        """
        self.request_complete = True
        if self.tracker is not None:
            self.tracker.request_end()
        if self._collected is not None:
            assert self._ready is not None
            self._ready(self, b"".join(self._collected))
        elif self.request.chunked:
            self._request_out.append(b"0\r\n\r\n")

    def _add(self, data: bytes) -> None:
        if self.request.chunked:
            self._request_out.append(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._request_out.append(data)

    def flush_request(self) -> None:
        """Send the pieces of the request that were taken, if connected."""
        if self._server is not None and self._request_out:
            out, self._request_out = self._request_out, []
            data = out[0] if len(out) == 1 else b"".join(out)
            self._server.write(data)
            if self._sent is not None:
                self._keep_sent(self._sent, data)

    def _keep_sent(self, sent: list[bytes], data: bytes) -> None:
        self._sent_bytes += len(data)
        if self._sent_bytes > _MOST_REPEATED:
            self._sent = None
        else:
            sent.append(data)

    def repeat(self) -> bool:
        """Take back what was sent over a connection that turned out to be closed.

        The next flush sends it again.

        Returns:
            Whether the request may be sent again, and all of it is still known.
        """
        if self._sent is None or self._ended:
            return False
        self._server = None
        self._request_out = self._sent + self._request_out
        self._sent, self._sent_bytes = [], 0
        return True

    def answer_head(
        self, status: int, reason: bytes, headers: Headers, values: Values
    ) -> None:
        """Receive the head of the answer.

        Args:
            status: The status.
            reason: The reason phrase.
            headers: The headers.
            values: The same, to look one up.
        """
        self._sent = None
        if self.route is not None and self.route.answered(self, status):
            return
        if self._held is not None:
            if b"content-encoding" not in values:
                self._held.head = (status, reason, headers)
                return
            self._held = None
        head, framing = answer_head(
            status,
            reason,
            headers + self.answer_headers,
            values,
            self.request,
            last=not self.request_complete,
        )
        self._chunked, self._close = framing
        self._to_client.append(head)
        if self.tracker is not None:
            self.tracker.answer_head(status, values)

    def answer_body(self, pieces: list[bytes]) -> None:
        """Receive pieces of the answer's body, which are not empty."""
        if self._held is not None:
            self._hold_answer(self._held, pieces)
            return
        if self._chunked:
            for one in pieces:
                self._to_client.append(b"%x\r\n%b\r\n" % (len(one), one))
        else:
            self._to_client += pieces
        if self.tracker is not None:
            self.tracker.answer_body(b"".join(pieces))

    def _hold_answer(self, held: _HeldAnswer, pieces: list[bytes]) -> None:
        held.pieces += pieces
        held.size += sum(len(one) for one in pieces)
        if held.size > LONGEST_BODY:
            self._release_answer(held, None)

    def _release_answer(self, held: _HeldAnswer, body: bytes | None) -> None:
        """Send what was collected of the answer, or another body in its place."""
        assert held.head is not None
        status, reason, headers = held.head
        if body is not None:
            headers = [one for one in headers if one[0].lower() not in OF_LENGTH]
            headers.append((b"Content-Length", b"%d" % len(body)))
        self._held = None
        self.answer_head(status, reason, headers, values_of(headers))
        pieces = held.pieces if body is None else [body]
        if any(pieces):
            self.answer_body(pieces)

    def flush_answer(self) -> None:
        """Send the pieces of the answer that were taken."""
        if self._to_client and not self._ended:
            out, self._to_client = self._to_client, []
            self.answer_started = True
            self._client.write(out[0] if len(out) == 1 else b"".join(out))

    def answer_end(self, *, reusable: bool) -> None:
        """End the exchange after a complete answer.

        Args:
            reusable: Whether the server accepts another request on its connection.
        """
        if (held := self._held) is not None:
            whole = b"".join(held.pieces)
            status = held.head[0] if held.head else 0
            self._release_answer(held, held.change(status, whole))
        if self._chunked:
            self._to_client.append(b"0\r\n\r\n")
        self.flush_answer()
        server, self._server = self._server, None
        if server is not None:
            server.release(reusable=reusable and self.request_complete)
        if self._end(UseOutcome.COMPLETED):
            self._client.answered(close=self._close or not self.request_complete)

    def server_failed(self, refusal: Refusal, failure: str) -> None:
        """End the exchange because the server failed before the answer was complete.

        Args:
            refusal: The answer, if the client was not sent another one already.
            failure: Stable code of the failure.
        """
        self._leave_server()
        unanswered = not self.answer_started and not self._ended
        if unanswered and self.route is not None and self.route.failed(self):
            return
        self._to_client.clear()
        if self._end(UseOutcome.FAILED, failure):
            if self.answer_started:
                self._client.abort()
            else:
                self._client.refuse(refusal)

    def refused(self, failure: str) -> None:
        """End the exchange because the client sent something invalid."""
        self._leave_server()
        self._end(UseOutcome.FAILED, failure)

    def client_left(self) -> None:
        """End the exchange because the client closed its connection."""
        self._leave_server()
        self._end(UseOutcome.CLIENT_LEFT)

    def hold_server(self, *, held: bool) -> None:
        """Stop or continue to read the answer: the client reads slower or again."""
        if self._server is not None:
            self._server.hold(held=held)

    def hold_client(self, *, held: bool) -> None:
        """Stop or continue to read the request: the server reads slower or again."""
        if not self._ended:
            self._client.hold(held=held)

    @property
    def connected(self) -> bool:
        """Whether a connection to the server is in use."""
        return self._server is not None

    @property
    def ended(self) -> bool:
        """Whether the exchange has ended."""
        return self._ended

    def _leave_server(self) -> None:
        """Close the connection to the server, which cancels the request there."""
        server, self._server = self._server, None
        if server is not None:
            server.release(reusable=False)

    def _end(self, outcome: UseOutcome, failure: str = "") -> bool:
        """End once; return whether this was the first call."""
        if self._ended:
            return False
        self._ended = True
        if self.tracker is not None:
            self.tracker.end(outcome, failure)
        self._finished(self)
        return True
