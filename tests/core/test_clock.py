"""The clock that tests move."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest

from herdbook.core.clock import Clock, ManualClock, SystemClock, settle


async def test_manual_clock_wakes_sleepers_in_the_order_of_their_deadlines() -> None:
    clock, woken = ManualClock(), list[tuple[str, float]]()

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic()))

    sleepers = [
        asyncio.create_task(sleeper("late", 20)),
        asyncio.create_task(sleeper("early", 10)),
        asyncio.create_task(sleeper("now", 0)),
    ]
    await asyncio.sleep(0)
    await clock.advance(3600)
    await asyncio.gather(*sleepers)

    assert woken == [("now", 0.0), ("early", 10.0), ("late", 20.0)]
    assert clock.monotonic() == 3600


async def test_manual_timeout_expires_when_the_clock_is_moved_past_it() -> None:
    clock = ManualClock()

    async def waits() -> None:
        async with clock.timeout(5):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(waits())
    await asyncio.sleep(0)
    await clock.advance(4)
    assert not waiting.done()
    await clock.advance(2)

    with pytest.raises(TimeoutError):
        await waiting


async def test_manual_timeout_that_ended_in_time_does_nothing() -> None:
    clock = ManualClock()

    async with clock.timeout(5):
        pass
    await clock.advance(10)

    assert clock.monotonic() == 10


async def test_system_clock_runs_in_utc() -> None:
    clock = SystemClock()
    before = clock.monotonic()

    await clock.sleep(0)
    with pytest.raises(TimeoutError):
        async with clock.timeout(0):
            await asyncio.sleep(1)

    assert clock.monotonic() >= before
    assert clock.now().utcoffset() == timedelta(0)


async def _time_out_after_cancel(clock: Clock) -> None:
    """Time out as the cleanup of a cancelled operation does: inside a task group."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    async with clock.timeout(0.01), asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(3600))


async def test_timeout_in_a_task_cancelled_before_raises_timeout_error() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.create_task(_time_out_after_cancel(SystemClock()))

    clock = ManualClock()
    late = asyncio.create_task(_time_out_after_cancel(clock))
    await settle()
    await clock.advance(1)
    with pytest.raises(TimeoutError):
        await late


@pytest.mark.parametrize("expires_first", [True, False])
async def test_cancellation_during_a_timeout_stays_a_cancellation(
    expires_first: bool,
) -> None:
    clock = ManualClock()

    async def wait() -> None:
        async with clock.timeout(1):
            await asyncio.sleep(3600)

    task = asyncio.create_task(wait())
    await settle()
    if expires_first:
        advance = asyncio.create_task(clock.advance(1))
        await asyncio.sleep(0)
        task.cancel()
        await advance
    else:
        task.cancel()
        await clock.advance(1)
    with pytest.raises(asyncio.CancelledError):
        await task
