"""Long work is done in slices, and other tasks run in between."""

from __future__ import annotations

import asyncio
from time import perf_counter

from herdbook.core.concurrency.time_slice import TimeSlice


async def test_other_tasks_run_in_between() -> None:
    times = 0

    async def count() -> None:
        nonlocal times
        while True:
            times += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count())
    time_slice, until = TimeSlice(), perf_counter() + 5
    while times < 3 and perf_counter() < until:
        await time_slice.checkpoint()
    other.cancel()

    assert times >= 3
