"""Play a recording against a sandbox that is a process of its own.

The clock is the sandbox's own and moves only on request. The player waits until the
sandbox has received each request, so that requests overlap as they did when recorded.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from support.recordings.wire import WIRE
from support.sandbox_program import sandbox_process

from herdbook.sandbox import ManualClock, let_others_run

RECORDINGS = sorted(WIRE.glob("*.json")) + sorted(WIRE.glob("older/*.json"))

#: What a recording depends on and does not contain as a step.
CIRCUMSTANCES: dict[str, dict[str, Any]] = {
    "pull-again-at-once": {"cancel_lag_s": 1.0},
    "cloud-stub": {
        "registry": {
            "unreachable": "proxyconnect tcp: dial tcp 127.0.0.1:9: connect: "
            "connection refused"
        }
    },
    # The older server was slower to let a runner go, so that ps still showed it.
    "older/load-unload": {"unload_lag_s": 0.02},
    "older/unload-busy": {"unload_lag_s": 0.2},
    "older/keep-alive": {"unload_lag_s": 0.02},
}

#: Options for the machine that was recorded, where it shows.
MACHINES: dict[str, tuple[str, ...]] = {
    "older/unload-busy": ("--token-s", "0.09"),
}

STEP_S = 0.05
"""Step of the clock while an answer takes longer than the recorded one, seconds."""

LONGEST_S = 200.0
"""Simulated time after which such an answer counts as missing, seconds."""

PATIENCE = 20.0
"""Longest real time to wait for the sandbox, seconds, on a busy machine."""


def name_of(path: Path) -> str:
    """Return the name of a recording: its path below the folder of recordings."""
    return str(path.relative_to(WIRE).with_suffix(""))


class PlayedExchange:
    """One request over a connection, and what was received of its answer so far."""

    def __init__(
        self, client: httpx.AsyncClient, exchange: dict[str, Any], date: datetime
    ) -> None:
        self.exchange = exchange
        self.date = date
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.raw = b""
        self.cut = False
        self.ended = ""
        self.until = 0.0
        self.task = asyncio.ensure_future(self._run(client))

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The answer, read as one JSON value a line."""
        return [json.loads(line) for line in self.raw.splitlines()]

    @property
    def json(self) -> Any:
        """The answer, read as one JSON value."""
        return json.loads(self.raw)

    async def close(self) -> None:
        """Close the connection in the middle of the answer."""
        await let_others_run()
        self.task.cancel()
        await asyncio.wait({self.task})

    async def _run(self, client: httpx.AsyncClient) -> None:
        request = self.exchange["request"]
        body = json.dumps(request["json"]) if "json" in request else request.get("body")
        try:
            async with client.stream(
                request["method"],
                request["path"],
                content=body,
                headers=request.get("headers"),
            ) as answer:
                self.status = answer.status_code
                self.headers = dict(answer.headers)
                async for piece in answer.aiter_raw():
                    self.raw += piece
        except httpx.TransportError:
            self.cut = True


class RecordingPlayer:
    """A recording that is played: the sandbox, its clock, and the running requests."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.played: list[PlayedExchange] = []
        self._client = client
        self._now = 0.0
        self._late = 0.0

    async def do(self, step: dict[str, Any]) -> None:
        """Apply a step to the server or to what it depends on."""
        answer = await self._client.post("/sandbox/did", json=step)
        assert answer.status_code == 200, answer.text

    async def start(self, exchange: dict[str, Any]) -> None:
        """Send a request, and wait until the server has received it."""
        date = ManualClock().wall(self._now)
        self.played.append(PlayedExchange(self._client, exchange, date))
        async with asyncio.timeout(PATIENCE):
            while len(await self._seen()) < len(self.played):
                await let_others_run()

    async def close(self, exchange: dict[str, Any]) -> None:
        """Close a connection, and wait until the server has noticed."""
        each = next(each for each in self.played if each.exchange is exchange)
        await each.close()
        async with asyncio.timeout(PATIENCE):
            while each in await self._under_way():
                await let_others_run()

    async def move_to(self, at: float) -> None:
        """Move the clock to a time of the recording."""
        await self._advance(max(at + self._late - self._now, 0.0))

    async def finish(self, at: float) -> None:
        """Wait for the answers that had ended by then, even if they take longer."""
        began = self._now
        while waiting := [t for t in await self._under_way() if _ended_by(t, at)]:
            await self._advance(STEP_S)
            assert self._now - began < LONGEST_S, waiting[0].exchange["request"]
        self._late += self._now - began

    async def end(self) -> None:
        """Wait for the end of every answer, and note how the server saw it end."""
        await self.finish(float("inf"))
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({each.task for each in self.played})
        for each, seen in zip(self.played, await self._seen(), strict=True):
            each.ended, each.until = seen["ended"], seen["until"]

    async def _advance(self, seconds: float) -> None:
        answer = await self._client.post("/sandbox/clock", json={"advance": seconds})
        self._now = answer.json()["now"]

    async def _seen(self) -> list[dict[str, Any]]:
        answer = await self._client.get("/sandbox/seen")
        seen: list[dict[str, Any]] = answer.json()["seen"]
        return seen

    async def _under_way(self) -> list[PlayedExchange]:
        seen = await self._seen()
        pairs = zip(self.played, seen, strict=True)
        return [each for each, one in pairs if not one["ended"]]


def _ended_by(each: PlayedExchange, at: float) -> bool:
    """Return whether it had ended by then; a broken answer ends with a later step."""
    broken = "broken" in each.exchange["response"]
    return not broken and each.exchange["ended"] <= at


def read(path: Path) -> dict[str, Any]:
    """Read a recording."""
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def steps(recording: dict[str, Any]) -> Iterator[tuple[float, str, dict[str, Any]]]:
    """Yield the steps: starts and closings of requests, and changes of the server."""
    for exchange in recording["exchanges"]:
        if "did" in exchange:
            yield exchange["at"], "do", exchange
        elif "request" in exchange:
            yield exchange["at"], "start", exchange
            if "closed_by" in exchange["response"]:
                yield exchange["ended"], "close", exchange


@asynccontextmanager
async def recorded_server(
    name: str, given: dict[str, Any]
) -> AsyncIterator[RecordingPlayer]:
    """Run a sandbox that is set up like the recorded server."""
    profile = "older" if name.startswith("older") else "current"
    options = ("--clock", "manual", "--models", given["models"], "--profile", profile)
    machine = MACHINES.get(name, ())
    disk = {"disk_bytes": given["disk_bytes"]} if "disk_bytes" in given else {}
    with sandbox_process(*options, *machine, environment=given["env"]) as (_, url):
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=url, timeout=PATIENCE, limits=limits
        ) as client:
            run = RecordingPlayer(client)
            await run.do(CIRCUMSTANCES.get(name, {}) | disk)
            try:
                yield run
            finally:
                for each in run.played:
                    each.task.cancel()


async def play(name: str, recording: dict[str, Any]) -> list[PlayedExchange]:
    """Play all steps of a recording, in order."""
    async with recorded_server(name, recording["given"]) as run:
        for at, kind, exchange in sorted(steps(recording), key=lambda step: step[0]):
            await run.move_to(at)
            if kind == "close":
                await run.close(exchange)
                continue
            await run.finish(at)
            if kind == "do":
                await run.do(exchange["did"])
            else:
                await run.start(exchange)
        await run.end()
    return run.played
