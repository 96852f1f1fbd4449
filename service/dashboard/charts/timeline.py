"""A model's timeline: bars for pulls, loads and time in memory, marks for uses.

Events become spans and marks, and these become SVG. A span that has not ended extends
to the end of the window; one that began before the window is cut at its start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from markupsafe import Markup

from herdbook.core import HistoryEntry
from herdbook.events import facts
from herdbook.presentation.times import Now
from herdbook.projections.sentences import counted, duration_text
from herdbook.service.dashboard.charts.markup import element, percent, picture


class Lane(StrEnum):
    """The subject of a bar."""

    PULL = "pull"
    LOAD = "load"
    LOADED = "loaded"
    USED = "used"


class Ending(StrEnum):
    """How the activity of a bar ended."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


class Span(NamedTuple):
    """A bar: an activity from one time to another, with its ending."""

    lane: Lane
    begin: datetime
    end: datetime | None
    ending: Ending
    sentence: str


class TimelineData(NamedTuple):
    """The content of a timeline.

    Attributes:
        spans: Activities with a duration.
        uses: When the model was used.
    """

    spans: list[Span]
    uses: list[datetime]


ROW: Final = 22
"""Height of a lane; the labels next to it have the same."""

LANES: Final = tuple(Lane)
_BAR = 12
_TICKS: Final = tuple(
    timedelta(seconds=seconds)
    for seconds in (
        *(1, 5, 15, 60, 300, 900, 3600),
        *(3 * 3600, 6 * 3600, 12 * 3600, 86400),
        *(2 * 86400, 7 * 86400, 28 * 86400, 91 * 86400, 364 * 86400),
    )
)
_BEGINS: Final = {
    facts.PullStarted.__name__: Lane.PULL,
    facts.UpdateStarted.__name__: Lane.PULL,
    facts.LoadStarted.__name__: Lane.LOAD,
    facts.ReloadStarted.__name__: Lane.LOAD,
    facts.ModelLoaded.__name__: Lane.LOADED,
}
_ENDS: Final = {
    facts.PullCompleted.__name__: (Lane.PULL, Ending.DONE),
    facts.ModelUpdated.__name__: (Lane.PULL, Ending.DONE),
    facts.UpdateUnchanged.__name__: (Lane.PULL, Ending.DONE),
    facts.PullFailed.__name__: (Lane.PULL, Ending.FAILED),
    facts.UpdateFailed.__name__: (Lane.PULL, Ending.FAILED),
    facts.PullCancelled.__name__: (Lane.PULL, Ending.STOPPED),
    facts.UpdateCancelled.__name__: (Lane.PULL, Ending.STOPPED),
    facts.PullInterrupted.__name__: (Lane.PULL, Ending.STOPPED),
    facts.UpdateInterrupted.__name__: (Lane.PULL, Ending.STOPPED),
    facts.ModelLoaded.__name__: (Lane.LOAD, Ending.DONE),
    facts.LoadFailed.__name__: (Lane.LOAD, Ending.FAILED),
    facts.LoadCancelled.__name__: (Lane.LOAD, Ending.STOPPED),
    facts.LoadInterrupted.__name__: (Lane.LOAD, Ending.STOPPED),
    facts.ReloadCompleted.__name__: (Lane.LOAD, Ending.DONE),
    facts.ReloadUnchanged.__name__: (Lane.LOAD, Ending.DONE),
    facts.ReloadFailed.__name__: (Lane.LOAD, Ending.FAILED),
    facts.ReloadCancelled.__name__: (Lane.LOAD, Ending.STOPPED),
    facts.ReloadInterrupted.__name__: (Lane.LOAD, Ending.STOPPED),
    facts.ModelUnloaded.__name__: (Lane.LOADED, Ending.DONE),
}
_LEAVES = (facts.ModelDeleted.__name__, facts.ModelVanished.__name__)


def timeline_data(events: Iterable[HistoryEntry]) -> TimelineData:
    """Return the content of a timeline from a model's events, oldest first."""
    spans: list[Span] = []
    open_: dict[Lane, datetime] = {}
    uses: list[datetime] = []
    for event in events:
        kind, at = event.type, event.occurred_at
        if kind == facts.ModelUsed.__name__:
            uses.append(at)
            # It was in memory, even if another program loaded it.
            open_.setdefault(Lane.LOADED, at)
        ended = _ENDS.get(kind)
        endings = [ended] if ended else []
        if kind in _LEAVES:
            endings = [(lane, Ending.DONE) for lane in open_]
        for lane, ending in endings:
            begin = open_.pop(lane, None)
            if begin is not None:
                spans.append(Span(lane, begin, at, ending, event.sentence))
        begins = _BEGINS.get(kind)
        if begins is not None:
            open_.setdefault(begins, at)
    spans += [Span(lane, at, None, Ending.OPEN, "") for lane, at in open_.items()]
    return TimelineData(spans, uses)


class Window(NamedTuple):
    """The period that is shown."""

    begin: datetime
    end: datetime

    def share(self, at: datetime) -> float:
        """Return the place of a time in it, 0 to 1 if inside."""
        return (at - self.begin) / self.length

    @property
    def length(self) -> timedelta:
        """Its length; at least a second."""
        return max(self.end - self.begin, timedelta(seconds=1))


def window_of(
    events: Sequence[HistoryEntry], now: datetime, span: timedelta | None
) -> Window:
    """Return the period to show: a given length up to now, or everything."""
    first = events[0].occurred_at if events else now
    if span is not None:
        return Window(max(now - span, min(first, now - timedelta(seconds=30))), now)
    return Window(min(first, now - timedelta(seconds=30)), now)


def timeline(
    data: TimelineData, window: Window, now: Now, *, end: str = "now"
) -> Markup:
    """Return the bars of a model, with the times below them.

    Args:
        data: The content.
        window: The period to show.
        now: The time at its end, in the reader's zone.
        end: The label of that time.
    """
    height = ROW * len(LANES)
    tracks = [
        element("rect", x=0, y=_top(lane), width="100%", height=_BAR, class_="track")
        for lane in LANES
    ]
    shown = [span for span in data.spans if _end(span, window) >= window.begin]
    uses = [at for at in data.uses if at >= window.begin]
    return picture(
        *time_grid(window, now, height, end),
        *tracks,
        *(_bar(span, window, now) for span in shown),
        *_marks(uses, window, now),
        title=_summary(shown, uses, window, now),
        class_="timeline",
        width="100%",
        height=height + 20,
    )


def _summary(
    spans: Sequence[Span], uses: Sequence[datetime], window: Window, now: Now
) -> str:
    """Return the bars as text."""
    counts = {lane: sum(span.lane is lane for span in spans) for lane in LANES}
    return (
        f"Since {now.clock(window.begin)}: "
        f"pulled {counted(counts[Lane.PULL], 'time')}, "
        f"loaded {counted(counts[Lane.LOAD], 'time')}, "
        f"in memory {counted(counts[Lane.LOADED], 'time')}, "
        f"used {counted(len(uses), 'time')}"
    )


def _top(lane: Lane) -> float:
    return LANES.index(lane) * ROW + (ROW - _BAR) / 2


def _end(span: Span, window: Window) -> datetime:
    return span.end or window.end


def _bar(span: Span, window: Window, now: Now) -> Markup:
    begin = max(window.share(span.begin), 0.0)
    end = min(window.share(_end(span, window)), 1.0)
    lasted = (_end(span, window) - span.begin).total_seconds()
    started = "in memory from" if span.lane is Lane.LOADED else f"{span.lane} started"
    text = (
        f"{started} {now.clock(span.begin)}, for {duration_text(max(lasted, 0))}"
        f"{' so far' if span.end is None else ''}"
        f"{f'; {span.sentence}' if span.sentence else ''}"
    )
    bar = element(
        "rect",
        element("title", text),
        x=percent(begin),
        y=_top(span.lane),
        width=percent(end - begin),
        height=_BAR,
        class_=f"bar {span.lane} {span.ending}",
    )
    if span.ending not in (Ending.FAILED, Ending.STOPPED):
        return bar
    sign = "▲" if span.ending is Ending.FAILED else "×"  # noqa: RUF001 - a sign
    near_end = end > 0.97
    return bar + element(
        "text",
        sign,
        x=percent(end),
        dx=-3 if near_end else 3,
        y=_top(span.lane) + _BAR - 2,
        text_anchor="end" if near_end else "start",
        class_=f"sign {span.ending}",
    )


def _marks(uses: Sequence[datetime], window: Window, now: Now) -> list[Markup]:
    """Return a mark for each use; overlapping ones are merged."""
    places: dict[int, list[datetime]] = {}
    for at in uses:
        places.setdefault(round(window.share(at) * 400), []).append(at)
    top = _top(Lane.USED)
    return [
        element(
            "line",
            element("title", f"{counted(len(ats), 'use')}, last {now.clock(ats[-1])}"),
            x1=percent(place / 400),
            x2=percent(place / 400),
            y1=top,
            y2=top + _BAR,
            class_="use",
        )
        for place, ats in places.items()
    ]


def time_grid(window: Window, now: Now, height: int, end: str) -> list[Markup]:
    """Return lines at round times, with the times below them."""
    step = next((step for step in _TICKS if window.length / step <= 4), _TICKS[-1])
    parts: list[Markup] = []
    local = window.end.astimezone(now.zone)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    at = midnight + step * ((local - midnight) // step)
    # The texts of the first and the last tick would overlap those of the ends.
    while (share := window.share(at)) > 0.08:
        if share < 0.93:
            parts += _tick(share, _tick_text(at, step, now), height)
        at -= step
    ends = (
        element("text", end, x="100%", y=height + 15, text_anchor="end"),
        element("text", _first_text(window, now), x=0, y=height + 15),
    )
    # At most five ticks, each a line and a text; with fewer than two, also the start.
    return [*parts[: 2 * 5], *(ends if len(parts) <= 2 else ends[:1])]


def _tick(share: float, text: str, height: int) -> tuple[Markup, Markup]:
    place = percent(share)
    return (
        element("line", x1=place, x2=place, y1=0, y2=height, class_="tick"),
        element("text", text, x=place, y=height + 15, text_anchor="middle"),
    )


def _first_text(window: Window, now: Now) -> str:
    return now.clock(window.begin, seconds=window.length < timedelta(minutes=5))


def _tick_text(at: datetime, step: timedelta, now: Now) -> str:
    if step >= timedelta(days=1):
        return f"{at.astimezone(now.zone):%d %b}"
    return now.clock(at, seconds=step < timedelta(minutes=1)).replace(
        "yesterday ", "yest. "
    )
