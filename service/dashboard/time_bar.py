"""The time bar at the bottom of every page: the past as an axis of time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from markupsafe import Markup

from herdbook.presentation.times import Now
from herdbook.service.dashboard.charts.memory import Sample, density_strip
from herdbook.service.dashboard.charts.sampling import Samples
from herdbook.service.dashboard.links import joined_link
from herdbook.service.dashboard.page_request import (
    PageRequest,
    query_of,
    raw_path,
    time_text,
)

_SAMPLES = "samples"


class Bar(NamedTuple):
    """The time bar at the bottom of a page.

    Attributes:
        head: The newest position.
        position: The position that the page shows.
        action: The path of the page.
        kept: The rest of its query.
        strip: The density of events over the log.
        samples: Positions with their times, for the slider's script.
        first: Begin of the slider, milliseconds since 1970: before the first event.
        last: End of the slider: now.
        shown: The time that the page shows.
        earlier: The same page one event earlier; empty at the beginning.
        later: The same page one event later; empty for now.
        begin: The time of the first event, as text.
        label: The time and the position that the page shows.
        local: The same for a date-and-time field; empty for now.
    """

    head: int
    position: int
    action: str
    kept: list[tuple[str, str]]
    strip: Markup
    samples: str
    first: int
    last: int
    shown: int
    earlier: str
    later: str
    begin: str
    label: str
    local: str


async def time_bar(visit: PageRequest) -> Bar:
    """Return the time bar of a page."""
    state = visit.request.app.state
    samples = state.setdefault(_SAMPLES, Samples())
    read = await samples.read(visit.service.manager, visit.head)
    position = visit.read_model.position
    last = _milliseconds(visit.present.at)
    first = _milliseconds(read[0].at) - 1 if read else last
    shown = last
    if visit.past:
        shown = _milliseconds(visit.at) if visit.at else first
    return Bar(
        head=visit.head,
        position=position,
        action=raw_path(visit.request),
        kept=query_of(visit),
        strip=density_strip(
            read,
            chosen=datetime.fromtimestamp(shown / 1000, UTC),
            now=visit.present,
        ),
        samples=_for_the_script(read),
        first=first,
        last=last,
        shown=shown,
        earlier=_at(visit, position - 1),
        later=_at(visit, position + 1),
        begin=visit.present.clock(read[0].at, seconds=False) if read else "",
        label=_label(visit),
        local=_local(visit.at, visit.present) if visit.at else "",
    )


def _label(visit: PageRequest) -> str:
    """Return ``now · event 12``, ``as of 21 Nov, 09:03:10 · event 3 of 12``."""
    position, head = visit.read_model.position, visit.head
    if not position:
        return time_text(visit)
    event = f"event {position:,} of {head:,}" if visit.past else f"event {head:,}"
    return f"{time_text(visit)} · {event}"


def _at(visit: PageRequest, position: int) -> str:
    """Return the same page at an event; empty if there is no such event."""
    if position < 0 or (position > visit.head and not visit.past):
        return ""
    as_of = str(position) if position < visit.head else None
    return joined_link(
        raw_path(visit.request), {**dict(query_of(visit)), "as_of": as_of}
    )


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _local(at: datetime, now: Now) -> str:
    """Return a time for a date-and-time field, in the zone of the reader."""
    return f"{at.astimezone(now.zone):%Y-%m-%dT%H:%M:%S}"


def _for_the_script(samples: list[Sample]) -> str:
    data = [[one.position, _milliseconds(one.at)] for one in samples]
    return msgspec.json.encode(data).decode()
