"""The events of one model, as far as a page needs them.

A short stream is read completely. Of a long one the newest events are read, from the
end of the log, so that a page takes a bounded time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from herdbook.core import (
    HistoryEntry,
    HistoryFilter,
    ModelManager,
    RecordedEvent,
)
from herdbook.events.facts import (
    FACTS,
    ConfigurationChanged,
    PullProgressed,
    UpdateProgressed,
)
from herdbook.service.dashboard.event_list import entries_of

_PROGRESS: Final = (PullProgressed, UpdateProgressed)
SHOWN_TYPES: Final = frozenset(
    fact.__name__ for fact in FACTS if not issubclass(fact, _PROGRESS)
)
"""The types of all events except progress; the end of a pull has its progress."""

SHORT: Final = 5_000
"""Maximum events of a stream that is read completely."""

DRAWN_AT_MOST: Final = 2_000
"""Maximum events in the timeline of a long stream."""


class NewestEvents(NamedTuple):
    """The newest events of a model, oldest first.

    Attributes:
        entries: The events, without progress.
        whole: Whether these are all events.
        missing: The archive with the others, if it is missing or damaged.
    """

    entries: list[HistoryEntry]
    whole: bool
    missing: str = ""


async def newest_events(
    manager: ModelManager, name: str, stream: str, *, until: int
) -> NewestEvents:
    """Return a model's newest events up to a position."""
    if (await manager.get_status(name)).version <= SHORT:
        found = await manager.available_history(name, HistoryFilter(types=SHOWN_TYPES))
        entries = [one for one in found.entries if one.position <= until]
        return NewestEvents(entries, whole=not found.missing, missing=found.missing)
    page = await _newest(manager, stream, before=until + 1, limit=DRAWN_AT_MOST)
    return NewestEvents(page.entries[::-1], whole=page.older is None)


class Page(NamedTuple):
    """Some events of a model, newest first.

    Attributes:
        entries: The events.
        older: The ``before`` of the next page; None on the last page.
        missing: The archive with earlier events, if it is missing or damaged.
    """

    entries: list[HistoryEntry]
    older: int | None
    missing: str = ""


async def page(
    manager: ModelManager, stream: str, known: NewestEvents, *, before: int, limit: int
) -> Page:
    """Return the newest events before a position."""
    if not known.whole and not known.missing:
        return await _newest(manager, stream, before=before, limit=limit)
    earlier = [one for one in known.entries if one.position < before]
    shown = earlier[-limit:][::-1]
    older = shown[-1].position if len(earlier) > len(shown) else None
    return Page(shown, older, known.missing)


async def _newest(
    manager: ModelManager, stream: str, *, before: int, limit: int
) -> Page:
    found = await manager.read_log(
        before=before,
        limit=limit,
        newest_first=True,
        stream_prefix=stream,
        chosen=HistoryFilter(types=SHOWN_TYPES),
    )
    own = [event for event in found.events if event.stream == stream]
    return Page(entries_of(own), found.next, found.missing)


async def setters(
    manager: ModelManager, known: NewestEvents, names: Sequence[str]
) -> dict[str, RecordedEvent]:
    """Return, by setting, the event that set its present value."""
    found: dict[str, RecordedEvent] = {}
    for entry in reversed(known.entries):
        if len(found) == len(names):
            break
        if entry.type == ConfigurationChanged.__name__:
            event = await event_at(manager, entry.position)
            if not isinstance(event.data, ConfigurationChanged):
                continue  # its data cannot be read
            for name in event.data.set:
                if name in names:
                    found.setdefault(name, event)
    return found


async def configured(
    manager: ModelManager, name: str, *, after_version: int
) -> list[RecordedEvent]:
    """Return the changes of a model's settings after a version, newest first."""
    types = frozenset({ConfigurationChanged.__name__})
    found = await manager.available_history(name, HistoryFilter(types=types))
    return [
        await event_at(manager, entry.position)
        for entry in reversed(found.entries)
        if entry.version > after_version
    ]


async def event_at(manager: ModelManager, position: int) -> RecordedEvent:
    """Return the event at a position of the log."""
    found = await manager.read_log(
        after=position - 1, before=position + 1, limit=1, newest_first=True
    )
    return found.events[0]
