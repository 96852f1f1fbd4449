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

SCANNED_AT_MOST: Final = 20_000
"""Events that one page looks at; that takes about 0.1 s."""

FIRST_WINDOW: Final = 1000
"""Events of the first window backwards: what the store reads at once."""

WIDER: Final = 4
"""By how much each window backwards is wider than the one before."""

SKIPPED_FOR_ONE: Final = 20
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


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a page is to hold.

    Attributes:
        after: Only events behind this position.
        before: Only events before this position; None for all there are.
        limit: At most this many events.
        stream_prefix: Only streams whose names begin with it.
        chosen: Which events; its own limit does not count.
        scanned_at_most: Events to look at, whether they are wanted or not.
        first_window: Events to look at first, where the newest come first.
    """

    after: int = 0
    before: int | None = None
    limit: int = 100
    stream_prefix: str = ""
    chosen: HistoryFilter = HistoryFilter()
    scanned_at_most: int = SCANNED_AT_MOST
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


async def oldest_first(store: EventStore, wanted: Wanted) -> LogPage:
    """Return the first page of what is wanted, in order of position."""
    found: list[RecordedEvent] = []
    scanned, position = 0, wanted.after
    recorded = store.read_all(
        after=wanted.after,
        limit=wanted.scanned_at_most + 1,
        stream_prefix=wanted.stream_prefix,
        types=wanted.chosen.types,
    )
    async for event in recorded:
        if wanted.before is not None and event.position >= wanted.before:
            break
        if len(found) == wanted.limit or scanned == wanted.scanned_at_most:
            return LogPage(events=tuple(found), next=position)
        scanned, position = scanned + 1, event.position
        if wanted.takes(event):
            found.append(event)
    return LogPage(events=tuple(found), next=None)


async def newest_first(store: EventStore, wanted: Wanted) -> LogPage:
    """Return the first page of what is wanted, the newest event first."""
    head = (await store.head()).position
    high = head if wanted.before is None else min(wanted.before - 1, head)
    lowest = max(wanted.after, high - wanted.scanned_at_most)
    found: list[RecordedEvent] = []
    width = max(wanted.limit, wanted.first_window)
    while high > lowest and len(found) < wanted.limit:
        low = max(high - width, lowest)
        room = wanted.limit - len(found)
        tail = head - low <= SKIPPED_FOR_ONE * (high - low)
        found += reversed(
            await _newest_of(store, wanted, (low, high), room, filtered=tail)
        )
        high, width = low, width * WIDER
    goes_on = found[-1].position if len(found) == wanted.limit else high + 1
    return LogPage(
        events=tuple(found), next=goes_on if goes_on > wanted.after + 1 else None
    )


async def _newest_of(
    store: EventStore,
    wanted: Wanted,
    window: tuple[int, int],
    room: int,
    *,
    filtered: bool,
) -> deque[RecordedEvent]:
    """Return the newest events of a window that are wanted, the oldest first.

    Args:
        store: The log.
        wanted: What is wanted.
        window: The position that it begins behind, and its last one.
        room: At most this many.
        filtered: Whether the store is to leave out what is not wanted. It cannot be
            told where to end, so it may look at all that is behind the window.
    """
    low, high = window
    newest: deque[RecordedEvent] = deque(maxlen=room)
    recorded = store.read_all(
        after=low,
        limit=high - low,
        stream_prefix=wanted.stream_prefix if filtered else "",
        types=wanted.chosen.types if filtered else None,
    )
    async for event in recorded:
        if event.position > high:
            break
        if wanted.takes(event):
            newest.append(event)
    return newest
