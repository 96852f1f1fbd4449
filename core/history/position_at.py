"""Find the position of the log at a time.

The log is ordered by position, and the time of recording normally grows with it.
Where a clock was set back, a time in the overlap has several positions. The result
is then one of them: an event recorded at or before the time, with its successor
recorded after it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from herdbook.events.errors import CallerError, CorruptLogError
from herdbook.events.store import ArchivedStore, EventStore


async def position_at(store: EventStore, time: datetime) -> int:
    """Return the last position that was recorded at or before a time.

    Args:
        store: The log.
        time: A time with a time zone.

    Returns:
        The position; 0 if nothing was recorded by then.

    Raises:
        CallerError: The time has no time zone, or is out of range in UTC.
        CorruptLogError: The log ends before its head.
    """
    if time.tzinfo is None:
        raise CallerError(f"time {time.isoformat()}", "has no time zone")
    try:
        wanted = time.astimezone(UTC)
    except OverflowError as error:
        raise CallerError(
            f"time {time.isoformat()}", "is outside the years 1 to 9999 in UTC"
        ) from error
    # Event low was recorded by then (0 is before the first); event high + 1 was not.
    low, high = 0, (await store.head()).position
    # An archive that is missing is not needed for a time after it.
    for archive in await store.archives() if isinstance(store, ArchivedStore) else ():
        if datetime.fromisoformat(archive.recorded_at) <= wanted:
            low = archive.last
        else:
            high = archive.last - 1
            break
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
        f"ends before #{position}, although its head does not",
        "Run: herdbook verify",
    )
