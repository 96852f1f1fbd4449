"""Connections of clients: parse requests strictly, and limit what they may take.

The server never sees the bytes of a request's framing: heads and chunks are written
again. So what another parser could read differently (two lengths, a length with chunks,
a bad chunk) is refused here or never arrives, and no request can hide inside another.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import urlsplit

import httptools

from herdbook.gateway.protocol.answers import CONTINUE, Refusal, error_answer
from herdbook.gateway.protocol.endpoints import Endpoint, Form, endpoint_of
from herdbook.gateway.protocol.heads import Headers, Request, value_of

if TYPE_CHECKING:
    from herdbook.gateway.connections.exchange import Exchange
    from herdbook.gateway.settings import GatewaySettings

_DRAIN_S = 2.0
"""Seconds that a refused client has to stop sending. Closing earlier would reset the
connection, and the client would not see the answer."""


class _PipelinedError(Exception):
    """A second request arrived before the first was answered."""


class Gateway(Protocol):
    """What a connection of a client needs of its gateway."""

    settings: GatewaySettings

    def add(self, client: ClientConnection) -> bool:
        """Take a new connection; return whether there is room for it."""
        ...

    def discard(self, client: ClientConnection) -> None:
        """Forget a connection that was closed."""

    def exchange(
        self, client: ClientConnection, request: Request, endpoint: Endpoint
    ) -> Exchange:
        """Send a request to the server."""
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
        self._parser = httptools.HttpRequestParser(self)
        self._exchange: Exchange | None = None
        self._form = Form.OLLAMA
        self._method = ""
        self._target = b""
        self._headers: Headers = []
        self._head_bytes = 0
        self._unparsed = 0
        self._in_head = True
        self._started = False
        self._refused = False
        self._last = False
        self._held = False
        self._blocked = False
        self._since = time.monotonic()

    # The side of the exchange.

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""
        if self._transport is not None:
            self._transport.write(data)

    def hold(self, *, held: bool) -> None:
        """Stop or continue to read from the client."""
        if self._transport is None or self._transport.is_closing():
            return
        if held != self._held:
            self._held = held
            self._since = time.monotonic()
            if held:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def answered(self, *, close: bool) -> None:
        """End the answer; close the connection, or wait for the next request."""
        complete = self._exchange is not None and self._exchange.request_complete
        self._exchange = None
        self.hold(held=False)
        if close or self._last:
            self._end(wait=not complete)
        else:
            self._wait_for_request()

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error, and close the connection."""
        complete = self._exchange is not None and self._exchange.request_complete
        self._exchange = None
        self._refused = True
        head_only = self._method == "HEAD"
        self.write(error_answer(self._form, refusal, head_only=head_only))
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
        """Take the transport of a new connection."""
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
        exchange = self._exchange
        if exchange is not None and exchange.request_complete:
            self._last = True  # sent before the answer: it is not served
            return
        self._started = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._callback_failed(error)
        except httptools.HttpParserUpgrade:
            self._invalid(Refusal(501, "Upgrades of the protocol are not supported."))
        except httptools.HttpParserError as error:
            self._invalid(Refusal(400, f"The request is not valid HTTP: {error}."))
        if self._in_head and not self._refused:
            self._unparsed += len(data)
            if self._unparsed > self._settings.head_bytes:
                self._invalid(_too_long())
        if self._exchange is not None:
            self._exchange.flush_request()

    def eof_received(self) -> None:
        """Cancel the exchange: Go's server, and so Ollama, takes it that way too."""
        if self._exchange is not None:
            self._abandon()

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

    # httptools

    def on_message_begin(self) -> None:
        """Begin a request, unless one is being answered."""
        if self._exchange is not None or self._refused:
            raise _PipelinedError

    def on_url(self, part: bytes) -> None:
        """Take a part of the target."""
        self._target += part
        self._head_bytes += len(part)
        if self._head_bytes > self._settings.head_bytes:
            raise _too_long()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; fields after the body are not sent on."""
        if not self._in_head:
            return
        self._head_bytes += len(name) + len(value)
        self._headers.append((name, value))
        if (
            self._head_bytes > self._settings.head_bytes
            or len(self._headers) > self._settings.headers
        ):
            raise _too_long()

    def on_headers_complete(self) -> None:
        """Send the request to the server, unless it is refused."""
        self._in_head = False
        self._method = self._parser.get_method().decode("ascii")
        self._target = _origin_form(self._target)
        endpoint = endpoint_of(self._method, self._target)
        self._form = endpoint.form
        request = self._request()
        self._exchange = self._gateway.exchange(self, request, endpoint)
        if not request.http_1_0 and value_of(request.headers, b"expect") is not None:
            self.write(CONTINUE)

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self._exchange is not None:
            self._exchange.request_body(data)

    def on_message_complete(self) -> None:
        """Take the end of the request."""
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
        elif self._in_head:
            if self._started and waited > limits.head_within_s:
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

    def _request(self) -> Request:
        """Return the head that was received.

        Raises:
            Refusal: It is ambiguous, or not supported.
        """
        version = self._parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            raise Refusal(505, f"HTTP/{version} is not supported. Use HTTP/1.1.")
        coding = value_of(self._headers, b"transfer-encoding")
        if coding is not None and (coding.lower() != b"chunked" or version == "1.0"):
            raise Refusal(400, "Transfer-Encoding must be 'chunked', over HTTP/1.1.")
        if self._method == "CONNECT":
            raise Refusal(501, "CONNECT is not supported.")
        if value_of(self._headers, b"upgrade") is not None:
            raise Refusal(501, "Upgrades of the protocol are not supported.")
        return Request(
            self._method,
            self._target,
            self._headers,
            version == "1.0",
            self._parser.should_keep_alive(),
            coding is not None,
        )

    def _callback_failed(self, error: httptools.HttpParserCallbackError) -> None:
        match error.__context__:
            case Refusal() as refusal:
                self._invalid(refusal)
            case _PipelinedError():
                self._last = True
            case _:
                raise error

    def _invalid(self, refusal: Refusal) -> None:
        """Refuse a request that cannot be sent on, or not further."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
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

    def _wait_for_request(self) -> None:
        self._target, self._headers = b"", []
        self._head_bytes = self._unparsed = 0
        self._in_head, self._started = True, False
        self._since = time.monotonic()

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


def _too_long() -> Refusal:
    return Refusal(431, "The request's headers are too long.")


def _origin_form(target: bytes) -> bytes:
    """Return path and query of a target, which may be a whole URL."""
    if not target.lower().startswith((b"http://", b"https://")):
        return target
    url = urlsplit(target)
    path = url.path or b"/"
    return path + b"?" + url.query if url.query else path
