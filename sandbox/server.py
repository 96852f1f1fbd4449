"""Serve a sandbox on a local port.

Invariant: when its block ends, the server closes at once, with all connections.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from herdbook.sandbox.api.app import Message, Receive, Send, application
from herdbook.sandbox.refusals import Dropped
from herdbook.sandbox.world import World


class CuttableProtocol(H11Protocol):
    """HTTP with connections that the application can cut, as a dying server does."""

    world: World

    def connection_made(  # type: ignore[override]  # uvicorn narrows the transport
        self, transport: asyncio.Transport
    ) -> None:
        """Give the application a function that cuts this connection."""
        self.app_state = {**self.app_state, "cut_connection": transport.abort}
        super().connection_made(transport)
        self.world.connections.add(self.cut_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.world.connections.discard(self.cut_if_idle)
        super().connection_lost(exc)

    def cut_if_idle(self) -> None:
        """Close the connection, unless it has a request, which the application cuts."""
        cycle: RequestResponseCycle | None = self.cycle  # None before any request
        if cycle is None or cycle.response_complete:
            self.transport.abort()


class _Server(uvicorn.Server):
    """A server that leaves signals alone and stops without delay."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.leaving = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then set ``ready``."""
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        """Keep the ``Date`` header current until the server stops."""
        while not self.leaving.is_set():
            await self.on_tick(0)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.leaving.wait(), timeout=1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, abort connections and wait for the last task."""
        del sockets  # ``serve`` opened them and closes them
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            assert isinstance(connection, H11Protocol)
            connection.transport.abort()
        while self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks)
            await asyncio.sleep(0)


@asynccontextmanager
async def serve(
    world: World, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[str]:
    """Serve a world while the block runs.

    Args:
        world: The world; its server is started if it is down.
        host: Address to listen on.
        port: Port; 0 for any free one.

    Yields:
        The address, for example ``http://127.0.0.1:40123``.
    """
    listening = socket.create_server((host, port), backlog=128)
    # asyncio does not set this for sockets that it did not create; without it each
    # answer waits 40 ms for the client to acknowledge its headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = _Server(_config(world))
    running = asyncio.ensure_future(server.serve(sockets=[listening]))
    ready = asyncio.ensure_future(server.ready.wait())
    if world.down:
        world.start()
    try:
        await asyncio.wait({ready, running}, return_when=asyncio.FIRST_COMPLETED)
        yield f"http://{host}:{listening.getsockname()[1]}"
    finally:
        if not world.down:
            world.stop()
        server.leaving.set()
        ready.cancel()
        await running
        listening.close()


def _config(world: World) -> uvicorn.Config:
    app = application(world)

    async def quiet(scope: Message, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Dropped:
            await asyncio.sleep(0)  # uvicorn notices that the connection is gone

    class Protocol(CuttableProtocol):
        pass

    Protocol.world = world
    return uvicorn.Config(
        quiet,
        http=Protocol,
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=60,
    )
