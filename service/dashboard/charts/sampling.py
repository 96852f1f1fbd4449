"""Times of some events of a log: enough for a chart, and read once each.

The samples have equal distances, about a hundred in all. The distance is a power of
two, so that the samples stay useful when the log grows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from herdbook.core import ModelManager
from herdbook.events.archive_file import UNREADABLE
from herdbook.service.dashboard.charts.memory import Sample

MOST: Final = 120
"""Maximum number of samples."""


def positions_of(head: int) -> list[int]:
    """Return the positions to sample in a log that ends at ``head``."""
    if head < 1:
        return []
    step = 1
    while head / step > MOST:
        step *= 2
    return sorted({1, *range(step, head, step), head})


class Samples:
    """The samples of one log."""

    def __init__(self) -> None:
        self._times: dict[int, datetime] = {}

    async def read(self, manager: ModelManager, head: int) -> list[Sample]:
        """Return the samples of a log that ends at ``head``.

        They begin after an archive that is missing or damaged.
        """
        known = self._times  # local: other requests read at the same time
        times: dict[int, datetime] = {}
        for position in reversed(positions_of(head)):
            at = known.get(position) or await recorded_at(manager, position)
            if at is None:
                break
            times[position] = at
        self._times = times
        return [Sample(position, at) for position, at in reversed(times.items())]


async def recorded_at(manager: ModelManager, position: int) -> datetime | None:
    """Return when an event was recorded; None if it cannot be read, or for 0."""
    if position < 1:
        return None
    try:
        page = await manager.read_log(
            after=position - 1, before=position + 1, limit=1, newest_first=True
        )
    except UNREADABLE:
        return None
    return page.events[0].recorded_at if page.events else None
