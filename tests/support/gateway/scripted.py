"""A gateway in front of a scripted server, and raw connections to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec

from herdbook.gateway.access.checks import Access, Authenticate
from herdbook.gateway.recording.uses import Use
from herdbook.gateway.relay import relaying
from herdbook.gateway.routing.upstreams import IncomingRequest, Route, Upstream
from herdbook.gateway.settings import GatewaySettings

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class CollectedUses:
    """Collects the uses that a gateway reports."""

    def __init__(self) -> None:
        self.all: list[Use] = []
        self.works = True

    def add(self, use: Use) -> None:
        self.all.append(use)

    async def first(self) -> Use:
        """Wait for the first use."""
        async with asyncio.timeout(10):
            while not self.all:
                await asyncio.sleep(0.001)
        return self.all[0]


class OneServer:
    """Sends every request to one server, without a log."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstreams = (upstream,)

    def route(self, incoming: IncomingRequest) -> Route:
        return Route(self.upstreams[0])

    async def lists(self, path: str) -> list[tuple[str, bytes]]:
        raise AssertionError(path)  # the list of the only node is relayed

    def is_hung(self, upstream: Upstream) -> bool:
        assert upstream in self.upstreams
        return False

    def recommend(self, role: str) -> str | None:
        raise AssertionError(role)


@asynccontextmanager
async def gateway(
    server: str,
    uses: CollectedUses | None = None,
    *,
    authenticate: Authenticate | None = None,
    **settings: Any,
) -> AsyncIterator[str]:
    """Serve a gateway on a free port."""
    given = msgspec.structs.replace(GatewaySettings(port=0, plain=True), **settings)
    access = Access(given.host, given.hosts, authenticate)
    router = OneServer(Upstream("", server, given, uses or CollectedUses(), None))
    served = relaying(given, access, router, failed=lambda: None)
    async with served as address:
        yield address


class ScriptedServer:
    """A server that a script answers for.

    Attributes:
        url: Its address.
        connections: Connections that were opened so far.
        open: Connections that are open now.
    """

    def __init__(self, script: Script) -> None:
        self.url = ""
        self.connections = 0
        self.open = 0
        self._script = script

    async def answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        self.open += 1
        try:
            await self._script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def scripted_server(script: Script) -> AsyncIterator[ScriptedServer]:
    """Run a server whose connections a script answers."""
    server = ScriptedServer(script)
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{port}"
    try:
        yield server
    finally:
        listening.close()


class RawConnection:
    """A connection of a client that sends any bytes."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        """Read to the end of the next head."""
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)

    async def exactly(self, count: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(count), 10)

    async def rest(self) -> bytes:
        """Read until the gateway closes the connection."""
        return await asyncio.wait_for(self.reader.read(), 10)

    def leave(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def raw_connection(
    address: str, *, limit: int = 1 << 16
) -> AsyncIterator[RawConnection]:
    """Open a connection to a gateway."""
    url = urlsplit(address)
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=limit)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.transport.abort()


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait until a condition is true."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)


async def request_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one request with a Content-Length or chunks; return head and raw body."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        return head, await reader.readuntil(b"0\r\n\r\n")
    length = lower.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return head, await reader.readexactly(int(length or b"0"))


class Echo:
    """Answers every request, and remembers what was received."""

    def __init__(self, answer: bytes = OK) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self._answer = answer

    @property
    def heads(self) -> list[bytes]:
        """The heads of the requests."""
        return [head for head, _ in self.requests]

    async def __call__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            self.requests.append(await request_of(reader))
            writer.write(self._answer)
