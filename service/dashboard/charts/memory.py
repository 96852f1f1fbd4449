"""Small charts: memory by runner, progress, and the density of events over time.

Data go in, SVG comes out. Widths are percentages of the space on the page, so that
text keeps its size; the style sheet defines colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final, NamedTuple

from markupsafe import Markup

from herdbook.core import ModelStatus, Runner
from herdbook.presentation.facts import where_text
from herdbook.presentation.times import Now
from herdbook.presentation.wording import share_text
from herdbook.projections.sentences import bytes_text, counted, duration_text
from herdbook.service.dashboard.charts.colours import Colours
from herdbook.service.dashboard.charts.markup import element, percent, picture


def runners_of(statuses: Iterable[ModelStatus]) -> list[Runner]:
    """Return the distinct runners of some models, largest first."""
    found = {s.runner.digest: s.runner for s in statuses if s.runner is not None}
    return sorted(found.values(), key=lambda runner: (-runner.size_bytes, runner.name))


def memory_bar(runners: Sequence[Runner], colours: Colours) -> Markup:
    """Return the memory in use: a segment for each runner, with the GPU part stronger.

    Servers do not report their total memory, so segments are shares of the memory in
    use. A single segment would look as if memory were full, so there is none.
    """
    total = sum(runner.size_bytes for runner in runners)
    if not total or len(runners) < 2:
        return Markup("")
    pieces, begin = [], 0
    for runner, colour in zip(runners, _classes(runners, colours), strict=True):
        pieces.append(_runner_piece(runner, begin, total, colour))
        begin += runner.size_bytes
    text = "; ".join(_runner_text(runner) for runner in runners)
    return picture(
        *pieces,
        title=f"{bytes_text(total)} of memory in use: {text}",
        class_="memory",
        width="100%",
        height=14,
    )


def memory_legend(runners: Sequence[Runner], colours: Colours) -> Markup:
    """Return which piece of the memory bar is which model."""
    if len(runners) < 2:
        return Markup("")
    return element(
        "ul",
        *(
            element(
                "li",
                element("span", "", class_=f"swatch {colour}"),
                " ",
                element("span", runner.name, class_="name"),
                f" {bytes_text(runner.size_bytes)}, {where_text(runner)}",
            )
            for runner, colour in zip(runners, _classes(runners, colours), strict=True)
        ),
        class_="legend",
    )


def _classes(runners: Sequence[Runner], colours: Colours) -> list[str]:
    return colours.classes([runner.name for runner in runners])


def _runner_text(runner: Runner) -> str:
    return f"{runner.name} {bytes_text(runner.size_bytes)}, {where_text(runner)}"


def _runner_piece(runner: Runner, begin: int, total: int, colour: str) -> Markup:
    whole = element(
        "rect",
        element("title", _runner_text(runner)),
        x=percent(begin / total),
        width=percent(runner.size_bytes / total),
        y=0,
        height=14,
        class_=f"held {colour}",
    )
    gpu = element(
        "rect",
        x=percent(begin / total),
        width=percent(runner.size_vram_bytes / total),
        y=0,
        height=14,
        class_=f"gpu {colour}",
    )
    edge = element(
        "line",
        x1=percent(begin / total),
        x2=percent(begin / total),
        y1=0,
        y2=14,
        class_="edge",
    )
    return whole + gpu + (edge if begin else Markup(""))


def progress_bar(completed: int, total: int) -> Markup:
    """Return the progress of a download."""
    share = completed / total if total else 0.0
    return picture(
        element("rect", x=0, y=0, width="100%", height=10, class_="track"),
        element("rect", x=0, y=0, width=percent(share), height=10, class_="done"),
        title=share_text(completed, total),
        class_="progress",
        width="100%",
        height=10,
    )


STRIP: Final = 28
"""Height of the strip."""


_NARROWEST: Final = 0.002
"""The least width of a bar: events that come at once can be seen."""


class Sample(NamedTuple):
    """The time of an event that represents the events around it."""

    position: int
    at: datetime


def density_strip(samples: Sequence[Sample], *, chosen: datetime, now: Now) -> Markup:
    """Return how many events the log has over time.

    Args:
        samples: Some of the events by position, including the first and the newest.
        chosen: The time that the page shows.
        now: The current time, at the right end.
    """
    if len(samples) < 2:
        return Markup("")
    axis = Axis(samples[0].at, now.at)
    pairs = [pair for pair in pairwise(samples) if pair[1].position > pair[0].position]
    rates = [_rate(one, other) for one, other in pairs]
    bars = [
        _bar(pair, axis, _height(rate, rates), now)
        for pair, rate in zip(pairs, rates, strict=True)
    ]
    at = percent(axis.share(chosen))
    mark = element("line", x1=at, x2=at, y1=0, y2=STRIP, class_="chosen")
    since = now.clock(samples[0].at, seconds=False)
    return picture(
        *bars,
        mark,
        title=f"Events #1 to #{samples[-1].position:,} over time, since {since}",
        class_="density",
        width="100%",
        height=STRIP,
    )


class Axis(NamedTuple):
    """The time from the first event to the present."""

    begin: datetime
    end: datetime

    def share(self, at: datetime) -> float:
        """Return where a time is, 0 to 1."""
        length = max((self.end - self.begin).total_seconds(), 0.001)
        return min(max((at - self.begin).total_seconds() / length, 0.0), 1.0)


def _rate(one: Sample, other: Sample) -> float:
    """Return the events per second, as a power of ten."""
    seconds = max((other.at - one.at).total_seconds(), 0.001)
    return math.log10((other.position - one.position) / seconds)


def _height(rate: float, rates: Sequence[float]) -> float:
    """Return the height of a rate among those of the log, 0 to 1.

    The lowest rate has a bar too: it is not a time without events.
    """
    low, high = min(rates), max(rates)
    return 0.15 + 0.85 * (rate - low) / (high - low) if high > low else 0.5


def _bar(pair: tuple[Sample, Sample], axis: Axis, share: float, now: Now) -> Markup:
    one, other = pair
    count = other.position - one.position
    seconds = (other.at - one.at).total_seconds()
    within = f" in {duration_text(seconds)}, from" if seconds >= 1 else ","
    text = f"{counted(count, 'event')}{within} {now.clock(one.at)} (#{one.position})"
    left = axis.share(one.at)
    return element(
        "rect",
        element("title", text),
        x=percent(left),
        width=percent(max(axis.share(other.at) - left, _NARROWEST)),
        y=STRIP * (1 - share),
        height=STRIP * share,
    )
