"""Work at intervals, with a clock that the tests move."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

from herdbook.core.clock import ManualClock, settle
from herdbook.core.errors import CallerError
from herdbook.core.upkeep.recurring import Recurring

HOUR = 3600.0


class Work:
    """Counts its runs, and fails as often as a test sets."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.done: list[float] = []
        self.attempts: list[float] = []
        self.failures = 0

    async def __call__(self) -> int:
        self.attempts.append(self.clock.monotonic())
        if self.failures:
            self.failures -= 1
            raise CallerError("the disk", "is full")
        self.done.append(self.clock.monotonic())
        return 7


async def test_work_runs_immediately_and_then_at_intervals() -> None:
    clock = ManualClock()
    work = Work(clock)
    recurring = Recurring("work", HOUR, work, clock=clock)

    async with recurring.running():
        await settle()
        assert work.done == [0.0]
        await clock.advance(2.5 * HOUR)

    assert work.done == [0.0, HOUR, 2 * HOUR]
    assert recurring.status.last_position == 7
    assert recurring.status.last_at == clock.now() - timedelta(seconds=HOUR / 2)
    assert recurring.status.next_at == clock.now() + timedelta(seconds=HOUR / 2)
    assert recurring.task.up


async def test_restart_neither_delays_nor_repeats_the_work() -> None:
    clock = ManualClock()
    work = Work(clock)
    last = clock.now() - timedelta(seconds=HOUR / 4)

    async with Recurring("work", HOUR, work, clock=clock, last_at=last).running():
        await settle()
        await clock.advance(HOUR / 2)
        assert work.done == []
        await clock.advance(HOUR / 2)

    assert work.done == [0.75 * HOUR]


async def test_missed_work_is_done_once() -> None:
    clock = ManualClock()
    work = Work(clock)
    last = clock.now() - timedelta(days=30)

    async with Recurring("work", HOUR, work, clock=clock, last_at=last).running():
        await settle()
        await clock.advance(1)

    assert work.done == [0.0]


async def test_clock_set_back_delays_by_at_most_one_interval() -> None:
    clock = ManualClock()
    work = Work(clock)
    future = clock.now() + timedelta(days=300)

    async with Recurring("work", HOUR, work, clock=clock, last_at=future).running():
        await settle()
        await clock.advance(HOUR)

    assert work.done == [HOUR]


async def test_failure_is_reported_and_retried_with_growing_delays() -> None:
    clock = ManualClock()
    work = Work(clock)
    work.failures = 4
    recurring = Recurring("work", HOUR, work, clock=clock)

    async with recurring.running():
        await settle()
        await clock.advance(120)
        assert not recurring.task.up
        assert recurring.task.failure == "the disk is full"
        assert recurring.status.next_at == clock.now() + timedelta(seconds=105)
        await clock.advance(HOUR)

    assert work.attempts == [0.0, 15.0, 45.0, 105.0, 225.0]
    assert work.done == [225.0]
    assert recurring.task.up


async def test_retry_delays_have_a_limit() -> None:
    clock = ManualClock()
    work = Work(clock)
    work.failures = 100

    async with Recurring("work", 24 * HOUR, work, clock=clock).running():
        await settle()
        await clock.advance(12 * HOUR)

    waits = [b - a for a, b in pairwise(work.attempts)]
    assert waits == sorted(waits)
    assert waits[-1] == HOUR
