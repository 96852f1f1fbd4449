"""Measure how long a running service holds its event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

TICK_S = 0.005
"""Seconds between two ticks of the probe."""

REFERENCE_S = 0.01
"""CPU seconds that the calibration takes on the machine that limits are stated for.

A machine that takes twice as long has twice the limit.
"""


class LoopLag:
    """The longest stretch of CPU time that an event loop's thread used between ticks.

    CPU time of that thread alone, not wall-clock time: on a busy machine the thread
    waits for a processor, and no request is to blame for that. Time that the thread
    spends waiting for the interpreter lock does not count either.

    Attributes:
        longest_s: The longest stretch so far, in CPU seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.longest_s = 0.0
        self._loop = loop

    @contextmanager
    def measured(self) -> Iterator[LoopLag]:
        """Measure while the block runs, in another thread than the loop's."""
        task = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._stop(task), self._loop).result()

    async def _start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._tick())

    async def _stop(self, task: asyncio.Task[None]) -> None:
        # One more tick first, so that the last stretch is counted.
        await asyncio.sleep(2 * TICK_S)
        task.cancel()

    async def _tick(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.thread_time()
            self.longest_s = max(self.longest_s, now - before)
            before = now


def slowness() -> float:
    """Return how many times slower than the reference this machine is now.

    A fixed piece of Python work is timed in CPU time, the median of a few runs. CPU
    time grows too where a sibling core is busy or the clock frequency is low.
    """
    return median(_work() for _ in range(5)) / REFERENCE_S


def _work() -> float:
    before = time.thread_time()
    counts: dict[str, int] = {}
    for number in range(40_000):
        key = f"key {number % 997}"
        counts[key] = counts.get(key, 0) + number
    return time.thread_time() - before
