"""The events of one model, as far as a page needs them."""

from __future__ import annotations

from typing import Final, NamedTuple

from herdbook.core import HistoryFilter, ModelManager, ModelStatistics, RecordedEvent
from herdbook.events.facts import (
    FACTS,
    ConfigurationChanged,
    PullProgressed,
    UpdateProgressed,
)
from herdbook.projections.statistics import StatisticsView

_PROGRESS: Final = (PullProgressed, UpdateProgressed)
TOLD: Final = frozenset(
    fact.__name__ for fact in FACTS if not issubclass(fact, _PROGRESS)
)
"""The types of all events but progress: what ends a pull says how far it came."""

DRAWN_AT_MOST: Final = 2_000
"""Events that a timeline is drawn of."""

_PAGES = 5


class Trail(NamedTuple):
    """The newest events of a model, the oldest of them first.

    Attributes:
        events: The events, without progress.
        whole: Whether these are all there are.
    """

    events: list[RecordedEvent]
    whole: bool


async def trail(herd: ModelManager, stream: str, *, until: int) -> Trail:
    """Return a model's newest events up to a position."""
    found: list[RecordedEvent] = []
    before: int | None = until + 1
    for _ in range(_PAGES):
        if before is None or len(found) >= DRAWN_AT_MOST:
            break
        page = await newest(herd, stream, before=before, limit=DRAWN_AT_MOST)
        found += page.events
        before = page.older
    return Trail(found[::-1], before is None)


class Page(NamedTuple):
    """Some events of a model, the newest first.

    Attributes:
        events: The events.
        older: The ``before`` of the next page; None where there is nothing more.
    """

    events: list[RecordedEvent]
    older: int | None


async def newest(herd: ModelManager, stream: str, *, before: int, limit: int) -> Page:
    """Return the newest events of a stream before a position, without progress."""
    page = await herd.read_log(
        before=before,
        limit=limit,
        newest_first=True,
        stream_prefix=stream,
        chosen=HistoryFilter(types=TOLD),
    )
    own = [event for event in page.events if event.stream == stream]
    return Page(own, page.next)


def counted(events: Trail) -> ModelStatistics | None:
    """Return the figures of a model; None where its beginning is too far back."""
    if not events.whole:
        return None
    view = StatisticsView()
    for event in events.events:
        view.apply(event)
    streams = {event.stream for event in events.events}
    return view.get(streams.pop()) if streams else ModelStatistics()


async def configured(
    herd: ModelManager, name: str, *, until: int
) -> list[RecordedEvent]:
    """Return the changes of a model's settings up to a position, the newest first."""
    types = frozenset({ConfigurationChanged.__name__})
    entries = await herd.history(name, HistoryFilter(types=types))
    positions = [entry.position for entry in reversed(entries)]
    return [await event_at(herd, one) for one in positions if one <= until]


async def event_at(herd: ModelManager, position: int) -> RecordedEvent:
    """Return the event at a position that the log has."""
    page = await herd.read_log(
        after=position - 1, before=position + 1, limit=1, newest_first=True
    )
    return page.events[0]
