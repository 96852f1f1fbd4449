"""A fast side waits for the slow one, and memory stays bounded."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.gateway.scripted import (
    CollectedUses,
    gateway,
    raw_connection,
    scripted_server,
    until,
)

from herdbook.events.facts import UseOutcome

MB = 1 << 20

PROGRAM = """
import asyncio, sys
from support.gateway.scripted import gateway

async def main():
    async with gateway(sys.argv[1]) as address:
        print(address, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def memory(process: subprocess.Popen[str]) -> int:
    """Return the most memory that a process has used, bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def started(server: str) -> tuple[subprocess.Popen[str], str]:
    """Start a gateway as a process of its own."""
    path = os.pathsep.join(sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def stop(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=10)


async def test_a_slow_reader_stops_the_server_from_sending() -> None:
    sent = 0

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (200 * MB))
        for _ in range(200):
            writer.write(b"x" * MB)
            await writer.drain()
            sent += MB
        await reader.read()

    async with scripted_server(script) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await client.head()
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.3)
            assert sent < 50 * MB  # the buffers of three sockets
            received = 0
            while received < 200 * MB:
                received += len(await client.reader.read(MB))
            assert received == 200 * MB


async def test_a_client_that_stops_reading_is_cut_off() -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n\0")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()

    uses = CollectedUses()
    async with scripted_server(script) as server:
        async with gateway(server.url, uses, send_within_s=0.2) as address:
            async with raw_connection(address) as client:
                client.send(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\n")
                client.send(b"Content-Length: 1\r\n\r\n\0")
                await until(lambda: server.connections == 1)
                await until(lambda: server.open == 0)
    assert (await uses.first()).outcome is UseOutcome.CLIENT_LEFT


async def test_a_slow_server_stops_the_client_from_sending() -> None:
    go_on = asyncio.Event()
    taken = 0

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        while taken < 100 * MB:
            taken += len(await reader.read(MB))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with scripted_server(script) as server, gateway(server.url) as address:
        async with raw_connection(address) as client:
            client.send(b"POST /x HTTP/1.1\r\nHost: localhost\r\n")
            client.send(b"Content-Length: %d\r\n\r\n" % (100 * MB))
            sent = 0

            async def upload() -> None:
                nonlocal sent
                for _ in range(100):
                    client.send(b"x" * MB)
                    await client.writer.drain()
                    sent += MB

            uploading = asyncio.create_task(upload())
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.3)
            assert sent < 50 * MB
            go_on.set()
            await uploading
            assert await client.head()
    assert taken == 100 * MB


def upload_bytes() -> int:
    """Return the size of the large upload: a gigabyte, or HERDBOOK_TEST_UPLOAD_GB."""
    return int(os.environ.get("HERDBOOK_TEST_UPLOAD_GB", "1")) * 1024 * MB


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_large_upload_needs_little_memory() -> None:
    taken, size = 0, upload_bytes()

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        while taken < size:
            taken += len(await reader.read(4 * MB))
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    async with scripted_server(script) as server:
        process, address = started(server.url)
        try:
            async with raw_connection(address) as client:
                client.send(b"POST /api/blobs/sha256-0 HTTP/1.1\r\nHost: localhost\r\n")
                client.send(b"Content-Length: %d\r\n\r\n" % size)
                before = memory(process)
                piece = bytes(4 * MB)
                for _ in range(size // len(piece)):
                    client.send(piece)
                    await client.writer.drain()
                head = await asyncio.wait_for(
                    client.reader.readuntil(b"\r\n\r\n"), timeout=60
                )
            assert head.startswith(b"HTTP/1.1 201 Created\r\n")
            assert memory(process) - before < 20 * MB
            assert memory(process) < 100 * MB
        finally:
            stop(process)
    assert taken == size
