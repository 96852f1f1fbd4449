"""Work that is due at intervals, for as long as a service runs.

The interval is measured by the wall clock, and from what was done before this process
started, so that a restart neither delays nor repeats the work. A failure is retried
with growing waits, longer than those of the supervisor, because the work may be large.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Final

import msgspec

from herdbook.core.clock import Clock
from herdbook.core.concurrency.supervisor import BackgroundTask, TaskStatus
from herdbook.core.errors import CallerError

SHORTEST_S: Final = 60.0
"""Shortest interval, seconds."""

LONGEST_SLEEP_S: Final = 60.0
"""Seconds until the wall clock is read again: it is set, and a computer may sleep."""


FIRST_WAIT_S: Final = 15.0
"""Seconds from a failure to the next attempt; doubled with each further failure."""

LONGEST_WAIT_S: Final = 3600.0
"""Seconds to the next attempt at most; less if the interval is shorter."""


def check_interval(every_s: float) -> None:
    """Check an interval.

    Raises:
        CallerError: It is too short.
    """
    if every_s < SHORTEST_S:
        raise CallerError(
            f"an interval of {every_s:g} s",
            "is too short",
            f"Use at least {SHORTEST_S:.0f} s",
        )


class UpkeepStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of recurring work.

    Attributes:
        task: Its name.
        every_s: Its interval, seconds.
        last_at: When it was last done, UTC; None if that is not known.
        last_position: The last event of the log at that time; None if not known.
        next_at: When it is due, UTC; None before the first time.
    """

    task: str
    every_s: float
    last_at: datetime | None
    last_position: int | None
    next_at: datetime | None


class Recurring:
    """Work that is due at intervals.

    Args:
        name: The name of the work.
        every_s: The interval, seconds.
        work: Does the work once; returns the position of the last event that it covers.
        clock: The clock.
        last_at: When the work was done before this process started, if that is known.
    """

    def __init__(
        self,
        name: str,
        every_s: float,
        work: Callable[[], Awaitable[int]],
        *,
        clock: Clock,
        last_at: datetime | None = None,
    ) -> None:
        self._every_s = every_s
        self._work = work
        self._clock = clock
        self._last_at = last_at
        self._last_position: int | None = None
        self._failures = 0
        self._retry_at: datetime | None = None
        self._task = BackgroundTask(name, self._run, clock=clock)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Do the work when it is due while the block runs."""
        return self._task.running()

    @property
    def task(self) -> TaskStatus:
        """Whether the work succeeds."""
        return self._task.status

    @property
    def status(self) -> UpkeepStatus:
        """When the work was done, and when it is due."""
        return UpkeepStatus(
            task=self._task.status.name,
            every_s=self._every_s,
            last_at=self._last_at,
            last_position=self._last_position,
            next_at=self._due(),
        )

    def _due(self) -> datetime | None:
        """Return when the work is due; None for at once."""
        if self._retry_at is not None:
            return self._retry_at
        if self._last_at is None:
            return None
        return self._last_at + timedelta(seconds=self._every_s)

    async def _run(self, task: BackgroundTask) -> None:
        while True:
            await self._wait()
            try:
                self._last_position = await self._work()
            except Exception:
                self._retry_at = self._clock.now() + self._next_wait()
                raise
            self._last_at = self._clock.now()
            self._retry_at, self._failures = None, 0
            task.succeeded()

    def _next_wait(self) -> timedelta:
        """Count a failure; return the time to the next attempt."""
        wait_s = FIRST_WAIT_S * 2.0 ** min(self._failures, 20)
        self._failures += 1
        return timedelta(seconds=min(wait_s, LONGEST_WAIT_S, self._every_s))

    async def _wait(self) -> None:
        while (due := self._due()) is not None:
            now = self._clock.now()
            left_s = (due - now).total_seconds()
            if left_s <= 0:
                return
            if left_s > self._every_s:  # the clock was set back
                self._last_at, self._retry_at = now, None
                continue
            await self._clock.sleep(min(left_s, LONGEST_SLEEP_S))
