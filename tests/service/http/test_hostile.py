"""Twenty hostile connections at once: others are answered all the time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic

import httpx
from support.cli_runner import SandboxThread
from support.service_program import ServiceProcess, run_service

LASTS_S = 6.0
"""Seconds for which they go on."""

LONGEST_S = 0.5
"""Seconds that nobody waits for an answer.

The service holds its loop for a tenth of that at most; the rest is the room that a
machine needs on which other tests run too. What these connections did before the
service was bounded in pieces held it for seconds.
"""

TARGET = "Host: localhost\r\nContent-Type: application/json\r\n"
POST = f"POST /v1/operations HTTP/1.1\r\n{TARGET}"
CHUNKED = f"{POST}Transfer-Encoding: chunked\r\n\r\n".encode()
REFUSED = CHUNKED.replace(b"localhost", b"evil")

Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


async def tiny_chunks(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
) -> None:
    """Send a body in chunks of one byte, in a request that may be refused."""
    writer.write((CHUNKED if number % 2 else REFUSED) + b"1\r\na\r\n" * 200_000)
    await writer.drain()
    await reader.read()


async def big_body(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
) -> None:
    """Send far more than is accepted."""
    del number
    writer.write(f"{POST}Content-Length: {10**9}\r\n\r\n".encode() + b"x" * 4_000_000)
    await writer.drain()
    await reader.read()


async def slow_head(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
) -> None:
    """Send a head byte by byte."""
    del reader, number
    for byte in b"GET / HTTP/1.1\r\n" + b"X" * 10_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.001)


async def many_headers(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
) -> None:
    """Send a head of very many lines."""
    del number
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a:\r\n" * 100_000)
    await writer.drain()
    await reader.read()


async def pipelined(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
) -> None:
    """Send very many requests at once, and read no answer."""
    del reader
    path = ("/healthz", "/v1/models", f"/?{'a&' * 4000}")[number % 3]
    writer.write(f"GET {path} HTTP/1.1\r\n{TARGET}\r\n".encode() * 500)
    await writer.drain()
    await asyncio.sleep(1)


async def stuck_reader(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
) -> None:
    """Follow the log and read nothing."""
    del reader, number
    writer.write(f"GET /v1/events/stream?after=0 HTTP/1.1\r\n{TARGET}\r\n".encode())
    await asyncio.sleep(2)


async def the_past(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
) -> None:
    """Request the state at many positions."""
    del number
    for position in range(1, 30):
        head = f"GET /v1/status?as_of=%23{position} HTTP/1.1\r\n{TARGET}\r\n"
        writer.write(head.encode())
        await reader.readuntil(b"\r\n\r\n")


async def no_http(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
) -> None:
    """Send TLS, HTTP/2 or an upgrade to a web socket."""
    data = (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        f"GET / HTTP/1.1\r\n{TARGET}Connection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode(),
    )
    writer.write(data[number % 3])
    await reader.read(65536)


ATTACKS: tuple[Attack, ...] = (
    *(tiny_chunks, big_body, slow_head, many_headers, pipelined),
    *(stuck_reader, the_past, no_http),
)


async def attack(port: int, number: int, until: float) -> None:
    """Run one attack after another until a time."""
    for turn in itertools.count(number):
        if monotonic() >= until:
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(
            OSError,
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
        ):
            async with asyncio.timeout(max(until - monotonic(), 0.1)):
                await ATTACKS[turn % len(ATTACKS)](reader, writer, turn)
        writer.transport.abort()


async def waits(running: ServiceProcess, until: float) -> list[float]:
    """Ask again and again, and return how long each answer took."""
    took = []
    async with httpx.AsyncClient(base_url=running.address, trust_env=False) as client:
        while monotonic() < until:
            began = monotonic()
            answer = await client.get("/healthz")
            took.append(monotonic() - began)
            assert answer.status_code == 200
            await asyncio.sleep(0.02)
    return took


def test_hostile_connections_do_not_delay_others(
    tmp_path: Path, ollama: SandboxThread
) -> None:
    with run_service(tmp_path / "herd.db", ollama.address) as running:

        async def watched() -> list[float]:
            until = monotonic() + LASTS_S
            watching = asyncio.create_task(asyncio.to_thread(watch, running, until))
            await asyncio.gather(*(attack(running.port, n, until) for n in range(20)))
            return await watching

        took = asyncio.run(watched())
        log = running.errors.read_text()

    assert len(took) > 20
    assert max(took) < LONGEST_S
    assert "Traceback" not in log
    assert " status=500" not in log


def watch(running: ServiceProcess, until: float) -> list[float]:
    """Watch from a loop of its own: the attackers' is not always on time."""
    return asyncio.run(waits(running, until))
