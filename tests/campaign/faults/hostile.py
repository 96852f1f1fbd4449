"""Hostile servers: a relay to a sandbox that spoils answers.

The log may get worse by what such a server says only as long as it says it: once it
answers properly again, one refresh makes the state agree with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

from campaign.faults.truth import InventedError, Row, SilentError, history

from herdbook import sandbox
from herdbook.core import ManagerSettings, ModelManager, NodeTimeoutError
from herdbook.events.errors import HerdbookError

MODEL = "smollm2:135m"
STRANGE: list[Any] = [
    *(None, True, -1, 2**70, 1e400, "", "\x1b[2J", "x" * 100_000),
    *([], {}, [[[[[]]]]], {"models": None}),
]
SETTINGS = ManagerSettings(refresh_timeout_s=1.0)


def spoil(answer: bytes, kind: int, chance: Random) -> tuple[bytes, float]:
    """Return a spoilt answer, and seconds to wait before the end of it."""
    head, _, body = answer.partition(b"\r\n\r\n")
    match kind:
        case 0 | 1:  # it ends within the answer, or stops there without an end
            return answer[: chance.randrange(len(answer))], 60.0 * kind
        case 2 | 3:
            length = chance.choice([0, 1, 2**40]) if kind == 2 else -1
            return _with_length(head, length) + body, 0.0
        case 4:  # an endless body
            return _with_length(head, 2**40) + b"[" * 2**20 * 8, 60.0
        case 5:
            status = chance.choice([b"204", b"301", b"403", b"500", b"503", b"999"])
            return head.replace(b"200", status, 1) + b"\r\n\r\n" + body, 0.0
        case 6:
            spoilt = bytearray(body or b"{}")
            for _ in range(3):
                spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
            return head + b"\r\n\r\n" + bytes(spoilt), 0.0
        case 7:
            return chance.randbytes(chance.randrange(1, 4096)), 0.0
        case _:
            text = json.dumps(_altered(json.loads(body or b"{}"), chance)).encode()
            return _with_length(head, len(text)) + text, 0.0


def _with_length(head: bytes, length: int) -> bytes:
    lines = [
        line
        for line in head.split(b"\r\n")
        if not line.lower().startswith((b"content-length", b"transfer-encoding"))
    ]
    return b"\r\n".join([*lines, b"Content-Length: %d" % length, b"", b""])


def _altered(value: Any, chance: Random) -> Any:
    """Return JSON in which one value, somewhere, is strange or missing."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        if chance.random() < 0.2:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _altered(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        return [*value[:at], _altered(value[at], chance), *value[at + 1 :]]
    return chance.choice(STRANGE)


class Relay:
    """Relays each request on a connection of its own; spoils some answers."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.spoil: Callable[[bytes], tuple[bytes, float]] | None = None
        self.chance = 0.5
        self.spoilt = 0
        self.random = Random(0)

    async def handle(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer one request and close the connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            answer = await self._ask(reader)
            wait_s = 0.0
            if self.spoil and self.random.random() < self.chance:
                answer, wait_s = self.spoil(answer)
                self.spoilt += 1
            writer.write(answer)
            await writer.drain()
            await asyncio.wait_for(reader.read(), wait_s) if wait_s else None
        writer.close()

    async def _ask(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        body = await reader.readexactly(length)
        lines = [
            line
            for line in head.rstrip().split(b"\r\n")
            if not line.lower().startswith(b"connection:")
        ]
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        back.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body)
        try:
            return await there.read()
        finally:
            back.close()


@contextlib.asynccontextmanager
async def relay_to_sandbox() -> AsyncIterator[tuple[Relay, str, sandbox.World]]:
    """Serve a sandbox behind a relay."""
    world = sandbox.World(models="some", clock=sandbox.RealClock(speed=400))
    async with sandbox.serve(world) as url:
        relay = Relay(int(url.rpartition(":")[2]))
        server = await asyncio.start_server(relay.handle, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            yield relay, f"http://127.0.0.1:{port}", world


def hostile_server(work: Path, before: list[Row], number: int, chance: Random) -> int:
    """Use a server that spoils answers; return how many it spoilt."""
    return asyncio.run(_use(work / "herd.db", before, number % 9, chance))


async def _use(log: Path, before: list[Row], kind: int, chance: Random) -> int:
    async with (
        relay_to_sandbox() as (relay, url, world),
        ModelManager.open(log, node="n", ollama=url, settings=SETTINGS) as manager,
    ):
        relay.random = chance
        relay.spoil = lambda answer: spoil(answer, kind, chance)
        for act in (
            manager.refresh,
            lambda: manager.ensure_available(MODEL),
            lambda: manager.load(MODEL),
            lambda: manager.delete(MODEL),
        ):
            with contextlib.suppress(HerdbookError, TimeoutError):
                async with asyncio.timeout(5):
                    await act()
        relay.spoil = None
        await _refreshed(manager)
        reported = {
            status.name: status.digest
            for status in await manager.all_statuses()
            if status.present
        }
        true = {entry.name.display: entry.digest for entry, _ in world.store.listed()}
        if reported != true:
            raise InventedError(f"reported {reported}, the server has {true}")
        if (await manager.verify()).findings:
            raise SilentError("verify has findings")
    if history(log)[: len(before)] != before:
        raise InventedError("recorded events changed")
    return relay.spoilt


async def _refreshed(manager: ModelManager) -> None:
    """Refresh; a busy machine may need more than one attempt."""
    for _ in range(20):
        with contextlib.suppress(NodeTimeoutError):
            await manager.refresh()
            return
    raise SilentError("the server answers, and no refresh succeeds")
