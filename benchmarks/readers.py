"""How many clients of a live stream one service serves.

A service records uses, each of which all clients of its live stream get. The delay of a
message is the time from the event's ``recorded_at`` until a client has it; the service
and the clients run on one machine, and share its clock.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec

from benchmarks.measure import percentile
from benchmarks.program import cpu_s, program, program_with_pid

READERS: Final = (1, 100, 300, 700)
"""Numbers of clients; a service accepts 800 connections."""

EVENTS: Final = 100
PER_SECOND: Final = 5
"""Events that are recorded while the clients read."""

LONGEST_S: Final = 120.0


class Readers(msgspec.Struct, frozen=True, kw_only=True):
    """What a number of clients got.

    Attributes:
        readers: Number of clients.
        delays_s: The delay of each message.
        cpu_s: CPU time of the service while they read.
        missed: Number of messages that did not arrive.
    """

    readers: int
    delays_s: list[float]
    cpu_s: float
    missed: int

    def lines(self) -> list[tuple[str, float, str]]:
        """Return the figures: what, how much, unit."""
        name = f"live stream, {self.readers} clients, {PER_SECOND} events/s"
        return [
            (f"{name}: delay, p50", percentile(self.delays_s, 50) * 1e3, "ms"),
            (f"{name}: delay, p99", percentile(self.delays_s, 99) * 1e3, "ms"),
            (f"{name}: CPU time of an event", self.cpu_s / EVENTS * 1e3, "ms"),
            (f"{name}: messages missed", self.missed, ""),
        ]


async def measure(log: str, report: Callable[[str, float, str], None]) -> None:
    """Serve a log, and report the delays for each number of clients.

    Args:
        log: File or address of the log.
        report: Takes each figure.
    """
    sandbox = ("-m", "herdbook.sandbox", "--models", "some", "--port", "0")
    with program(*sandbox) as line:
        options = ("--json", "--port", "0", "--db", log, "--ollama", line)
        serve = ("-m", "herdbook.cli", "serve", *options)
        with program_with_pid(*serve) as (started, pid):
            url = json.loads(started)["address"]
            for readers in READERS:
                for figure in (await _read(url, pid, readers)).lines():
                    report(*figure)


async def _read(url: str, pid: int, readers: int) -> Readers:
    delays: list[float] = []
    async with httpx.AsyncClient(base_url=url, timeout=LONGEST_S) as http:
        models = (await http.get("/v1/models")).raise_for_status().json()
        uses = f"/v1/models/{models[0]['name']}/uses"
        connected = asyncio.Semaphore(0)
        reading = [
            asyncio.create_task(_follow(url, delays, connected)) for _ in range(readers)
        ]
        for _ in reading:
            await connected.acquire()
        began = cpu_s(pid)
        for _ in range(EVENTS):
            used = await http.post(uses, json={"purpose": "read"})
            used.raise_for_status()
            await asyncio.sleep(1 / PER_SECOND)
        done, late = await asyncio.wait(reading, timeout=LONGEST_S)
        spent = cpu_s(pid) - began
    for task in late:
        task.cancel()
    for task in done:
        task.result()
    missed = readers * EVENTS - len(delays)
    return Readers(readers=readers, delays_s=delays, cpu_s=spent, missed=missed)


async def _follow(url: str, delays: list[float], connected: asyncio.Semaphore) -> None:
    """Note the delay of each use, as a client that costs little."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    request = f"GET /v1/events/stream HTTP/1.1\r\nHost: {address.netloc}"
    writer.write(f"{request}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    connected.release()
    uses = 0
    while uses < EVENTS and (line := await reader.readline()):
        now = time.time()
        if line.startswith(b"data:") and b'"ModelUsed"' in line:
            event = json.loads(line.removeprefix(b"data:"))
            recorded = datetime.fromisoformat(event["recorded_at"])
            delays.append(now - recorded.timestamp())
            uses += 1
    writer.close()
