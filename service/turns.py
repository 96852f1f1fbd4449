"""Long work in the event loop, in slices: no request may hold up the others."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

SLICE_S: Final = 0.01
"""Seconds of work until others have their turn."""


class Turns:
    """Gives others their turn in the midst of long work."""

    def __init__(self) -> None:
        self._since = perf_counter()

    async def give(self) -> None:
        """Let others run, if this has worked for a slice."""
        if perf_counter() - self._since >= SLICE_S:
            await asyncio.sleep(0)
            self._since = perf_counter()
