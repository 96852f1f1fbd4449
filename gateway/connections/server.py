"""Connections to the server: parse its answers, and use connections again."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import httptools

from herdbook.core.ollama.connections import reason_of
from herdbook.gateway.protocol.answers import Refusal
from herdbook.gateway.protocol.headers import Headers, values_of

if TYPE_CHECKING:
    from herdbook.gateway.connections.exchange import Exchange
    from herdbook.gateway.settings import GatewaySettings

UNREACHABLE = "node_unreachable"
TIMEOUT = "node_timeout"
BAD_ANSWER = "bad_answer"
_MOST_IDLE = 64
"""Idle connections that are kept; a burst of clients opens more and closes them."""


class ServerConnection(asyncio.Protocol):
    """A connection to the server, for one exchange at a time.

    Args:
        pool: Where the connection belongs.

    Attributes:
        idle_since: When it became idle, seconds of the monotonic clock.
    """

    def __init__(self, pool: ServerPool) -> None:
        self.idle_since = 0.0
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._pieces: list[bytes] = []
        # Called by the parser for each piece of a body. An answer often arrives in
        # several pieces at once, which are sent on together.
        self.on_body = self._pieces.append
        self._parser = httptools.HttpResponseParser(self)
        self._headers: Headers = []
        self._reason = b""
        self._complete = False
        self._interim = False
        self._until_close = False
        self._keep_alive = False
        self._may_be_closed = False

    def start(self, exchange: Exchange, *, reused: bool = False) -> None:
        """Use the connection for an exchange.

        Args:
            exchange: The exchange.
            reused: Whether the connection served another exchange before.
        """
        self._may_be_closed = reused
        self._exchange = exchange
        self._headers, self._reason = [], b""
        self._complete = self._interim = self._until_close = False
        exchange.connect(self)

    @property
    def usable(self) -> bool:
        """Whether the connection is open."""
        return self._transport is not None and not self._transport.is_closing()

    # The side of the exchange.

    def write(self, data: bytes) -> None:
        """Send bytes to the server."""
        assert self._transport is not None
        self._transport.write(data)

    def hold(self, *, held: bool) -> None:
        """Stop or continue to read from the server."""
        if self._transport is not None and not self._transport.is_closing():
            if held:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def release(self, *, reusable: bool) -> None:
        """Give the connection back to the pool, or close it at once."""
        self._exchange = None
        if self._transport is None:
            return
        if reusable and not self._transport.is_closing():
            self.hold(held=False)
            self._pool.add(self)
        else:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Receive the transport of a new connection."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse a part of an answer, and send it on."""
        exchange = self._exchange
        if exchange is None:  # nothing was asked: the server is confused
            self._close()
            return
        self._may_be_closed = False
        valid = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            valid = False
        if self._exchange is not exchange:
            self._pieces.clear()
            return  # its answer is not needed: another server got the request
        if self._pieces:
            if exchange.request.method == "HEAD":  # has no body: the server is confused
                self._keep_alive = False
            else:
                exchange.answer_body(self._pieces)
            self._pieces.clear()
        if self._complete:
            # Of more than one answer, the first counts, and the connection ends.
            exchange.answer_end(reusable=valid and self._keep_alive)
        elif valid:
            exchange.flush_answer()
        else:
            self._fail("sent an answer that is not HTTP", BAD_ANSWER)

    def eof_received(self) -> None:
        """Receive the end of what the server sends."""
        if self._exchange is not None and self._until_close:
            self._exchange.answer_end(reusable=False)

    def connection_lost(self, error: Exception | None) -> None:
        """End the exchange, if there is one."""
        del error
        self._transport = None
        self._pool.discard(self)
        exchange = self._exchange
        if exchange is None:
            return
        if self._may_be_closed and exchange.repeat():
            # The server closed it as the request was on its way.
            self._exchange = None
            self._pool.connect(exchange)
        else:
            self._fail("closed the connection before its answer was complete")

    def pause_writing(self) -> None:
        """Read no more of the request until the server has taken what was sent."""
        if self._exchange is not None:
            self._exchange.hold_client(held=True)

    def resume_writing(self) -> None:
        """Read the request again."""
        if self._exchange is not None:
            self._exchange.hold_client(held=False)

    # httptools

    def on_message_begin(self) -> None:
        """Refuse a second answer to one request."""
        if self._complete:
            message = "a second answer"
            raise ValueError(message)
        self._headers = []

    def on_status(self, reason: bytes) -> None:
        """Receive the reason phrase."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Receive a header; fields after the body are not sent on."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Send the head on; interim answers (1xx) stay here."""
        status = self._parser.get_status_code()
        self._interim = status < 200
        if self._interim:
            self._reason = b""
            return
        exchange = self._exchange
        assert exchange is not None
        self._keep_alive = self._parser.should_keep_alive()
        headers, self._headers = self._headers, []
        values = values_of(headers)
        exchange.answer_head(status, self._reason, headers, values)
        sized = b"content-length" in values or b"transfer-encoding" in values
        if exchange.request.method == "HEAD":
            self._complete = True
            # The parser waits for a body that does not come.
            self._parser = httptools.HttpResponseParser(self)
            self._until_close = not sized
        else:
            self._until_close = not sized and status not in {204, 304}

    def on_message_complete(self) -> None:
        """Note the end of an answer."""
        if not self._interim:
            self._complete = True

    def _fail(self, problem: str, failure: str = UNREACHABLE) -> None:
        exchange, self._exchange = self._exchange, None
        self._close()
        if exchange is not None:
            exchange.server_failed(Refusal(502, f"The server {problem}."), failure)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class ServerPool:
    """Connections to one server.

    Args:
        server: URL of the server, without a slash at its end.
        settings: The settings of the gateway.

    Attributes:
        host: Host and port, for the ``Host`` header.
        prefix: Path of the server's URL; empty in most cases.
    """

    def __init__(self, server: str, settings: GatewaySettings) -> None:
        url = urlsplit(server)
        self.host = url.netloc.encode()
        self.prefix = url.path.encode()
        self._address = (url.hostname or "", url.port or 0)
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._settings = settings
        self._idle: list[ServerConnection] = []
        self._connecting: set[asyncio.Task[None]] = set()

    def send(self, exchange: Exchange) -> None:
        """Send an exchange to the server, over an idle connection or a new one."""
        oldest = time.monotonic() - self._settings.reuse_within_s
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since > oldest:
                connection.start(exchange, reused=True)
                return
            connection.release(reusable=False)
        self.connect(exchange)

    def connect(self, exchange: Exchange) -> None:
        """Send an exchange to the server over a new connection."""
        exchange.hold_client(held=True)
        task = asyncio.get_running_loop().create_task(self._connect(exchange))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def add(self, connection: ServerConnection) -> None:
        """Take an idle connection."""
        if len(self._idle) < _MOST_IDLE:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.release(reusable=False)

    def discard(self, connection: ServerConnection) -> None:
        """Forget a connection that was closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close_old(self) -> None:
        """Close connections that were idle for too long."""
        oldest = time.monotonic() - self._settings.reuse_within_s
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.pop(0).release(reusable=False)

    async def close(self) -> None:
        """Close all idle connections, and stop connecting."""
        while self._idle:
            self._idle.pop().release(reusable=False)
        for task in self._connecting:
            task.cancel()
        if self._connecting:
            await asyncio.wait(self._connecting)

    async def _connect(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        host, port = self._address
        try:
            async with asyncio.timeout(self._settings.connect_within_s):
                _, connection = await loop.create_connection(
                    lambda: ServerConnection(self), host, port, ssl=self._tls
                )
        except TimeoutError:
            server = f"the Ollama server at {self.host.decode()}"
            problem = f"No connection to {server} within the time allowed."
            exchange.server_failed(Refusal(504, problem), TIMEOUT)
        except OSError as error:
            server = f"the Ollama server at {self.host.decode()}"
            problem = f"Cannot connect to {server}: {reason_of(error)}."
            exchange.server_failed(Refusal(502, problem), UNREACHABLE)
        else:
            if exchange.ended:  # the client left meanwhile
                self.add(connection)
            else:
                connection.start(exchange)
                exchange.flush_request()
