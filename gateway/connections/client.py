"""Connections of clients: one exchange at a time, and limits of what they may take."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol, cast

from herdbook.gateway.connections.requests import RequestParser
from herdbook.gateway.protocol.answers import CONTINUE, Refusal, error_answer
from herdbook.gateway.protocol.endpoints import Endpoint, Form, endpoint_of
from herdbook.gateway.protocol.headers import Headers, Request

if TYPE_CHECKING:
    from herdbook.gateway.connections.exchange import Exchange
    from herdbook.gateway.settings import GatewaySettings

_DRAIN_S = 2.0
"""Seconds that a refused client has to stop sending. Closing earlier would reset the
connection, and the client would not see the answer."""


class Gateway(Protocol):
    """The gateway, as a connection of a client uses it."""

    settings: GatewaySettings

    def add(self, client: ClientConnection) -> bool:
        """Accept a new connection; return whether there is room for it."""
        ...

    def discard(self, client: ClientConnection) -> None:
        """Forget a connection that was closed."""

    def exchange(
        self, client: ClientConnection, request: Request, endpoint: Endpoint
    ) -> Exchange:
        """Send a request to the server."""
        ...

    def shared_with(self, headers: Headers) -> Headers:
        """Return the headers of an answer that let the page of a request read it."""
        ...


class ClientConnection(asyncio.Protocol):
    """A connection of a client, with one exchange at a time.

    Args:
        gateway: The gateway that it belongs to.

    Attributes:
        address: Address of the client.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.address = ""
        self._gateway = gateway
        self._settings = gateway.settings
        self._transport: asyncio.Transport | None = None
        self._parser = RequestParser(
            self,
            head_bytes=self._settings.head_bytes,
            headers=self._settings.headers,
        )
        self._exchange: Exchange | None = None
        self._form = Form.OLLAMA
        self._method = ""
        self._headers: Headers = []
        self._refused = False
        self._at_end = False
        self._held = False
        self._blocked = False
        self._since = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._exchange is not None

    @property
    def exchange(self) -> Exchange | None:
        """The request that is being answered; None if there is none."""
        return self._exchange

    # The side of the exchange.

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""
        if self._transport is not None:
            self._transport.write(data)

    def hold(self, *, held: bool) -> None:
        """Stop or continue to read from the client."""
        if held == self._held:
            return
        if self._transport is not None and not self._transport.is_closing():
            self._held = held
            self._since = time.monotonic()
            if held:
                self._transport.pause_reading()
            else:
                self._read_again(self._transport)

    def _read_again(self, transport: asyncio.Transport) -> None:
        if not transport.is_closing() and not self._parser.is_full:
            transport.resume_reading()

    def answered(self, *, close: bool) -> None:
        """End the answer; close the connection, or wait for the next request."""
        complete = self._exchange is not None and self._exchange.request_complete
        self._exchange = None
        self.hold(held=False)
        if close:
            self._end(wait=not complete)
        else:
            self._next()

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error, and close the connection."""
        complete = self._exchange is not None and self._exchange.request_complete
        self._exchange = None
        self._refused = True
        head_only = self._method == "HEAD"
        headers = self._gateway.shared_with(self._headers)
        self.write(error_answer(self._form, refusal, headers, head_only=head_only))
        self.hold(held=False)
        self._end(wait=not complete)

    def abort(self) -> None:
        """Close the connection at once."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    def shut(self) -> None:
        """Close the connection: the gateway stops."""
        self._abandon()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Receive the transport of a new connection."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        if not self._gateway.add(self):
            self.refuse(Refusal(503, "The gateway has too many connections."))

    def data_received(self, data: bytes) -> None:
        """Parse a part of a request, and send it on."""
        if self._refused:
            return
        if not self._blocked:
            self._since = time.monotonic()
        try:
            self._parser.feed(data)
        except Refusal as refusal:
            self._invalid(refusal)
        if self._exchange is not None:
            self._exchange.flush_request()
        if self._parser.is_full and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Receive the end of what the client sends.

        It cancels a request that uses or changes a model: Go's server, and so Ollama,
        takes it that way too. Other requests are answered.

        Returns:
            Whether to keep the connection open.
        """
        self._at_end = True
        exchange = self._exchange
        if exchange is None:
            return False
        if exchange.request_complete and exchange.tracker is None:
            return True
        self._abandon()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Cancel the exchange, if there is one."""
        del error
        self._transport = None
        self._gateway.discard(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_left()

    def pause_writing(self) -> None:
        """Read no more of the answer until the client has taken what was sent."""
        self._blocked = True
        self._since = time.monotonic()
        if self._exchange is not None:
            self._exchange.hold_server(held=True)

    def resume_writing(self) -> None:
        """Read the answer again."""
        self._blocked = False
        self._since = time.monotonic()
        if self._exchange is not None:
            self._exchange.hold_server(held=False)

    # The side of the parser.

    def take_head(self, request: Request) -> None:
        """Send a request to the server, unless it is refused."""
        self._method, self._headers = request.method, request.headers
        endpoint = endpoint_of(request.method, request.target)
        self._form = endpoint.form
        self._exchange = self._gateway.exchange(self, request, endpoint)
        if b"expect" in request.values and not request.http_1_0:
            self.write(CONTINUE)

    def take_body(self, data: bytes) -> None:
        """Receive a piece of the body."""
        if self._exchange is not None:
            self._exchange.request_body(data)

    def take_end(self) -> None:
        """Receive the end of the request."""
        if self._exchange is not None:
            self._exchange.request_end()

    # Limits in time

    def check_time(self, now: float) -> None:
        """Close the connection if the client took too long.

        Args:
            now: Seconds of the monotonic clock.
        """
        waited = now - self._since
        limits = self._settings
        if self._refused:
            if waited > _DRAIN_S:
                self.abort()
        elif self._blocked:
            if waited > limits.send_within_s:
                self._abandon()
        elif self._exchange is None:
            if self._parser.in_head and waited > limits.head_within_s:
                self._invalid(Refusal(408, "The request's headers took too long."))
            elif waited > limits.idle_within_s and self._transport is not None:
                self._transport.close()
        elif self._sends_nothing() and waited > limits.body_within_s:
            self._invalid(Refusal(408, "The request's body took too long."))

    def _sends_nothing(self) -> bool:
        """Whether more of a body is due, and the client is the one to send it."""
        exchange = self._exchange
        return exchange is not None and not exchange.request_complete and not self._held

    # Own parts

    def _invalid(self, refusal: Refusal) -> None:
        """Refuse a request that cannot be sent on, or not further."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            self._method = self._parser.method
            self._form = endpoint_of(self._method, self._parser.target).form
            self._headers = self._parser.headers
            self.refuse(refusal)
            return
        missing = refusal.status == 404
        exchange.refused("model_not_found" if missing else "invalid_request")
        if exchange.answer_started:
            self.abort()
        else:
            self.refuse(refusal)

    def _abandon(self) -> None:
        """Close the connection of a client that does not read its answer."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_left()
        self.abort()

    def _next(self) -> None:
        """Answer the next request, or wait for it."""
        self._since = time.monotonic()
        was_full = self._parser.is_full
        try:
            self._parser.next()
        except Refusal as refusal:
            self._invalid(refusal)
        if was_full and self._transport is not None:
            self._read_again(self._transport)
        if self._exchange is not None:
            self._exchange.flush_request()
        elif self._at_end and not self._refused:
            self._end(wait=False)

    def _end(self, *, wait: bool) -> None:
        """Close the connection once all is sent.

        Args:
            wait: Whether the client may still be sending; that is read and dropped.
        """
        self._refused = True
        self._since = time.monotonic()
        if self._transport is None:
            return
        if wait and self._transport.can_write_eof():
            self._transport.write_eof()
        elif not wait:
            self._transport.close()
