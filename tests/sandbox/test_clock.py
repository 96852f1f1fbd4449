"""The clocks: one that tests move, and one that runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from herdbook.sandbox import Clock, ManualClock, RealClock
from herdbook.sandbox.clock import pass_time


def test_manual_clock_stands_still() -> None:
    clock = ManualClock()

    assert (clock.now(), clock.now()) == (0.0, 0.0)


def test_advance_runs_due_timers_in_order() -> None:
    clock = ManualClock()
    done: list[float] = []
    clock.call_later(2.0, lambda: done.append(clock.now()))
    clock.call_later(1.0, lambda: done.append(clock.now()))
    clock.call_later(9.0, lambda: done.append(clock.now()))

    clock.advance(5.0)

    assert done == [1.0, 2.0]
    assert clock.now() == 5.0


def test_timers_set_by_timers_run_in_the_same_advance() -> None:
    clock = ManualClock()
    done: list[float] = []

    def first() -> None:
        clock.call_later(1.0, lambda: done.append(clock.now()))

    clock.call_later(1.0, first)

    clock.advance(3600.0)

    assert done == [2.0]


def test_cancelled_timer_does_not_run() -> None:
    clock = ManualClock()
    done: list[int] = []
    clock.call_later(1.0, lambda: done.append(1)).cancel()

    clock.advance(2.0)

    assert done == []


def test_cancelled_timers_do_not_accumulate() -> None:
    clock = ManualClock()
    for _ in range(10_000):
        clock.call_later(3600.0, lambda: None).cancel()

    assert len(clock._timers) <= 1001


def test_jump_goes_to_the_next_timer_that_is_not_soft() -> None:
    clock = ManualClock()
    done: list[str] = []
    clock.call_later(1.0, lambda: done.append("soft"), soft=True)
    clock.call_later(5.0, lambda: done.append("hard"))

    jumped = clock.jump(), clock.jump()

    assert jumped == (True, False)
    assert done == ["soft", "hard"]
    assert clock.now() == 5.0


async def test_drive_runs_work_that_waits_on_the_clock() -> None:
    clock = ManualClock()

    async def work() -> str:
        for _ in range(3):
            due = asyncio.Event()
            clock.call_later(3600.0, due.set)
            await due.wait()
        return "done"

    assert await clock.drive(work()) == "done"
    assert clock.now() == 3 * 3600.0


async def test_drive_gives_up_if_no_timer_is_left() -> None:
    with pytest.raises(TimeoutError, match="no timer is left"):
        await ManualClock().drive(asyncio.Event().wait())


@pytest.mark.parametrize("clock", [ManualClock(), RealClock()], ids=["manual", "real"])
async def test_time_passes_from_timer_to_timer(clock: Clock) -> None:
    woken: list[float] = []

    async def sleeper() -> None:
        while True:
            due = asyncio.Event()
            clock.call_later(60.0, due.set)
            await due.wait()
            woken.append(clock.now())

    task = asyncio.ensure_future(sleeper())
    await asyncio.sleep(0)
    await pass_time(clock, 200.0)
    task.cancel()

    assert woken == pytest.approx([60.0, 120.0, 180.0], abs=0.5)


async def test_time_skips_cancelled_timers() -> None:
    clock = ManualClock()
    clock.call_later(1.0, lambda: None).cancel()

    await pass_time(clock, 2.0)

    assert clock.due() is None
    assert clock.now() == 2.0


def test_manual_date_advances_with_the_clock() -> None:
    began = datetime(2026, 5, 1, tzinfo=UTC)
    clock = ManualClock(began)

    clock.advance(90.0)

    assert clock.wall(clock.now()) == began + timedelta(seconds=90)


async def test_real_clock_runs_at_the_configured_speed() -> None:
    clock = RealClock(speed=1000.0)
    due = asyncio.Event()

    clock.call_later(10.0, due.set)
    await asyncio.wait_for(due.wait(), timeout=5.0)

    assert clock.now() >= 10.0


async def test_real_clock_can_be_advanced() -> None:
    clock = RealClock()
    done: list[float] = []
    clock.call_later(3600.0, lambda: done.append(clock.now()))

    clock.advance(3601.0)

    assert done == [pytest.approx(3600.0, abs=0.01)]
    assert clock.now() >= 3601.0


async def test_real_clock_uses_the_date_of_the_computer() -> None:
    clock = RealClock(speed=60.0)
    clock.call_later(0.0, lambda: None)

    ahead = clock.wall(clock.now() + 300.0) - datetime.now(UTC)

    assert timedelta(seconds=4) < ahead < timedelta(seconds=6)


def test_real_clock_stands_still_before_it_is_used() -> None:
    assert RealClock().now() == 0.0


async def test_paused_clock_moves_only_when_advanced() -> None:
    start = datetime(2026, 3, 9, tzinfo=UTC)
    clock = RealClock(held_at=start)
    fired: list[float] = []
    clock.call_later(60, lambda: fired.append(clock.now()))

    await asyncio.sleep(0.01)
    assert clock.now() == 0
    assert clock.wall(clock.now()) == start

    clock.advance(90)
    assert fired == [60]
    assert clock.wall(clock.now()) == start + timedelta(seconds=90)


async def test_resumed_clock_uses_the_date_of_the_computer() -> None:
    clock = RealClock(held_at=datetime(2026, 3, 9, tzinfo=UTC))
    fired = asyncio.Event()
    clock.advance(90)
    clock.call_later(0.01, fired.set)

    clock.release()

    async with asyncio.timeout(5):
        await fired.wait()
    assert clock.now() > 90
    assert abs(datetime.now(UTC) - clock.wall(clock.now())) < timedelta(seconds=5)


def test_jump_can_be_limited() -> None:
    clock = ManualClock()
    clock.call_later(10, lambda: None)

    assert clock.jump(4)
    assert clock.now() == 4


async def test_date_of_an_event_does_not_change_while_time_passes() -> None:
    clock = RealClock(speed=20)
    clock.call_later(300, lambda: None)
    at = clock.now() + 300
    dates = set()
    for _ in range(20):
        dates.add(clock.wall(at))
        await asyncio.sleep(0.001)

    assert len(dates) == 1
    (date,) = dates
    left = date - datetime.now(UTC)
    assert timedelta(seconds=14) < left <= timedelta(seconds=15)
