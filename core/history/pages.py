"""The log in pages, in either direction.

A page scans a bounded number of events, however long the log is and however few events
match: it ends with the events found so far and the position where the next page
starts. Reading page by page returns each event once, in order.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Final

import msgspec

from herdbook.core.errors import CallerError
from herdbook.core.history.position_at import position_before
from herdbook.events.archive_file import UNREADABLE
from herdbook.events.recorded import RecordedEvent
from herdbook.events.store import ArchivedStore, EventStore
from herdbook.projections.history import HistoryFilter

MAX_SCANNED: Final = 20_000
"""Most events that one page scans, which takes about 0.1 s."""

FIRST_WINDOW: Final = 1000
"""Events of the first window when reading backwards: one batch of the store."""

WINDOW_GROWTH: Final = 4
"""Growth factor of each further window when reading backwards."""

SKIPS_PER_READ: Final = 20
"""Events that the store can skip in the time that it takes to read one."""


class LogPage(msgspec.Struct, frozen=True, kw_only=True):
    """Events of the log, and where the next page starts.

    Attributes:
        events: The events in the requested order; may be empty although the next page
            has some.
        next: The ``after`` of the next page, or its ``before`` for newest first; None
            on the last page.
        missing: Why the page ends early, with newest first: an archive that is missing
            or damaged. Otherwise empty.
    """

    events: tuple[RecordedEvent, ...]
    next: int | None
    missing: str = ""


class PageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Selection of events for a page.

    Attributes:
        after: Only events after this position.
        before: Only events before this position; None for no bound.
        limit: Most events on the page.
        stream_prefix: Only streams with names that start with this text.
        chosen: Filter; its own limit is ignored.
        max_scanned: Most events to scan.
        first_window: Events of the first window when reading backwards.
    """

    after: int = 0
    before: int | None = None
    limit: int = 100
    stream_prefix: str = ""
    chosen: HistoryFilter = HistoryFilter()
    max_scanned: int = MAX_SCANNED
    first_window: int = FIRST_WINDOW

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise CallerError(f"limit {self.limit}", "is not valid", "Use 1 or more")
        for position in (self.after, self.before or 0):
            if position < 0:
                raise CallerError(
                    f"#{position}",
                    "does not exist",
                    "Positions start at 1; 0 is before the first event",
                )

    def matches(self, event: RecordedEvent) -> bool:
        """Return whether an event in the range is selected."""
        in_range = event.stream.startswith(self.stream_prefix)
        return in_range and self.chosen.matches(event)


async def oldest_first(store: EventStore, query: PageQuery) -> LogPage:
    """Return the first page of the selected events, in order of position."""
    query = await _after_earlier_events(store, query)
    found: list[RecordedEvent] = []
    scanned, position = 0, query.after
    recorded = store.read_all(
        after=query.after,
        limit=query.max_scanned + 1,
        stream_prefix=query.stream_prefix,
        types=query.chosen.types,
    )
    async for event in recorded:
        if query.before is not None and event.position >= query.before:
            break
        if len(found) == query.limit or scanned == query.max_scanned:
            return LogPage(events=tuple(found), next=position)
        scanned, position = scanned + 1, event.position
        if query.matches(event):
            found.append(event)
    return LogPage(events=tuple(found), next=None)


async def newest_first(store: EventStore, query: PageQuery) -> LogPage:
    """Return the first page of the selected events, newest first.

    Raises:
        ArchiveMissingError: The newest of them are in an archive that is missing.
        DamagedArchiveError: They are in one that is damaged.
    """
    with suppress(*UNREADABLE):  # raised below, if the page needs that archive
        query = await _after_earlier_events(store, query)
    head = (await store.head()).position
    begin = head if query.before is None else min(query.before - 1, head)
    high, lowest = begin, max(query.after, begin - query.max_scanned)
    ends = await _ends_of_archives(store)
    found: list[RecordedEvent] = []
    width, missing = max(query.limit, query.first_window), ""
    while high > lowest and len(found) < query.limit:
        # A window ends with an archive, so that newer events do not need its file.
        low = max(high - width, lowest, *(end for end in ends if end < high))
        room = query.limit - len(found)
        tail = head - low <= SKIPS_PER_READ * (high - low)
        try:
            newest = await _newest_of(store, query, (low, high), room, filtered=tail)
        except UNREADABLE as error:
            if high == begin:
                raise
            missing = str(error)
            break
        found += reversed(newest)
        high, width = low, width * WINDOW_GROWTH
    next_position = found[-1].position if len(found) == query.limit else high + 1
    return LogPage(
        events=tuple(found),
        next=next_position if next_position > query.after + 1 else None,
        missing=missing,
    )


async def _after_earlier_events(store: EventStore, query: PageQuery) -> PageQuery:
    """Return the query without most events that its filter finds too old."""
    if query.chosen.since is None:
        return query
    before = await position_before(store, query.chosen.since)
    return msgspec.structs.replace(query, after=max(query.after, before))


async def _ends_of_archives(store: EventStore) -> list[int]:
    if not isinstance(store, ArchivedStore):
        return []
    return [archive.last for archive in await store.archives()]


async def _newest_of(
    store: EventStore,
    query: PageQuery,
    window: tuple[int, int],
    room: int,
    *,
    filtered: bool,
) -> deque[RecordedEvent]:
    """Return the newest selected events of a window, oldest first.

    Args:
        store: The log.
        query: What to select.
        window: The position before its first event, and its last position.
        room: Most events to return.
        filtered: Filter in the store. A read of the store has no end position, so the
            store may scan all events after the window.
    """
    low, high = window
    newest: deque[RecordedEvent] = deque(maxlen=room)
    recorded = store.read_all(
        after=low,
        limit=high - low,
        stream_prefix=query.stream_prefix if filtered else "",
        types=query.chosen.types if filtered else None,
    )
    async for event in recorded:
        if event.position > high:
            break
        if query.matches(event):
            newest.append(event)
    return newest
