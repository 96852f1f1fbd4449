"""Find the position of the log at a time.

The log is ordered by position, and the time of recording normally grows with it.
Where a clock was set back, a time in the overlap has several positions. The result
is then one of them: an event recorded at or before the time, with its successor
recorded after it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from herdbook.events.errors import CallerError, CorruptLogError
from herdbook.events.store import ArchivedStore, EventStore

CLOCK_DIFFERENCE: Final = timedelta(hours=1)
"""Time by which the clocks of the machines on a log may differ, or one may have been
set back, without an effect on ``position_before``."""


async def position_before(store: EventStore, since: datetime | int) -> int:
    """Return a position from which a read finds all events since a time or position.

    It is a little too early for a time, so the events must still be compared with it.

    Args:
        store: The log.
        since: The earliest time of recording, with a time zone, or the first position.

    Raises:
        CallerError: The time has no time zone, or is out of range in UTC.
        CorruptLogError: The log ends before its head.
    """
    if isinstance(since, int):
        return max(since - 1, 0)
    try:
        earlier = since - CLOCK_DIFFERENCE
    except OverflowError:  # nothing was recorded in the year 1
        return 0
    return await position_at(store, earlier)


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
