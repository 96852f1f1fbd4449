"""Events as lists show them: a sentence and the actor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from herdbook.core import HistoryEntry, HistoryFilter, ModelManager, RecordedEvent
from herdbook.presentation import wording
from herdbook.projections.history import HistoryView


class EventEntry(NamedTuple):
    """An event in a list."""

    event: HistoryEntry | RecordedEvent
    sentence: str
    who: str


def entries_of(events: Iterable[RecordedEvent]) -> list[HistoryEntry]:
    """Return events as entries of the history."""
    view = HistoryView()
    for event in events:
        view.apply(event)
    return view.entries


def event_entries(events: Iterable[HistoryEntry]) -> list[EventEntry]:
    """Return entries of the history for a list."""
    return [EventEntry(one, one.sentence, wording.who_text(one)) for one in events]


def entries_with_events(events: Iterable[RecordedEvent]) -> list[EventEntry]:
    """Return events for a list, with their envelopes."""
    events = list(events)
    entries = entries_of(events)
    return [
        EventEntry(event, entry.sentence, wording.who_text(entry))
        for event, entry in zip(events, entries, strict=True)
    ]


async def newest_of(manager: ModelManager, stream: str, *types: str) -> int | None:
    """Return the position of the newest event of a stream that just had one.

    Args:
        manager: A manager of the log.
        stream: The stream.
        types: Only events of these types; none for all.
    """
    # Several: the names of other streams may start with the name of this one.
    newest = await manager.read_log(
        limit=20,
        newest_first=True,
        stream_prefix=stream,
        chosen=HistoryFilter(types=frozenset(types) or None),
    )
    found = (event.position for event in newest.events if event.stream == stream)
    return next(found, None)
