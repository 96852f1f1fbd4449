"""Time as everything in here takes it: one clock for what happened and for waiting.

The system's clock is the default. ``ManualClock`` stands still until it is moved,
so that a test passes an hour without waiting for it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Protocol


class Clock(Protocol):
    """What time it is, and how to wait."""

    def now(self) -> datetime:
        """Return the time of day, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a block that raises ``TimeoutError`` if it takes longer."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """Return the time of day, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a block that raises ``TimeoutError`` if it takes longer."""
        return asyncio.timeout(seconds)


class ManualClock:
    """A clock that stands still until ``advance`` moves it."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._waiting: list[tuple[float, int, _ManualTimeout | asyncio.Event]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        """Return the start and what it was moved by."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Return the seconds that it was moved by."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait until it was moved that far."""
        reached = asyncio.Event()
        self.call(reached, self._elapsed + max(seconds, 0))
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        await reached.wait()

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a block that raises ``TimeoutError`` once it was moved that far."""
        return _ManualTimeout(self, self._elapsed + seconds)

    def call(self, waiting: _ManualTimeout | asyncio.Event, deadline: float) -> None:
        """Wake a sleeper, or end a block, once the clock is there."""
        heapq.heappush(self._waiting, (deadline, next(self._order), waiting))

    async def advance(self, seconds: float) -> None:
        """Move it, stopping at each deadline so that what was due runs first."""
        end = self._elapsed + seconds
        while self._waiting and self._waiting[0][0] <= end:
            deadline, _, waiting = heapq.heappop(self._waiting)
            self._elapsed = max(self._elapsed, deadline)
            if isinstance(waiting, asyncio.Event):
                waiting.set()
            else:
                waiting.expire()
            await settle()
        self._elapsed = end
        await settle()


class _ManualTimeout:
    """``asyncio.timeout``, expired by the clock instead of the loop."""

    def __init__(self, clock: ManualClock, deadline: float) -> None:
        self._clock = clock
        self._deadline = deadline
        self._timeout = asyncio.timeout(None)
        self._inside = False

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._inside = True
        self._clock.call(self, self._deadline)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inside = False
        await self._timeout.__aexit__(kind, error, traceback)

    def expire(self) -> None:
        """End the block, if it still runs."""
        if self._inside:
            self._timeout.reschedule(asyncio.get_running_loop().time())


async def settle(turns: int = 25) -> None:
    """Let whatever is ready run: so many turns of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
