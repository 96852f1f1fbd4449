"""The gateway with recording, compared with the server that it relays to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from benchmarks.fast_server import CHUNKS, MODEL
from benchmarks.measure import Row, at_most, at_most_more, interleave, percentile
from benchmarks.program import cpu_s, program, program_with_pid
from benchmarks.sizes import Sizes
from herdbook.core import Fleet

_BODY: Final = b'{"model":"%b","prompt":"hi"}' % MODEL.encode()
_REQUEST: Final = (
    b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
    % (len(_BODY), _BODY)
)
_CHAT: Final = _REQUEST.replace(b"/api/generate", b"/api/chat")
_END: Final = b"0\r\n\r\n"
_CLIENTS: Final = 50
_NODES: Final = 3

Measured: TypeAlias = Callable[[], Awaitable[list[float]]]


class Client(asyncio.Protocol):
    """A connection that sends one request after another.

    Attributes:
        first_s: Seconds to the first byte of each answer.
    """

    def __init__(self) -> None:
        self.first_s: list[float] = []
        self._answered: asyncio.Future[None] | None = None
        self._asked_at = 0.0
        self._waits = False
        self._last = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._waits:
            self.first_s.append(perf_counter() - self._asked_at)
            self._waits = False
        self._last = (self._last + data)[-len(_END) :]
        if self._last == _END and self._answered is not None:
            self._answered.set_result(None)

    async def ask(self, times: int, request: bytes = _REQUEST) -> None:
        """Send requests, one after another."""
        loop = asyncio.get_running_loop()
        for _ in range(times):
            self._answered = loop.create_future()
            self._waits, self._last = True, b""
            self._asked_at = perf_counter()
            self.transport.write(request)
            await self._answered


async def run(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure requests through gateways of one node and of several, and directly."""
    return [*await _one_node(folder, sizes), await _several_nodes(folder, sizes)]


async def _one_node(folder: Path, sizes: Sizes) -> list[Row]:
    log = str(folder / "gateway.db")
    words = ("--listen", "127.0.0.1:0", "--db", log, "--ollama")
    with program("-m", "benchmarks.fast_server") as server:
        gateway = ("-m", "herdbook.cli", "gateway", *words, server)
        with program_with_pid(*gateway) as (address, pid):
            one = [partial(_first_s, url, sizes.relayed) for url in (address, server)]
            ours, theirs, *late = await interleave(
                sizes.rounds,
                *(partial(_median, run) for run in one),
                *(partial(_late, run) for run in one),
            )
            many = [partial(_many_s, url, sizes.relayed) for url in (address, server)]
            crowd, bare_crowd = await interleave(sizes.rounds, *many)
            streams = partial(_chunks_s, address, sizes.relayed * 20, pid)
            (chunks,) = await interleave(sizes.rounds, streams)
    beside = "the bare server"
    return [
        Row(
            what="gateway: time to first byte, p50",
            unit="ms",
            ours=ours * 1e3,
            beside=beside,
            theirs=theirs * 1e3,
            goal=at_most_more(0.3),
        ),
        Row(
            what="gateway: time to first byte, p99",
            unit="ms",
            ours=late[0] * 1e3,
            beside=beside,
            theirs=late[1] * 1e3,
            goal=at_most_more(1.5),
        ),
        Row(
            what=f"gateway: 1,000 requests of {_CLIENTS} clients",
            unit="ms",
            ours=crowd * 1e6,
            goal=at_most(250),
            beside=beside,
            theirs=bare_crowd * 1e6,
        ),
        Row(
            what="gateway: CPU time of 1,000 chunks",
            unit="ms",
            ours=chunks * 1e6,
        ),
    ]


async def _several_nodes(folder: Path, sizes: Sizes) -> Row:
    log = folder / "nodes.db"
    with ExitStack() as stack:
        serving = (program("-m", "benchmarks.fast_server") for _ in range(_NODES))
        servers = [stack.enter_context(server) for server in serving]
        first = servers[0]
        async with Fleet.open(log, ollama=first, refresh=False) as fleet:
            for number, server in enumerate(servers):
                await fleet.add(f"gpu{number}", server)
        words = ("--listen", "127.0.0.1:0", "--db", str(log))
        address = stack.enter_context(program("-m", "herdbook.cli", "gateway", *words))
        runs = [partial(_first_s, url, sizes.relayed) for url in (address, first)]
        ours, theirs = await interleave(
            sizes.rounds, *(partial(_median, run) for run in runs)
        )
    return Row(
        what=f"gateway over {_NODES} nodes: time to first byte, p50",
        unit="ms",
        ours=ours * 1e3,
        beside="the bare server",
        theirs=theirs * 1e3,
        goal=at_most_more(1.5),
    )


async def _connected(url: str) -> Client:
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    host, port = address.hostname or "", address.port or 0
    _, client = await loop.create_connection(Client, host, port)
    return client


async def _first_s(url: str, requests: int) -> list[float]:
    client = await _connected(url)
    await client.ask(requests)
    client.transport.close()
    return client.first_s


async def _median(run: Measured) -> float:
    return median(await run())


async def _late(run: Measured) -> float:
    return percentile(await run(), 99)


async def _many_s(url: str, requests: int) -> float:
    """Return the seconds that one request takes when many clients ask."""
    clients = [await _connected(url) for _ in range(_CLIENTS)]
    each = -(-requests // _CLIENTS) * 4
    began = perf_counter()
    await asyncio.gather(*(client.ask(each) for client in clients))
    taken = perf_counter() - began
    for client in clients:
        client.transport.close()
    return taken / (each * _CLIENTS)


async def _chunks_s(url: str, chunks: int, pid: int) -> float:
    """Return the CPU seconds of a gateway for a chunk of streams that run at once."""
    clients = [await _connected(url) for _ in range(-(-chunks // CHUNKS))]
    began = cpu_s(pid)
    await asyncio.gather(*(client.ask(1, _CHAT) for client in clients))
    taken = cpu_s(pid) - began
    for client in clients:
        client.transport.close()
    return taken / (len(clients) * CHUNKS)
