"""Clocks for timestamps and for waiting.

The system's clock is the default. ``ManualClock`` only moves when it is advanced, so
that a test can pass an hour without waiting.
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
    """A source of time that can also wait."""

    def now(self) -> datetime:
        """Return the current time, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never decrease."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds."""
        ...

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a context manager that raises ``TimeoutError`` after the seconds."""
        ...


class SystemClock:
    """The clock of the operating system."""

    def now(self) -> datetime:
        """Return the current time, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never decrease."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a context manager that raises ``TimeoutError`` after the seconds."""
        loop = asyncio.get_running_loop()
        return Timeout(lambda expire: loop.call_later(seconds, expire).cancel)


class ManualClock:
    """A clock that only moves when ``advance`` is called."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        """Return the start time plus the seconds advanced."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Return the seconds advanced."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced by the seconds."""
        reached = asyncio.Event()
        self._call(reached.set, self._elapsed + max(seconds, 0))
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        await reached.wait()

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a context manager that raises once the clock was advanced that far."""
        deadline = self._elapsed + seconds
        return Timeout(lambda expire: self._call(expire, deadline))

    def _call(self, wake: Callable[[], None], deadline: float) -> Callable[[], None]:
        """Schedule a function; return a function that cancels it."""
        entry = (deadline, next(self._order), wake)
        heapq.heappush(self._waiting, entry)

        def cancel() -> None:
            if entry in self._waiting:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)

        return cancel

    async def advance(self, seconds: float) -> None:
        """Advance the clock, stopping at each deadline so that what is due runs."""
        end = self._elapsed + seconds
        while self._waiting and self._waiting[0][0] <= end:
            deadline, _, wake = heapq.heappop(self._waiting)
            self._elapsed = max(self._elapsed, deadline)
            wake()
            await settle()
        self._elapsed = end
        await settle()


class Timeout:
    """A context manager that raises ``TimeoutError`` at a deadline.

    Not ``asyncio.timeout``: before Python 3.11.4 (Debian 12 has 3.11.2) that raises
    ``CancelledError`` instead if the task was cancelled earlier, which is the case
    while the end of a cancelled operation is recorded (CPython issue 102780).

    Args:
        schedule: Schedules a function for the deadline, and returns a function that
            cancels it.
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
        # No more cancel requests than on entry: only this timeout cancelled the task.
        ours = self._expired and task.uncancel() <= self._cancelling
        if ours and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error


async def settle(turns: int = 25) -> None:
    """Let ready tasks run, for a number of turns of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
