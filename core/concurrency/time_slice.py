"""Divide long work on the event loop into slices, so that other tasks can run."""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import Final
from weakref import WeakKeyDictionary

SLICE_S: Final = 0.003
"""Seconds of work before other tasks run."""

_waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, deque[asyncio.Future[None]]] = (
    WeakKeyDictionary()
)
"""Work that waits for its next slice, by event loop, in the order of arrival."""


class TimeSlice:
    """The time that work may take before other tasks run.

    Create one where the work starts, and await ``checkpoint`` after each step. A step
    takes much less than a slice: a model, an event, a part of a template. Copy state
    that other tasks may change first, as ``ReadModel.fixed`` does.

    All work of an event loop takes turns, one slice in each iteration of the loop. So
    a short task waits for one slice at a time, however many long ones there are.

    For Python code this is better than a thread, which would compete with the event
    loop for the interpreter lock and also needs a copy of the data.
    """

    def __init__(self) -> None:
        self._started = perf_counter()

    async def checkpoint(self) -> None:
        """Let other tasks run if the slice is used up."""
        if perf_counter() - self._started >= SLICE_S:
            await _turn()
            self._started = perf_counter()


async def _turn() -> None:
    """Wait for the next slice."""
    loop = asyncio.get_running_loop()
    waiting = _waiting.setdefault(loop, deque())
    future = loop.create_future()
    waiting.append(future)
    if len(waiting) == 1:
        loop.call_soon(_next, loop, waiting)
    await future


def _next(
    loop: asyncio.AbstractEventLoop, waiting: deque[asyncio.Future[None]]
) -> None:
    """Give the first that still waits its slice; the others wait for an iteration."""
    while waiting:
        future = waiting.popleft()
        if not future.done():  # else it was cancelled
            future.set_result(None)
            break
    if waiting:
        loop.call_soon(_next, loop, waiting)
