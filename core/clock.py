"""Time as everything in here takes it: one clock for what happened and for waiting.

The system's clock is the default. ``ManualClock`` stands still until it is moved,
so that a test passes an hour without waiting for it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
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
        loop = asyncio.get_running_loop()
        return Timeout(lambda expire: loop.call_later(seconds, expire).cancel)


class ManualClock:
    """A clock that stands still until ``advance`` moves it."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
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
        self._call(reached.set, self._elapsed + max(seconds, 0))
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        await reached.wait()

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a block that raises ``TimeoutError`` once it was moved that far."""
        deadline = self._elapsed + seconds
        return Timeout(lambda expire: self._call(expire, deadline))

    def _call(self, wake: Callable[[], None], deadline: float) -> Callable[[], None]:
        """Have a function called once the clock is there; return what undoes that."""
        entry = (deadline, next(self._order), wake)
        heapq.heappush(self._waiting, entry)

        def undo() -> None:
            if entry in self._waiting:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)

        return undo

    async def advance(self, seconds: float) -> None:
        """Move it, stopping at each deadline so that what was due runs first."""
        end = self._elapsed + seconds
        while self._waiting and self._waiting[0][0] <= end:
            deadline, _, wake = heapq.heappop(self._waiting)
            self._elapsed = max(self._elapsed, deadline)
            wake()
            await settle()
        self._elapsed = end
        await settle()


class Timeout:
    """A block that raises ``TimeoutError`` when it expires before it ends.

    Not ``asyncio.timeout``: before Python 3.11.4 (Debian 12 has 3.11.2) that raises
    ``CancelledError`` instead if the task had been cancelled earlier, as it was where
    the end of a cancelled operation is recorded (CPython issue 102780).

    Args:
        schedule: Arranges for a function to be called at the deadline, and returns
            what undoes that.
    """

    def __init__(
        self, schedule: Callable[[Callable[[], None]], Callable[[], object]]
    ) -> None:
        self._schedule = schedule
        self._unschedule: Callable[[], object] | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._expired = False

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None, "a timeout is used inside a task"
        self._cancelling = self._task.cancelling()
        self._unschedule = self._schedule(self._expire)

    def _expire(self) -> None:
        if self._task is not None:
            self._expired = True
            self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        assert task is not None
        assert self._unschedule is not None
        self._unschedule()
        # No more requests than on entry: nobody else cancelled the task.
        ours = self._expired and task.uncancel() <= self._cancelling
        if ours and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error


async def settle(turns: int = 25) -> None:
    """Let whatever is ready run: so many turns of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
