"""Record three days of sample history in a new demonstration log.

A manager runs against the sandbox while the clock of both is moved through the days,
so every event is one that the manager recorded, with the checks it always makes. All
actors start with ``demo``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from herdbook.core import (
    HerdbookError,
    ManagerSettings,
    ModelManager,
    ModelState,
    OllamaError,
)
from herdbook.core.clock import Timeout
from herdbook.core.log.location import LogLocation
from herdbook.sandbox import RealClock, World, apply_step

DAYS: Final = 3
LONGEST_S: Final = 20.0
"""Real seconds after which the history is left unfinished."""

STEP_S: Final = 0.5
"""Simulated seconds per millisecond while a request may be under way.

Small, so that a slow computer does not let models expire between two requests.
"""

PATIENT: Final = ManagerSettings(
    refresh_timeout_s=3600.0,
    stall_after_s=3600.0,
    load_timeout_s=600.0,
    unload_timeout_s=600.0,
)
"""Timeouts that the simulated seconds of a slow computer do not reach."""

AGENTS: Final = "demo:agents"
ANN: Final = "demo:ann"
OPS: Final = "demo:ops"

CHAT: Final = "llama3.2:3b"
CODER: Final = "qwen2.5-coder:7b"
EMBEDDING: Final = "nomic-embed-text:latest"
VISION: Final = "gemma3:4b"

_log = logging.getLogger(__name__)


def clock() -> RealClock:
    """Return a clock that is held three days before now."""
    return RealClock(held_at=datetime.now(UTC) - timedelta(days=DAYS))


async def record(
    world: World, clock: RealClock, log: LogLocation, *, ollama: str, node: str
) -> None:
    """Record the history, then release the clock.

    A history that cannot be completed is left as it is: the log is valid at any point.

    Args:
        world: The sandbox, which is being served.
        clock: Its clock, held in the past.
        log: The log, which does not exist yet.
        ollama: Address of the sandbox.
        node: Name of the node.
    """
    try:
        async with (
            asyncio.timeout(LONGEST_S),
            ModelManager.open(
                log,
                ollama=ollama,
                node=node,
                actor="demo",
                settings=PATIENT,
                clock=_ManagerClock(clock),
            ) as manager,
        ):
            days = _Days(world, clock, manager)
            await days.first()
            await days.second()
            await days.third()
    except (HerdbookError, TimeoutError) as error:
        _log.warning("the sample history is incomplete: %s", error)
    finally:
        clock.release()


class _ManagerClock:
    """The clock of the sandbox, for the manager."""

    def __init__(self, clock: RealClock) -> None:
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.wall(self._clock.now())

    def monotonic(self) -> float:
        return self._clock.now()

    async def sleep(self, seconds: float) -> None:
        reached = asyncio.Event()
        timer = self._clock.call_later(seconds, reached.set)
        try:
            await reached.wait()
        finally:
            timer.cancel()

    def timeout(self, seconds: float) -> Timeout:
        # Soft: waiting for an answer must not move the clock to the timeout.
        return Timeout(
            lambda expire: self._clock.call_later(seconds, expire, soft=True).cancel
        )


class _Days:
    """The days, in order."""

    def __init__(self, world: World, clock: RealClock, manager: ModelManager) -> None:
        self._world = world
        self._clock = clock
        self._manager = manager

    async def first(self) -> None:
        """Use the models, pull another, and run out of room for runners."""
        await self._wait(minutes=10)
        await self._use(AGENTS, CHAT, "summaries", "issue triage")
        await self._wait(minutes=30)
        await self._use(ANN, CODER, "refactoring")
        await self._configure(ANN, CODER, "long files", num_ctx=16_384)
        await self._use(ANN, CODER, "refactoring")
        await self._wait(hours=2)
        await self._pull(OPS, "mistral:7b")
        await self._wait(hours=4)
        await self._use(AGENTS, CHAT, "nightly report")
        await self._use(AGENTS, EMBEDDING, "wiki index")
        await self._use(ANN, CODER, "review")
        await self._use(ANN, VISION, "bug screenshots")  # evicts the oldest
        await self._wait(hours=17)

    async def second(self) -> None:
        """Unload a model, and cancel a pull."""
        await self._wait(hours=1)
        await self._use(AGENTS, CHAT, "issue triage", "issue triage")
        await self._use(ANN, CODER, "review", "parser tests")
        with self._manager.acting_as(ANN):
            async with self._moving():
                await self._manager.unload(CODER)
        await self._wait(hours=3)
        await self._cancelled_pull(OPS, "gemma2:9b")
        await self._wait(hours=17)

    async def third(self) -> None:
        """Lose the server, run out of disk, pin a model; end with models in memory."""
        await self._use(AGENTS, CHAT, "nightly report")
        await self._use(AGENTS, EMBEDDING, "wiki index")
        await self._wait(hours=16)
        apply_step(self._world, {"server": "stopped"})
        await self._refresh()
        await self._wait(minutes=6)
        apply_step(self._world, {"server": "started"})
        await self._refresh()
        await self._wait(hours=1)
        kept = sum(blob.size for blob in self._world.store.blobs.values())
        apply_step(self._world, {"disk_bytes": kept + 1_500_000_000})
        await self._pull(OPS, "gpt-oss:20b")
        apply_step(self._world, {"disk_bytes": None})
        await self._configure(
            OPS, CHAT, "the agents use it all day", keep_alive="6h", pinned=True
        )
        await self._wait(seconds=self._left_s() - 20 * 60)
        await self._use(AGENTS, CHAT, *["issue triage"] * 3)
        await self._wait(minutes=15)
        await self._use(ANN, CODER, "review")
        # The coder is still loaded when the clock reaches the present.
        self._clock.advance(min(max(self._left_s(), 0.0), 240.0))

    def _left_s(self) -> float:
        """Return the seconds from the clock to the present."""
        now = self._clock.wall(self._clock.now())
        return (datetime.now(UTC) - now).total_seconds()

    async def _use(self, actor: str, name: str, *purposes: str) -> None:
        """Load a model if it is not loaded, and use it for each purpose."""
        with self._manager.acting_as(actor):
            for purpose in purposes:
                async with self._moving():
                    await self._manager.load(name)
                    await self._manager.mark_used(name, purpose=purpose)
                self._clock.advance(40.0)

    async def _pull(self, actor: str, name: str) -> None:
        """Pull a model to its end; a pull that fails is part of the history."""
        with self._manager.acting_as(actor), suppress(HerdbookError):
            async with self._moving():
                async for _ in self._manager.pull(name):
                    pass

    async def _cancelled_pull(self, actor: str, name: str) -> None:
        """Cancel a pull after its first gigabyte."""
        with self._manager.acting_as(actor), suppress(HerdbookError):
            async with self._moving():
                async for progress in self._manager.pull(name):
                    if progress.completed_bytes > 1_000_000_000:
                        await self._manager.cancel(name)

    async def _configure(
        self, actor: str, name: str, note: str, **settings: int | str | bool
    ) -> None:
        with self._manager.acting_as(actor):
            async with self._moving():
                await self._manager.configure(name, settings, note=note)

    async def _refresh(self) -> None:
        with suppress(OllamaError):  # recorded as a lost node
            async with self._moving():
                await self._manager.refresh()

    async def _wait(
        self, *, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Let time pass; models expire in it as the keep-alive says."""
        left = timedelta(hours=hours, minutes=minutes, seconds=seconds).total_seconds()
        while left > 0 and await self._has_loaded():
            step = min(left, 400.0)
            self._clock.advance(step)
            await self._refresh()
            left -= step
        self._clock.advance(max(left, 0.0))
        await self._refresh()

    async def _has_loaded(self) -> bool:
        statuses = await self._manager.all_statuses()
        return any(status.state is ModelState.LOADED for status in statuses)

    @asynccontextmanager
    async def _moving(self) -> AsyncIterator[None]:
        """Advance the clock from timer to timer while the block runs."""

        async def move() -> None:
            while True:
                await asyncio.sleep(0.001)
                self._clock.jump(STEP_S)

        task = asyncio.create_task(move())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
