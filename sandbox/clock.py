"""Clocks of the sandbox server, with timers.

Invariant: everything in the sandbox that takes time waits on one clock. Timers fire
in the order of their times, and each sees exactly its own time as ``now``. A test
that advances the clock by an hour gets the same result as an hour of waiting.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

#: Start of a manual clock, the same for every run.
EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)

#: Difference by which the computer's clock was set, rather than read a bit later.
_SET: Final = timedelta(seconds=1)
#: How often ``drive`` retries when no timer is left.
_PATIENCE: Final = 1000
#: Number of timers from which cancelled ones are removed.
_CROWDED: Final = 1000


class Timer:
    """A call at a time of the clock, until it is cancelled."""

    __slots__ = ("call", "soft", "when")

    def __init__(self, when: float, call: Callable[[], None], *, soft: bool) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call
        self.soft = soft

    def cancel(self) -> None:
        """Cancel the call. Does nothing if it was made already."""
        self.call = None


class Clock(Protocol):
    """Time as the sandbox server uses it, in seconds since the clock started."""

    def now(self) -> float:
        """Return the seconds since the clock started."""

    def wall(self, at: float) -> datetime:
        """Return the date of a time of this clock."""

    def call_later(
        self, delay: float, call: Callable[[], None], *, soft: bool = False
    ) -> Timer:
        """Call ``call`` after ``delay`` seconds; ``jump`` passes over soft timers."""

    def advance(self, seconds: float) -> None:
        """Move ahead at once and fire the timers that fall due."""

    def due(self) -> float | None:
        """Return the time of the next timer, or None."""


class ManualClock:
    """A clock that moves only by ``advance`` and ``jump``.

    Args:
        began: Date at which it starts.
    """

    def __init__(self, began: datetime = EPOCH) -> None:
        self._began = began
        self._now = 0.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._crowded = _CROWDED

    def now(self) -> float:
        """Return the seconds since the clock started."""
        return self._now

    def wall(self, at: float) -> datetime:
        """Return the date of a time of this clock."""
        return self._began + timedelta(seconds=at)

    def call_later(
        self, delay: float, call: Callable[[], None], *, soft: bool = False
    ) -> Timer:
        """Call ``call`` after ``delay`` seconds; ``jump`` passes over soft timers."""
        timer = Timer(self.now() + max(delay, 0.0), call, soft=soft)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        if len(self._timers) > self._crowded:
            self._clear_out()
        return timer

    def advance(self, seconds: float) -> None:
        """Move ahead at once and fire the timers that fall due."""
        until = self._now + seconds
        self._fire(until)
        self._now = until

    def due(self) -> float | None:
        """Return the time of the next timer, or None."""
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def jump(self, longest_s: float = math.inf) -> bool:
        """Advance to the next timer that is not soft; return whether there was one.

        Args:
            longest_s: Seconds to advance at most; the timer may need several jumps.
        """
        due = [timer.when for _, _, timer in self._timers if _is_hard(timer)]
        if not due:
            return False
        self.advance(min(max(min(due) - self._now, 0.0), longest_s))
        return True

    async def drive(
        self, work: Coroutine[object, object, T], *, rest: float = 0.0
    ) -> T:
        """Run ``work`` to its end, jumping whenever it seems to wait.

        Args:
            work: A client of the server that has this clock.
            rest: Real seconds to leave to sockets before each jump.

        Raises:
            TimeoutError: The work still waits although no timer is left.
        """
        task = asyncio.ensure_future(work)
        idle = 0
        try:
            while not task.done():
                await let_others_run()
                await asyncio.wait({task}, timeout=rest)
                idle = 0 if task.done() or self.jump() else idle + 1
                if idle > _PATIENCE:
                    raise TimeoutError("the work waits, but no timer is left")
        finally:
            task.cancel()
        return await task

    def _clear_out(self) -> None:
        """Remove cancelled timers; most are cancelled long before they are due."""
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
    """The computer's clock, optionally faster.

    Dates stay the computer's own: an event that is due in five simulated minutes has
    the date at which the computer reaches it.

    Args:
        speed: Simulated seconds per real second.
        held_at: Date to hold the clock at until ``release``. A held clock moves only
            by ``advance``, as a manual one does; None to run at once.
    """

    def __init__(self, *, speed: float = 1.0, held_at: datetime | None = None) -> None:
        super().__init__(held_at or EPOCH)
        self._speed = speed
        self._held = held_at is not None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._origin = 0.0
        self._date = EPOCH
        self._firing = False
        self._wake: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Return the seconds since the clock started."""
        if self._loop is None or self._firing:
            return self._now  # a timer sees the time for which it was set
        return max(self._now, (self._loop.time() - self._origin) * self._speed)

    def wall(self, at: float) -> datetime:
        """Return the date of a time of this clock."""
        if self._held:
            return super().wall(at)
        if self._loop is None:
            return datetime.now(UTC) + timedelta(
                seconds=(at - self.now()) / self._speed
            )
        # From one date, not from the time of each call: the date of an event must not
        # change by itself, since clients compare the expiry of a runner.
        now, real = datetime.now(UTC), self._loop.time()
        if abs(now - self._date - timedelta(seconds=real)) > _SET:
            self._date = now - timedelta(seconds=real)  # the computer's clock was set
        return self._date + timedelta(seconds=self._origin + at / self._speed)

    def call_later(
        self, delay: float, call: Callable[[], None], *, soft: bool = False
    ) -> Timer:
        """Call ``call`` after ``delay`` seconds; ``jump`` passes over soft timers."""
        self._start()
        timer = super().call_later(delay, call, soft=soft)
        self._arm()
        return timer

    def advance(self, seconds: float) -> None:
        """Move ahead at once and fire the timers that fall due."""
        if self._held:
            super().advance(seconds)
            return
        self._start()
        self._origin -= seconds / self._speed
        self._catch_up(self.now())

    def release(self) -> None:
        """Run from now on, with the computer's dates. Pending timers stay pending."""
        self._held = False
        self._start()
        self._arm()

    def _start(self) -> None:
        if self._loop is None and not self._held:
            self._loop = asyncio.get_running_loop()
            self._origin = self._loop.time() - self._now / self._speed
            self._date = datetime.now(UTC) - timedelta(seconds=self._loop.time())

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
    """Yield to the event loop, so that every runnable task runs ``turns`` times."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def pass_time(clock: Clock, seconds: float) -> None:
    """Advance from timer to timer, and let tasks run in between.

    A task that a timer wakes sets its next timer relative to that time, as it does on
    a real clock.
    """
    until = clock.now() + seconds
    while (due := clock.due()) is not None and due <= until:
        clock.advance(max(due - clock.now(), 0.0))
        await let_others_run()
    clock.advance(max(until - clock.now(), 0.0))
    await let_others_run()


def _is_hard(timer: Timer) -> bool:
    return timer.call is not None and not timer.soft
