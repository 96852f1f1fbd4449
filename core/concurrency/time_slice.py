"""Divide long work on the event loop into slices, so that other tasks can run."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

SLICE_S: Final = 0.005
"""Seconds of work before other tasks run."""


class TimeSlice:
    """The time that work may take before other tasks run.

    Create one where the work starts, and await ``checkpoint`` after each step. A step
    takes much less than a slice: a model, an event, a part of a template. Copy state
    that other tasks may change first, as ``ReadModel.fixed`` does.

    For Python code this is better than a thread, which would compete with the event
    loop for the interpreter lock and also needs a copy of the data.
    """

    def __init__(self) -> None:
        self._started = perf_counter()

    async def checkpoint(self) -> None:
        """Let other tasks run if the slice is used up."""
        if perf_counter() - self._started >= SLICE_S:
            await asyncio.sleep(0)
            self._started = perf_counter()
