"""Serve an application on a port of this machine.

Invariant: whoever opens a server closes it; nothing of it outlives its block. What
runs when it stops has a bounded time to end by itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Final, cast

import uvicorn

from herdbook.service.auth.tokens import MAKE_ONE
from herdbook.service.errors import InvalidServiceError, OverloadedError
from herdbook.service.http.asgi import App, Receive, Scope, Send
from herdbook.service.http.connections import Acceptor, connections_possible
from herdbook.service.http.exchange import Exchange
from herdbook.service.http.protocol import BoundedProtocol
from herdbook.service.settings import ServiceSettings

MOST_CONNECTIONS: Final = 800
"""Connections that are answered, where there are descriptors for as many; the usual
limit of open files is 1024."""

SPARE_CONNECTIONS: Final = 100
"""Connections more that are told to come again; the ones beyond are cut."""

KEEP_ALIVE_S: Final = 30
"""Seconds for which a connection may stay idle."""

SEND_BUFFER: Final = 131_072
"""Bytes that the system keeps for a reader. It would take megabytes for one that does
not read, and so hide for long that it does not."""

_AFTER_ABORT_S: Final = 0.5
"""Seconds that a request has to notice that its connection was cut."""


_Address = tuple[socket.AddressFamily, Any]


class Server(uvicorn.Server):
    """A server that leaves signals to its surroundings, and stops in bounded time.

    An application finds ``scope["state"]["abort"]``, which cuts its connection, and
    ``scope["state"]["stopping"]``, an ``asyncio.Event``, set once it is time to end.

    Args:
        app: What answers.
        settings: How much it takes, and how long.
        most_connections: How many it answers at a time.

    Attributes:
        ready: Set once it listens.
        stopping: Set once it is to stop.
    """

    def __init__(
        self,
        app: App,
        settings: ServiceSettings,
        *,
        most_connections: int = MOST_CONNECTIONS,
    ) -> None:
        self._app = app
        self._settings = settings
        # What is open by now, the log above all, is not there for connections.
        possible = connections_possible(most_connections + SPARE_CONNECTIONS)
        spare = max(possible - most_connections, possible // 8)
        self._spare = min(SPARE_CONNECTIONS, spare)
        self._most = min(most_connections, possible - self._spare)
        self._accepting: list[asyncio.Task[None]] = []
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()
        super().__init__(self._configuration())

    def stop(self) -> None:
        """Begin to stop; ``serve`` returns once everything has ended."""
        self.stopping.set()

    def _configuration(self) -> uvicorn.Config:
        protocol = partial(
            BoundedProtocol,
            limits=self._settings,
            admit=self._accept_connection,
        )
        return uvicorn.Config(
            cast("Any", self._answer),
            http=cast("Any", protocol),
            interface="asgi3",
            ws="none",
            loop="none",
            lifespan="auto",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            h11_max_incomplete_event_size=self._settings.header_bytes,
        )

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer, unless too much is asked at once."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        scope["state"]["stopping"] = self.stopping
        if len(self.server_state.connections) > self._most:
            await _send_away(Exchange(scope, receive, send, self._settings))
            return
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self.stopping.is_set():
                raise
            # It did not end in time, and its connection was cut: that is no fault.

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so.

        Raises:
            InvalidServiceError: The application could not start.
        """
        try:
            await super().startup(sockets=[])
        except SystemExit:
            raise InvalidServiceError(
                "the application", "could not start", "The lines before say why"
            ) from None
        for listening_socket in sockets or ():
            acceptor = Acceptor(listening_socket, self._protocol, self._make_room)
            self._accepting.append(asyncio.create_task(acceptor.run(), name="accept"))
        self.ready.set()

    def _protocol(self) -> asyncio.Protocol:
        make = cast("Any", self.config.http_protocol_class)
        protocol: asyncio.Protocol = make(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        return protocol

    def _accept_connection(self, newcomer: BoundedProtocol) -> None:
        """Make room for a new connection; cut it where there is none at all."""
        connections = len(self.server_state.connections)
        if connections <= self._most or self._make_room(newcomer):
            return
        if connections > self._most + self._spare:
            newcomer.transport.abort()

    def _make_room(self, newcomer: BoundedProtocol | None = None) -> bool:
        """Close the connection that has been idle longest; return if there is any."""
        idle = [
            one
            for one in self._connections()
            if one.idle and one is not newcomer and not one.transport.is_closing()
        ]
        if idle:
            min(idle, key=lambda one: one.idle_since).transport.abort()
        return bool(idle)

    async def main_loop(self) -> None:
        """Keep the date of the answers right until it is time to leave."""
        while not self.stopping.is_set():
            await self.on_tick(0)
            for task in self._accepting:
                if task.done():
                    task.result()  # without it nothing is served: end with its error
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), timeout=1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port and what is idle, wait for the rest, then cut it."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for listening_socket in sockets or ():
            listening_socket.close()
        for connection in self._connections():
            connection.shutdown()
        await self._ended(self._settings.stop_within_s)
        for connection in self._connections():
            connection.transport.abort()
        await self._ended(_AFTER_ABORT_S)
        while self.server_state.tasks:
            for task in self.server_state.tasks:
                task.cancel()
            await asyncio.wait(self.server_state.tasks, timeout=1.0)
            await asyncio.sleep(0)
        await self.lifespan.shutdown()

    async def _ended(self, within_s: float) -> None:
        """Wait until nothing runs and nothing is open, or that time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                # uvicorn has sets of both, and says of neither when it empties.
                while self.server_state.tasks or self.server_state.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    def _connections(self) -> list[BoundedProtocol]:
        return cast("list[BoundedProtocol]", list(self.server_state.connections))


async def _send_away(exchange: Exchange) -> None:
    await exchange.refuse(
        OverloadedError(
            "this service", "has too many connections", "Try again in a moment"
        )
    )


@asynccontextmanager
async def serve(
    app: App,
    settings: ServiceSettings,
    *,
    ended: Callable[[], None] | None = None,
) -> AsyncIterator[str]:
    """Serve an application while the block runs; the server stops with the block.

    It is served as it is: ``Guard`` is what is to stand around it.

    Args:
        app: The application.
        settings: Where to listen, and limits.
        ended: Called when the server ends, also if that is not because of the block:
            leave the block then, which raises the server's error.

    Yields:
        The address, for example ``http://127.0.0.1:11435``.

    Raises:
        InvalidServiceError: It may not, or cannot, listen there.
    """
    server = Server(app, settings)
    with listening(settings) as listening_socket:
        running = asyncio.ensure_future(server.serve(sockets=[listening_socket]))
        ready = asyncio.ensure_future(server.ready.wait())
        try:
            await asyncio.wait({ready, running}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running  # raises what was wrong
            if ended is not None:
                running.add_done_callback(lambda _: ended())
            yield address_of(listening_socket)
        finally:
            ready.cancel()
            server.stop()
            await running


def listening(settings: ServiceSettings) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InvalidServiceError: The host is none, the port is taken or not allowed, or
            there are no tokens and others than this machine's users would reach it.
    """
    host, port = settings.host, settings.port
    addresses = _addresses(host, port)
    if not settings.tokens:
        _check_port(host, addresses)
    family, address = addresses[0]
    try:
        # On POSIX this sets SO_REUSEADDR too: a restart does not wait for old ones.
        made = socket.create_server(address, family=family, backlog=128)
    except OSError as error:
        raise InvalidServiceError(
            f"port {port} of {host}",
            f"cannot be listened on: {error.strerror}",
            "Take another one, or 0 for any that is free",
        ) from error
    # asyncio leaves this out for sockets that it has not made; each answer would
    # wait 40 ms for the client to acknowledge its headers.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return made


def _check_port(host: str, addresses: list[_Address]) -> None:
    for _, address in addresses:
        # A name can stand for several, and each must be of the loopback interface.
        if not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
            raise InvalidServiceError(
                f"to listen on {host}",
                "would let everybody on the network change models: there are no tokens",
                f"Listen on 127.0.0.1, or give it tokens. {MAKE_ONE}",
            )


def address_of(listening_socket: socket.socket) -> str:
    """Return where a socket is reached; from this machine, if it is everywhere."""
    host, port = listening_socket.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _addresses(host: str, port: int) -> list[_Address]:
    """Return what a host resolves to, at least one; IPv4 first.

    Raises:
        InvalidServiceError: It resolves to nothing.
    """
    try:
        if not host:
            raise OSError(None, "it is empty")  # noqa: TRY301 - told as the others
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InvalidServiceError(
            f"{host[:100]!r}",
            f"is no host to listen on: {getattr(error, 'strerror', error)}",
            "Write an address of this machine, as 127.0.0.1",
        ) from error
    by_family = sorted(found, key=lambda one: one[0] is not socket.AF_INET)
    return [(one[0], one[4]) for one in by_family]
