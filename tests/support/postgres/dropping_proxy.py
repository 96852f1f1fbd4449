"""A proxy in front of a database that loses connections when a test says so."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from herdbook.events.postgres.address import PostgresAddress


class DroppingProxy:
    """Relays connections to a server, until they are cut.

    Attributes:
        port: The port that it listens on.
        attempts: Number of connections that clients have tried to make.
        cuts: Number of connections that were cut.
        opened: When it opened a connection to the server from each port, s since 1970.
        loses: Asked before each piece of data is relayed, with whether it is an answer
            of the server; if it returns true, the connection is cut instead.
        is_open: Whether new connections are accepted.
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = host, port
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.attempts = 0
        self.cuts = 0
        self.opened: defaultdict[int, list[float]] = defaultdict(list)
        self.is_open = True
        self.loses: Callable[[bool], bool] = lambda _: False

    def cut(self) -> None:
        """Cut every connection, without a word to either side."""
        for pair in self._pairs:
            for writer in pair:
                writer.transport.abort()
        self.cuts += len(self._pairs)
        self._pairs.clear()

    def lose_next_answer(self) -> None:
        """Cut the connection on which the server answers next."""
        left = [True]
        self.loses = lambda is_answer: is_answer and bool(left) and left.pop()

    def silence(self) -> None:
        """Relay no more answers on the present connections, which stay open."""
        for _, server in self._pairs:
            server.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.attempts += 1
        if not self.is_open:
            writer.transport.abort()
            return
        try:
            server_reader, server = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        self.opened[server.get_extra_info("sockname")[1]].append(time.time())
        pair = writer, server
        self._pairs.add(pair)
        for arguments in ((reader, server, False), (server_reader, writer, True)):
            task = asyncio.create_task(self._relay(*arguments, pair))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _relay(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        is_answer: bool,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                if self.loses(is_answer):
                    self.cuts += 1
                    break
                target.write(data)
                await target.drain()
        self._pairs.discard(pair)
        for writer in pair:
            writer.transport.abort()

    async def close(self) -> None:
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxied(
    address: PostgresAddress,
) -> AsyncIterator[tuple[DroppingProxy, PostgresAddress]]:
    """Serve a proxy; yield it, and the address of the log through it."""
    parts = urlsplit(address.url)
    proxy = DroppingProxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    user = parts.netloc.rpartition("@")[0]
    through = parts._replace(netloc=f"{user}@127.0.0.1:{proxy.port}").geturl()
    joint = "&" if parts.query else "?"
    try:
        yield proxy, PostgresAddress(f"{through}{joint}schema={address.schema}")
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
