"""The log in pages, in either direction.

A page looks at no more than so many events, however long the log is and however
little of it is wanted: it ends with what it has found, and says where to go on.
Whoever reads page by page gets each event once, in order.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from herdbook.core.errors import CallerError
from herdbook.events.recorded import RecordedEvent
from herdbook.events.store import EventStore
from herdbook.projections.history import HistoryFilter

MAX_SCANNED: Final = 20_000
"""Events that one page looks at; that takes about 0.1 s."""

FIRST_WINDOW: Final = 1000
"""Events of the first window backwards: what the store reads at once."""

WINDOW_GROWTH: Final = 4
"""By how much each window backwards is wider than the one before."""

SKIPS_PER_READ: Final = 20
"""Events that the store passes over in the time that one takes to be read."""


class LogPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some events of the log, and where to go on.

    Attributes:
        events: The events, in the order that was asked for; there may be none
            although there are more behind ``next``.
        next: The ``after`` of the next page, or its ``before`` where the newest come
            first; None where the end, or the beginning, was reached.
    """

    events: tuple[RecordedEvent, ...]
    next: int | None


class PageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What a page is to hold.

    Attributes:
        after: Only events behind this position.
        before: Only events before this position; None for all there are.
        limit: At most this many events.
        stream_prefix: Only streams whose names begin with it.
        chosen: Which events; its own limit does not count.
        max_scanned: Events to look at, whether they are wanted or not.
        first_window: Events to look at first, where the newest come first.
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
            raise CallerError(
                f"a page of {self.limit} events", "is not possible", "Ask for 1 or more"
            )
        for position in (self.after, self.before or 0):
            if position < 0:
                raise CallerError(
                    f"position #{position}",
                    "is not in the log",
                    "Positions begin at 1; 0 is before the first",
                )

    def takes(self, event: RecordedEvent) -> bool:
        """Return whether an event of the range belongs on the page."""
        return event.stream.startswith(self.stream_prefix) and self.chosen.takes(event)


async def oldest_first(store: EventStore, query: PageQuery) -> LogPage:
    """Return the first page of what the query selects, in order of position."""
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
        if query.takes(event):
            found.append(event)
    return LogPage(events=tuple(found), next=None)


async def newest_first(store: EventStore, query: PageQuery) -> LogPage:
    """Return the first page of what the query selects, the newest event first."""
    head = (await store.head()).position
    high = head if query.before is None else min(query.before - 1, head)
    lowest = max(query.after, high - query.max_scanned)
    found: list[RecordedEvent] = []
    width = max(query.limit, query.first_window)
    while high > lowest and len(found) < query.limit:
        low = max(high - width, lowest)
        room = query.limit - len(found)
        tail = head - low <= SKIPS_PER_READ * (high - low)
        found += reversed(
            await _newest_of(store, query, (low, high), room, filtered=tail)
        )
        high, width = low, width * WINDOW_GROWTH
    next_position = found[-1].position if len(found) == query.limit else high + 1
    return LogPage(
        events=tuple(found),
        next=next_position if next_position > query.after + 1 else None,
    )


async def _newest_of(
    store: EventStore,
    query: PageQuery,
    window: tuple[int, int],
    room: int,
    *,
    filtered: bool,
) -> deque[RecordedEvent]:
    """Return the newest events of a window that the query selects, the oldest first.

    Args:
        store: The log.
        query: What to select.
        window: The position that it begins behind, and its last one.
        room: At most this many.
        filtered: Whether the store is to leave out what is not selected. It cannot be
            told where to end, so it may look at all that is behind the window.
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
        if query.takes(event):
            newest.append(event)
    return newest
