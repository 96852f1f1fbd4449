"""The HTTP server: uvicorn with limits on connections and on the time of a shutdown.

Nothing outlives the block of ``serve``: requests that are open at a shutdown have a
limited time to finish and are then cancelled.
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

from herdbook.core.errors.caller import listen_failure
from herdbook.events.shared.cancellation import finish
from herdbook.service.auth.tokens import HOW_TO_CREATE
from herdbook.service.errors import InvalidServiceError, OverloadedError
from herdbook.service.http.asgi import App, Receive, Scope, Send
from herdbook.service.http.connections import Acceptor, connections_possible
from herdbook.service.http.exchange import Exchange
from herdbook.service.http.protocol import BoundedProtocol
from herdbook.service.settings import ServiceSettings

MOST_CONNECTIONS: Final = 800
"""Maximum number of connections, if the limit of open files (usually 1024) allows."""

SPARE_CONNECTIONS: Final = 100
"""Further connections that get a 503; those beyond are aborted."""

KEEP_ALIVE_S: Final = 30
"""Seconds after which an idle connection is closed."""

SEND_BUFFER: Final = 131_072
"""Send buffer of a socket, in bytes. By default the system buffers megabytes, which
would hide for a long time that a client does not read."""

_AFTER_ABORT_S: Final = 0.5
"""Seconds that a request has to end after its connection was aborted."""


_Address = tuple[socket.AddressFamily, Any]


class Server(uvicorn.Server):
    """A uvicorn server that does not handle signals and stops within a time limit.

    Each request gets ``scope["state"]["abort"]``, which aborts its connection, and
    ``scope["state"]["stopping"]``, an ``asyncio.Event`` that is set at shutdown.

    Args:
        app: The ASGI application.
        settings: Limits on size and time.
        most_connections: Maximum number of connections.

    Attributes:
        ready: Set when the server listens.
        stopping: Set when the server has to stop.
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
        # Descriptors that are open now, such as those of the log, are not available.
        possible = connections_possible(most_connections + SPARE_CONNECTIONS)
        spare = max(possible - most_connections, possible // 8)
        self._spare = min(SPARE_CONNECTIONS, spare)
        self._most = min(most_connections, possible - self._spare)
        self._accepting: list[asyncio.Task[None]] = []
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()
        super().__init__(self._configuration())

    def stop(self) -> None:
        """Start the shutdown; ``serve`` returns when it is complete."""
        self.stopping.set()

    def _configuration(self) -> uvicorn.Config:
        protocol = partial(
            BoundedProtocol,
            limits=self._settings,
            admit=self._admit,
            page=getattr(self._app, "page", None),  # of a ``Guard``
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
        """Call the application, unless there are too many connections."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        scope["state"]["stopping"] = self.stopping
        if len(self.server_state.connections) > self._most:
            await _refuse_overload(Exchange(scope, receive, send, self._settings))
            return
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self.stopping.is_set():
                raise
            # Cancelled by the shutdown, which is not an error.

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers; ``run`` has its own."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections, and set ``ready``.

        Raises:
            InvalidServiceError: The application failed to start.
        """
        try:
            await super().startup(sockets=[])
        except SystemExit:
            raise InvalidServiceError(
                "the application", "failed to start", "See the log lines above"
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

    def _admit(self, newcomer: BoundedProtocol) -> None:
        """Make room for a new connection, or abort it."""
        connections = len(self.server_state.connections)
        if connections <= self._most or self._make_room(newcomer):
            return
        if connections > self._most + self._spare:
            newcomer.transport.abort()

    def _make_room(self, newcomer: BoundedProtocol | None = None) -> bool:
        """Close the connection that has been idle longest; return whether one was."""
        idle = [
            one
            for one in self._connections()
            if one.idle and one is not newcomer and not one.transport.is_closing()
        ]
        if idle:
            min(idle, key=lambda one: one.idle_since).transport.abort()
        return bool(idle)

    async def main_loop(self) -> None:
        """Update the ``Date`` header every second until the server has to stop."""
        while not self.stopping.is_set():
            await self.on_tick(0)
            for task in self._accepting:
                if task.done():
                    task.result()  # raises: without this task nothing is accepted
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), timeout=1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port and idle connections, wait for the others, then abort them."""
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
        """Wait until no request runs and no connection is open, or until a timeout."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                # uvicorn keeps plain sets of both, without a way to wait for them.
                while self.server_state.tasks or self.server_state.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    def _connections(self) -> list[BoundedProtocol]:
        return cast("list[BoundedProtocol]", list(self.server_state.connections))


async def _refuse_overload(exchange: Exchange) -> None:
    await exchange.refuse(
        OverloadedError(
            "this service", "has too many connections", "Try again in a few seconds"
        )
    )


@asynccontextmanager
async def serve(
    app: App,
    settings: ServiceSettings,
    *,
    ended: Callable[[], None] | None = None,
) -> AsyncIterator[str]:
    """Serve an application while the block runs.

    This adds no access checks; wrap the application in ``Guard``.

    Args:
        app: The ASGI application.
        settings: Address and limits.
        ended: Called when the server ends, also after a failure. Leave the block then;
            that raises the error of the server.

    Yields:
        The address, for example ``http://127.0.0.1:11435``.

    Raises:
        InvalidServiceError: The address is not valid, not available or not permitted.
    """
    server = Server(app, settings)
    with listening(settings) as listening_socket:
        running = asyncio.ensure_future(server.serve(sockets=[listening_socket]))
        ready = asyncio.ensure_future(server.ready.wait())
        try:
            await asyncio.wait({ready, running}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running  # raises the error of the start
            if ended is not None:
                running.add_done_callback(lambda _: ended())
            yield address_of(listening_socket)
        finally:
            ready.cancel()
            server.stop()
            # A second cancellation must not cut the shutdown short: it has time limits.
            await finish(running)


def listening(settings: ServiceSettings) -> socket.socket:
    """Open a listening socket.

    Raises:
        InvalidServiceError: The host is not valid, the port is not available, or the
            address is reachable from the network and there are no tokens.
    """
    host, port = settings.host, settings.port
    addresses = _addresses(host, port)
    if not settings.tokens and settings.token_file is None:
        _check_loopback(host, addresses)
    family, address = addresses[0]
    try:
        # On POSIX this sets SO_REUSEADDR: a restart need not wait for TIME_WAIT.
        made = socket.create_server(address, family=family, backlog=128)
    except OSError as error:
        raise InvalidServiceError(
            f"port {port} on {host}",
            listen_failure(error),
            "Choose another with --port, or --port 0 for any free port",
        ) from error
    # asyncio sets this only on sockets that it creates itself. Without it, each
    # response would wait 40 ms for the client to acknowledge the headers.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return made


def _check_loopback(host: str, addresses: list[_Address]) -> None:
    for _, address in addresses:
        # A name can have several addresses; all must be loopback addresses.
        if not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
            raise InvalidServiceError(
                f"host {host}",
                "would let everyone on the network change models without a token",
                f"Listen on 127.0.0.1, or use --tokens. {HOW_TO_CREATE}",
            )


def address_of(listening_socket: socket.socket) -> str:
    """Return the URL of a socket; a loopback URL if it listens on all addresses."""
    host, port = listening_socket.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _addresses(host: str, port: int) -> list[_Address]:
    """Resolve a host to at least one address; IPv4 addresses first.

    Raises:
        InvalidServiceError: The host cannot be resolved.
    """
    try:
        if not host:
            raise OSError(None, "it is empty")  # noqa: TRY301 - same error as below
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InvalidServiceError(
            f"host {host[:100]!r}",
            f"cannot be resolved: {getattr(error, 'strerror', error)}",
            "Use an address of this machine, for example 127.0.0.1",
        ) from error
    by_family = sorted(found, key=lambda one: one[0] is not socket.AF_INET)
    return [(one[0], one[4]) for one in by_family]
