"""Tell the pretend server's time, and do things when it comes.

Invariant: everything in the sandbox that takes time waits on one clock, and timers
fire in the order of their times, each seeing exactly its own time as ``now``. So a
test that moves the clock by an hour sees what an hour would have brought, at once.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

#: Where a manual clock begins, so that runs are alike.
EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)

#: How often ``drive`` looks again when no timer is left.
_PATIENCE: Final = 1000
#: From how many timers on the cancelled ones are dropped.
_CROWDED: Final = 1000


class Timer:
    """Something to do at a time; ``cancel`` forgets it."""

    __slots__ = ("call", "soft", "when")

    def __init__(self, when: float, call: Callable[[], None], *, soft: bool) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call
        self.soft = soft

    def cancel(self) -> None:
        """Forget what was to be done; harmless when it is done already."""
        self.call = None


class Clock(Protocol):
    """What the pretend server needs of time; seconds since it was made."""

    def now(self) -> float:
        """Tell the seconds since the clock began."""

    def wall(self, at: float) -> datetime:
        """Tell the date of a moment of this clock."""

    def call_later(
        self, delay: float, call: Callable[[], None], *, soft: bool = False
    ) -> Timer:
        """Do ``call`` after ``delay`` seconds; a soft timer is none to jump to."""

    def advance(self, seconds: float) -> None:
        """Move ahead at once, doing on the way what was due."""

    def due(self) -> float | None:
        """Tell when the next timer rings; None where there is none."""


class ManualClock:
    """A clock that moves only when it is told to.

    Args:
        began: the date at which it stands at first.
    """

    def __init__(self, began: datetime = EPOCH) -> None:
        self._began = began
        self._now = 0.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._crowded = _CROWDED

    def now(self) -> float:
        """Tell the seconds since the clock began."""
        return self._now

    def wall(self, at: float) -> datetime:
        """Tell the date of a moment of this clock."""
        return self._began + timedelta(seconds=at)

    def call_later(
        self, delay: float, call: Callable[[], None], *, soft: bool = False
    ) -> Timer:
        """Do ``call`` after ``delay`` seconds; a soft timer is none to jump to."""
        timer = Timer(self.now() + max(delay, 0.0), call, soft=soft)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        if len(self._timers) > self._crowded:
            self._clear_out()
        return timer

    def advance(self, seconds: float) -> None:
        """Move ahead at once, doing on the way what was due."""
        until = self._now + seconds
        self._fire(until)
        self._now = until

    def due(self) -> float | None:
        """Tell when the next timer rings; None where there is none."""
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def jump(self) -> bool:
        """Advance to the next timer that is not soft; tell whether there was one."""
        due = [timer.when for _, _, timer in self._timers if _is_hard(timer)]
        if not due:
            return False
        self.advance(max(min(due) - self._now, 0.0))
        return True

    async def drive(
        self, work: Coroutine[object, object, T], *, rest: float = 0.0
    ) -> T:
        """Run ``work`` to its end, jumping whenever it seems to wait.

        Args:
            work: what waits for the server whose time this is.
            rest: real seconds to leave to sockets before each jump.

        Raises:
            TimeoutError: when it goes on waiting although no timer is left.
        """
        task = asyncio.ensure_future(work)
        idle = 0
        try:
            while not task.done():
                await let_others_run()
                await asyncio.wait({task}, timeout=rest)
                idle = 0 if task.done() or self.jump() else idle + 1
                if idle > _PATIENCE:
                    raise TimeoutError("no timer brings what the work waits for")
        finally:
            task.cancel()
        return await task

    def _clear_out(self) -> None:
        """Drop the timers that were cancelled; many are, long before their time."""
        self._timers = [entry for entry in self._timers if entry[2].call is not None]
        heapq.heapify(self._timers)
        self._crowded = max(_CROWDED, 2 * len(self._timers))

    def _fire(self, until: float) -> None:
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            if timer.call is not None:
                self._now = max(self._now, when)
                timer.call()


class RealClock(ManualClock):
    """The computer's clock, as many times as fast as it is told to be.

    Dates stay the computer's own: what the server says will happen in five of its
    minutes is told as the moment when it will.

    Args:
        speed: pretend seconds per real second.
    """

    def __init__(self, *, speed: float = 1.0) -> None:
        super().__init__()
        self._speed = speed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._origin = 0.0
        self._firing = False
        self._wake: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Tell the seconds since the clock began."""
        if self._loop is None or self._firing:
            return self._now  # a timer sees the time for which it was set
        return max(self._now, (self._loop.time() - self._origin) * self._speed)

    def wall(self, at: float) -> datetime:
        """Tell the date of a moment of this clock."""
        real = timedelta(seconds=(at - self.now()) / self._speed)
        return datetime.now(UTC) + real

    def call_later(
        self, delay: float, call: Callable[[], None], *, soft: bool = False
    ) -> Timer:
        """Do ``call`` after ``delay`` seconds; a soft timer is none to jump to."""
        self._start()
        timer = super().call_later(delay, call, soft=soft)
        self._arm()
        return timer

    def advance(self, seconds: float) -> None:
        """Move ahead at once, doing on the way what was due."""
        self._start()
        self._origin -= seconds / self._speed
        self._catch_up(self.now())

    def _start(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._origin = self._loop.time() - self._now / self._speed

    def _catch_up(self, until: float) -> None:
        self._firing = True
        try:
            self._fire(until)
        finally:
            self._firing = False
        self._arm()

    def _arm(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if self._loop is not None and self._timers and not self._firing:
            delay = (self._timers[0][0] - self.now()) / self._speed
            self._wake = self._loop.call_later(max(delay, 0.0), self._ring)

    def _ring(self) -> None:
        self._catch_up(self.now())


async def let_others_run(turns: int = 20) -> None:
    """Give every task that can go on as many turns of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def pass_time(clock: Clock, seconds: float) -> None:
    """Move ahead from timer to timer, letting each bring what it brings.

    So a task that a timer wakes sets its next timer from that moment on, as it does
    where time passes by itself.
    """
    until = clock.now() + seconds
    while (due := clock.due()) is not None and due <= until:
        clock.advance(max(due - clock.now(), 0.0))
        await let_others_run()
    clock.advance(max(until - clock.now(), 0.0))
    await let_others_run()


def _is_hard(timer: Timer) -> bool:
    return timer.call is not None and not timer.soft
