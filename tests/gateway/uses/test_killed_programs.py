"""Usage adds up to what the clients counted, though gateway and server are killed.

A killed gateway loses the uses of its last second. While the log is locked, uses are
counted as not recorded. Nothing else may be missing, and nothing counted twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from support.ports import free_port

from herdbook.core import ModelManager
from herdbook.events.facts import UseOutcome
from herdbook.service.auth.token_file_editor import add_token
from herdbook.service.auth.tokens import Role

MODELS = ("llama3.2:3b", "smollm2:135m")
CLIENTS = ("ann", "ben", "cy", "dot")
COLLECT_S = 0.2
LOCK_WAIT_S = 0.5
"""The gateway records more often and waits less for the log than usual, so that the
test is short."""

GATEWAY = f"""
import sys
from herdbook.cli import run
from herdbook.events.sqlite import connection
from herdbook.gateway.recording import recorder
recorder.COLLECT_S, connection.LOCK_WAIT_S = {COLLECT_S}, {LOCK_WAIT_S}
sys.exit(run())
"""

UNCERTAIN_S = 3.0
"""Uses that ended so long before a kill may be missing: collected for a time, then
recorded by a busy machine."""


class Request(NamedTuple):
    """What a client saw of one request."""

    begun: float
    ended: float
    outcome: str
    tokens: int


class Program:
    """A program that is killed and started again on the same port."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._command = command
        self._environment = {**os.environ, **environment}
        self.kills: list[tuple[float, float]] = []
        self._process = self._started()

    def _started(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *self._command],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self._environment,
        )

    def wait(self) -> None:
        """Wait until it listens."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("http")

    async def kill(self, *, pause_s: float) -> None:
        """Kill it, and start it again after a pause."""
        began = monotonic()
        await asyncio.to_thread(self.close)
        await asyncio.sleep(pause_s)
        self._process = await asyncio.to_thread(self._started)
        await asyncio.to_thread(self.wait)
        self.kills.append((began, monotonic()))

    async def stop(self) -> None:
        """Let it end by itself."""
        self._process.terminate()
        await asyncio.to_thread(self._process.wait)

    def close(self) -> None:
        """End it, if it still runs."""
        self._process.kill()
        with self._process:  # closes its output, and waits
            pass


class Client:
    """A client that asks at random, and notes what it saw."""

    def __init__(self, address: str, key: str, seed: int) -> None:
        self.seen: list[Request] = []
        self._url = urlsplit(address)
        self._key = key
        self._random = random.Random(seed)

    async def run(self, going: Callable[[], bool]) -> None:
        while going():
            kind = self._random.random()
            begun = monotonic()
            try:
                reader, writer = await asyncio.open_connection(
                    self._url.hostname, self._url.port
                )
            except ConnectionError:  # nothing listens: the request was not sent
                await asyncio.sleep(0.05)
                continue
            try:
                outcome, tokens = await self._ask(reader, writer, kind)
            except (ConnectionError, asyncio.IncompleteReadError, ValueError):
                outcome, tokens = UseOutcome.FAILED.value, 0
            finally:
                writer.transport.abort()
            self.seen.append(Request(begun, monotonic(), outcome, tokens))
            await asyncio.sleep(self._random.random() * 0.05)

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: float
    ) -> tuple[str, int]:
        wanted = 100_000 if kind < 0.2 else self._random.randint(1, 4)
        asked: dict[str, object] = {
            "model": self._random.choice(MODELS),
            "prompt": "x",
            "options": {"num_predict": wanted},
        }
        if kind > 0.85:
            asked["think"] = True  # neither model can: the server refuses
        body = json.dumps(asked).encode()
        writer.write(
            b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (self._key.encode(), len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split()[1])
        if kind < 0.2 and status == 200:
            await reader.readexactly(20)
            return UseOutcome.CLIENT_LEFT.value, 0
        rest = await reader.read()
        if status != 200:
            return UseOutcome.FAILED.value, 0
        if b'"done":true' not in rest.replace(b" ", b""):
            raise ValueError("cut")
        return UseOutcome.COMPLETED.value, wanted


def overlaps(one: Request, spans: list[tuple[float, float]], before_s: float) -> bool:
    """Return whether a request ended shortly before a span, or ran into it."""
    return any(
        one.ended >= began - before_s and one.begun <= ended for began, ended in spans
    )


async def recorded(log: Path, server: str) -> tuple[dict[str, Counter[str]], int]:
    """Return the recorded uses by client, and the number of uses that are missing."""
    opened = ModelManager.open(log, ollama=server, refresh=False)
    async with opened as manager:
        usage = await manager.usage(["client", "outcome"])
    found: dict[str, Counter[str]] = {name: Counter() for name in CLIENTS}
    for row in usage.rows:
        if row.group["outcome"] == "observed":
            continue
        client = found[str(row.group["client"])]
        client[str(row.group["outcome"])] += row.requests
        if row.group["outcome"] == UseOutcome.COMPLETED:
            client["tokens"] += row.output_tokens
    return found, usage.total.not_recorded


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_usage_adds_up_to_what_the_clients_counted(tmp_path: Path) -> None:
    log, tokens = tmp_path / "herd.db", tmp_path / "tokens.toml"
    secrets = {name: add_token(tokens, name, Role.READ) for name in CLIENTS}
    server_port, port = free_port(), free_port()
    server_url = f"http://127.0.0.1:{server_port}"
    sandbox = ["-m", "herdbook.sandbox", "--port", str(server_port), "--speed", "20"]
    server = Program([*sandbox, "--token-s", "0.1"], {})
    try:
        listen = ("--listen", f"127.0.0.1:{port}", "--tokens", str(tokens))
        gateway = Program(
            ["-c", GATEWAY, "gateway", *listen],
            {"HERDBOOK_DB": str(log), "OLLAMA_HOST": server_url},
        )
        try:
            server.wait()
            gateway.wait()
            clients = await _load_and_kill(
                f"http://127.0.0.1:{port}", secrets, server, gateway, log
            )
            await gateway.stop()
        finally:
            gateway.close()
        found, missing = await recorded(log, server_url)
    finally:
        server.close()
    for name, client in clients.items():
        _compare(client.seen, found[name], missing, gateway.kills, server.kills)
    assert missing > 0
    everything = sum(len(client.seen) for client in clients.values())
    counted = sum(found[name][one.value] for name in clients for one in UseOutcome)
    certain = sum(
        not overlaps(one, gateway.kills, UNCERTAIN_S)
        for client in clients.values()
        for one in client.seen
    )
    assert certain <= counted + missing <= everything


async def _load_and_kill(
    address: str,
    secrets: dict[str, str],
    server: Program,
    gateway: Program,
    log: Path,
) -> dict[str, Client]:
    """Let clients ask while programs are killed and the log is locked.

    Returns:
        The clients by name.
    """
    going = True
    clients = {
        name: Client(address, secrets[name], seed) for seed, name in enumerate(CLIENTS)
    }
    async with asyncio.TaskGroup() as running:
        for client in clients.values():
            running.create_task(client.run(lambda: going))
        await asyncio.sleep(1)
        await server.kill(pause_s=0.3)
        await asyncio.sleep(2)
        await gateway.kill(pause_s=0.3)
        await asyncio.sleep(0.3)
        await asyncio.gather(gateway.kill(pause_s=0), server.kill(pause_s=0))
        await asyncio.sleep(0.3)
        with closing(sqlite3.connect(log)) as locking:
            locking.execute("BEGIN IMMEDIATE")
            before = _completed(clients)
            while _completed(clients) < before + 4:  # both programs work again
                await asyncio.sleep(0.05)
            # A record may wait for a refresh first, which waits for the lock as well.
            await asyncio.sleep(4 * LOCK_WAIT_S + COLLECT_S + 2)
        await asyncio.sleep(1)
        going = False
    return clients


def _completed(clients: dict[str, Client]) -> int:
    outcomes = [one.outcome for client in clients.values() for one in client.seen]
    return outcomes.count(UseOutcome.COMPLETED.value)


def _compare(
    seen: list[Request],
    found: Counter[str],
    missing: int,
    gateway_kills: list[tuple[float, float]],
    server_kills: list[tuple[float, float]],
) -> None:
    """Check the recorded uses of a client against what it saw."""
    certain = [one for one in seen if not overlaps(one, gateway_kills, UNCERTAIN_S)]
    total = sum(found[outcome.value] for outcome in UseOutcome)
    assert len(certain) - missing <= total <= len(seen)
    clear = [one for one in certain if not overlaps(one, server_kills, 0.5)]
    unclear = len(seen) - len(clear)
    assert clear
    for outcome in UseOutcome:
        count = sum(one.outcome == outcome for one in clear)
        assert count - missing <= found[outcome.value] <= count + unclear, outcome
    tokens = sum(one.tokens for one in clear)
    possible = tokens + 4 * unclear
    assert tokens - 4 * missing <= found["tokens"] <= possible
