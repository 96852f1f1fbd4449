"""From a moment to a place in the log.

The log is ordered by position; the time of recording grows with it as long as
the clock does. Where a clock was set back, times go back too, and a moment in
the overlap has several places: what is returned is then one of them, an event
recorded at or before the moment whose next one was recorded after it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from herdbook.events.errors import CallerError, CorruptLogError
from herdbook.events.store import EventStore


async def position_at(store: EventStore, moment: datetime) -> int:
    """Return the last position that was recorded at or before a moment.

    Args:
        store: The log.
        moment: A moment with a time zone.

    Returns:
        The position; 0 if nothing was recorded by then.

    Raises:
        CallerError: The moment has no time zone, or no year in UTC.
        CorruptLogError: The log ends before its head.
    """
    if moment.tzinfo is None:
        raise CallerError(f"time {moment.isoformat()}", "has no time zone")
    try:
        wanted = moment.astimezone(UTC)
    except OverflowError as error:
        raise CallerError(
            f"time {moment.isoformat()}", "is outside the years 1 to 9999 in UTC"
        ) from error
    # At low it was recorded by then (0 stands for the beginning); behind high not.
    low, high = 0, (await store.head()).position
    while low < high:
        middle = (low + high + 1) // 2
        if await _recorded_at(store, middle) <= wanted:
            low = middle
        else:
            high = middle - 1
    return low


async def _recorded_at(store: EventStore, position: int) -> datetime:
    async for event in store.read_all(after=position - 1, limit=1):
        return event.recorded_at
    raise CorruptLogError(
        "the log",
        f"ends before #{position}, and its head does not",
        "Run: herdbook verify",
    )
