"""Record four days of history for the screenshots.

It runs against the sandbox, on a clock that advances by itself
(``tests/support/auto_clock.py``), so that it is the same each time except for ids
and hashes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from support.auto_clock import AutoClock
from support.manager_fixture import SandboxServer, pull_to_end

from herdbook import sandbox
from herdbook.core import (
    HerdbookError,
    ManagerSettings,
    ModelManager,
    ModelState,
    NodeUnreachableError,
)
from herdbook.events.facts import ModelUsed, UseOutcome

BEGAN = datetime(2026, 3, 9, 8, 55, tzinfo=UTC)
"""A Monday morning."""

MODELS = ("llama3.1:8b", "qwen2.5-coder:7b", "nomic-embed-text:latest", "smollm2:135m")
RATE = 6e6
"""Bytes per second of each connection to the registry."""

REFRESH_EVERY_S = 300.0
"""Seconds between two refreshes while a model is loaded."""

AGENTS, ANN, OPS = "api:agents", "api:ann", "cli:ops"
CODER, CHAT = "qwen2.5-coder:7b", "llama3.1:8b"


class Days:
    """The days, in order.

    Args:
        server: The server.
        manager: Its manager.
    """

    def __init__(self, server: SandboxServer, manager: ModelManager) -> None:
        self._server = server
        self._manager = manager

    async def until(self, day: int, at: str) -> None:
        """Wait until a time of a day; the first day is 1."""
        hours, minutes = map(int, at.split(":"))
        then = BEGAN.replace(hour=hours, minute=minutes) + timedelta(days=day - 1)
        assert then > self._server.clock.now(), f"day {day} {at} is over"
        self._server.time.stride_s = 60.0
        while (wait := (then - self._server.clock.now()).total_seconds()) > 0:
            await self._server.clock.sleep(min(wait, REFRESH_EVERY_S))
            if wait <= REFRESH_EVERY_S or await self._has_loaded():
                await self._manager.refresh()
        self._server.time.stride_s = 1.0

    async def _has_loaded(self) -> bool:
        statuses = await self._manager.all_statuses()
        return any(status.state is ModelState.LOADED for status in statuses)

    async def uses(self, actor: str, name: str, *purposes: str) -> None:
        """Load a model if it is not loaded, and use it for each purpose."""
        with self._manager.acting_as(actor):
            await self._manager.load(name)
            for purpose in purposes:
                await self._generate(name)
                await self._manager.mark_used(name, purpose=purpose)
                await self._server.clock.sleep(95)

    async def _generate(self, name: str) -> None:
        """Send a request to a model, as an application does."""
        path = "/api/embed" if name.startswith("nomic") else "/api/generate"
        answer = await self._server.request("POST", path, model=name, input="a")
        answer.raise_for_status()

    async def asks(self, client: str, name: str, *lengths: int) -> None:
        """Send requests of some numbers of tokens, and record what a gateway would."""
        for length in lengths:
            began = self._server.clock.now()
            answer = await self._server.request(
                "POST",
                "/api/generate",
                model=name,
                prompt="word " * (3 * length),
                stream=False,
                options={"num_predict": length},
            )
            body = answer.raise_for_status().json()
            first_s = (body["load_duration"] + body["prompt_eval_duration"]) / 1e9
            await self._manager.uses.record(
                name,
                ModelUsed(
                    endpoint="/api/generate",
                    client=client,
                    started_at=began,
                    duration_s=body["total_duration"] / 1e9,
                    first_token_s=first_s,
                    prompt_tokens=body["prompt_eval_count"],
                    output_tokens=body["eval_count"],
                    outcome=UseOutcome.COMPLETED,
                    count=1,
                ),
                actor=f"api:{client}",
            )
            await self._server.clock.sleep(40)

    async def works(self, day: int, at: str, requests: int) -> None:
        """Send requests of several clients through a gateway."""
        await self.until(day, at)
        await self.asks("agents", CHAT, *(40 + 25 * n for n in range(requests)))
        await self.asks("editor", CODER, *(90 + 60 * n for n in range(requests // 2)))
        await self.asks("ann", CHAT, 180)

    async def pulls(self, actor: str, name: str) -> None:
        """Pull a model; print why if it fails."""
        with self._manager.acting_as(actor):
            try:
                await pull_to_end(self._manager, name)
            except HerdbookError as error:
                print(f"  (expected: {error})")

    async def sets(self, actor: str, name: str, note: str, **settings: object) -> None:
        """Configure a model."""
        with self._manager.acting_as(actor):
            await self._manager.configure(name, settings, note=note)  # type: ignore[arg-type]

    async def monday(self) -> None:
        """Try models."""
        await self.until(1, "09:12")
        await self.uses(AGENTS, CHAT, "summaries", "summaries", "issue triage")
        await self.until(1, "10:05")
        await self.uses(ANN, CODER, "refactoring")
        await self.sets(ANN, CODER, "long files", num_ctx=16384)
        await self.until(1, "11:30")
        await self.pulls(ANN, "gemma3:4b")
        await self.uses(ANN, "gemma3:4b", "bug screenshots")
        await self.until(1, "16:40")
        await self.uses(AGENTS, CHAT, "nightly report")

    async def tuesday(self) -> None:
        """Run out of disk, and share weights."""
        await self.until(2, "09:03")
        self._server.apply(disk_bytes=self._stored_bytes() + 1_500_000_000)
        await self.pulls(OPS, "mistral:7b")
        self._server.apply(disk_bytes=None)
        await self.until(2, "10:20")
        await self._server.copy(CHAT, "llama3.1-short:latest")
        await self._manager.refresh()
        await self.sets(OPS, "llama3.1-short", "answers of a line", num_ctx=2048)
        await self.until(2, "14:10")
        await self.uses(AGENTS, "nomic-embed-text", "wiki index")
        await self.uses(AGENTS, CODER, "review", "review", "review")

    async def wednesday(self) -> None:
        """Lose the server for six minutes."""
        await self.until(3, "08:30")
        self._server.apply(server="stopped")
        with suppress(NodeUnreachableError):
            await self._manager.refresh()
        await self._server.clock.sleep(380)
        self._server.apply(server="started")
        await self._manager.refresh()
        await self.until(3, "09:15")
        self._server.apply(
            registry={"alias": {"library/smollm2:135m": "library/qwen3:0.6b"}}
        )
        await self.pulls(OPS, "smollm2:135m")
        self._server.apply(registry={})
        await self.sets(
            OPS, CHAT, "the agents ask all day", keep_alive="30m", pinned=True
        )
        await self.until(3, "10:00")
        await self.uses(AGENTS, CHAT, *["issue triage"] * 4)
        await self.until(3, "15:20")
        await self.uses(ANN, CODER, "a parser", "tests for it")
        for at, requests in (("16:05", 5), ("17:05", 8), ("18:05", 3), ("19:05", 2)):
            await self.works(3, at, requests)

    async def thursday(self) -> None:
        """End with loaded models."""
        await self.until(4, "08:58")
        await self.uses(AGENTS, CHAT, "nightly report", "issue triage")
        for at, requests in (("09:10", 4), ("10:05", 9), ("11:05", 6)):
            await self.works(4, at, requests)
        await self.until(4, "11:47")
        await self.pulls(OPS, "mistral:7b")
        self._server.apply(disk_bytes=self._stored_bytes() + 1_500_000_000)
        await self.pulls(OPS, "gpt-oss:20b")
        self._server.apply(disk_bytes=None)
        await self.until(4, "13:31")
        await self.uses(ANN, CODER, "review")
        await self.until(4, "14:04")
        await self.uses(AGENTS, CHAT, "issue triage")

    def _stored_bytes(self) -> int:
        """Return the bytes that the server stores."""
        blobs = self._server.world.store.blobs.values()
        return sum(blob.size for blob in blobs)


async def record(server: SandboxServer, log: Path) -> None:
    """Write the history of the four days."""
    settings = ManagerSettings(reconcile_every_s=None)
    async with server.open_manager(log, settings=settings, actor="service") as manager:
        days = Days(server, manager)
        for day in (days.monday, days.tuesday, days.wednesday, days.thursday):
            await day()


@asynccontextmanager
async def serve_sandbox() -> AsyncIterator[SandboxServer]:
    """Serve the sandbox, on a clock that moves only inside ``advancing``."""
    time = AutoClock(BEGAN)
    world = sandbox.World(
        models=MODELS,
        clock=time,
        settings=sandbox.Settings(vram_bytes=24_000_000_000),
        usual=sandbox.Behaviour(rate=RATE),
    )
    async with (
        sandbox.serve(world) as url,
        httpx.AsyncClient(base_url=url, timeout=None, trust_env=False) as http,  # noqa: S113 - simulated time
    ):
        yield SandboxServer(world, url, time, http)
