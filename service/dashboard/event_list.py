"""Events as lists tell them: a sentence, and who asked or who saw it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from herdbook.core import HistoryEntry, RecordedEvent
from herdbook.presentation import wording
from herdbook.projections.history import HistoryView


class EventEntry(NamedTuple):
    """An event in a list."""

    event: HistoryEntry | RecordedEvent
    sentence: str
    who: str


def entries_of(events: Iterable[RecordedEvent]) -> list[HistoryEntry]:
    """Return events as the audit trail has them."""
    view = HistoryView()
    for event in events:
        view.apply(event)
    return view.entries


def told(events: Iterable[HistoryEntry]) -> list[EventEntry]:
    """Return entries of the audit trail as lists tell them."""
    return [EventEntry(one, one.sentence, wording.who_text(one)) for one in events]


def told_events(events: Iterable[RecordedEvent]) -> list[EventEntry]:
    """Return events as lists tell them; their envelope is at hand."""
    events = list(events)
    entries = entries_of(events)
    return [
        EventEntry(event, entry.sentence, wording.who_text(entry))
        for event, entry in zip(events, entries, strict=True)
    ]
