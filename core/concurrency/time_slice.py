"""Long work on the event loop, in short slices, so that other tasks run in between."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

SLICE_S: Final = 0.005
"""Seconds of work before other tasks run."""


class TimeSlice:
    """The time that one piece of work may use before other tasks run.

    Make one where the work starts, and await ``checkpoint`` after each step. A step
    takes far less than a slice: a model, an event, a part of a template. State that
    other tasks may change has to be copied first, as ``ReadModel.fixed`` does.

    For Python code this is better than a thread: the thread would compete with the
    event loop for the interpreter lock, and needs data that nothing changes as well.
    """

    def __init__(self) -> None:
        self._started = perf_counter()

    async def checkpoint(self) -> None:
        """Let other tasks run if the slice is used up."""
        if perf_counter() - self._started >= SLICE_S:
            await asyncio.sleep(0)
            self._started = perf_counter()
