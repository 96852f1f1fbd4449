"""Share the time of a process among the refreshes of all its nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

REFRESHES_AT_ONCE: Final = 16
"""Background refreshes of all nodes that run at the same time. A server that hangs has
a turn for up to ``refresh_timeout_s``, and then waits longer for each next one."""

REFRESH_SHARE_S: Final = 0.025
"""Time between the refreshes of two nodes, seconds. A refresh of 100 models takes 10 ms
of CPU time, so that refreshes take at most 40% of a core."""

POLL_SHARE_S: Final = 0.01
"""Time between the polls for the leases of two nodes, seconds; a poll in a database
takes about 2 ms."""


class RefreshTurns:
    """The turns of the nodes; an ``async with`` block waits for one.

    With many nodes, each is refreshed less often than the settings say.
    """

    def __init__(self) -> None:
        self._running = asyncio.Semaphore(REFRESHES_AT_ONCE)
        self._nodes = 0

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Count one more node while the block runs."""
        self._nodes += 1
        try:
            yield
        finally:
            self._nodes -= 1

    def refresh_every_s(self, wanted_s: float) -> float:
        """Return the interval between two refreshes of a node."""
        return max(wanted_s, self._nodes * REFRESH_SHARE_S)

    def poll_every_s(self, wanted_s: float) -> float:
        """Return the interval between two polls for the lease of a node."""
        return max(wanted_s, self._nodes * POLL_SHARE_S)

    async def __aenter__(self) -> None:
        await self._running.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._running.release()
