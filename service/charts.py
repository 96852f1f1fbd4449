"""The small charts: memory by runner, and how much the log has of which time.

Data go in, SVG comes out. Widths are shares of the place that the page gives, so
that nothing is scaled and text keeps its size; looks are left to the stylesheet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from herdbook.core import ModelStatus, Runner
from herdbook.presentation.times import Now
from herdbook.presentation.wording import counted, share_text
from herdbook.projections.sentences import bytes_text, duration_text
from herdbook.service.markup import element, percent, picture


def runners_of(statuses: Iterable[ModelStatus]) -> list[Runner]:
    """Return the runners of some models, each once, the largest first."""
    found = {s.runner.digest: s.runner for s in statuses if s.runner is not None}
    return sorted(found.values(), key=lambda runner: (-runner.size_bytes, runner.name))


def memory_bar(runners: Sequence[Runner]) -> Markup:
    """Return the memory in use: a piece for each runner, the GPU's part filled."""
    total = sum(runner.size_bytes for runner in runners)
    if not total:
        return Markup("")
    pieces, begin = [], 0
    for runner in runners:
        pieces.append(_runner_piece(runner, begin, total))
        begin += runner.size_bytes
    told = "; ".join(_told(runner) for runner in runners)
    return picture(
        *pieces,
        title=f"{bytes_text(total)} of memory in use: {told}",
        class_="memory",
        width="100%",
        height=14,
    )


def _told(runner: Runner) -> str:
    gpu = share_text(runner.size_vram_bytes, runner.size_bytes)
    where = f"{gpu} on the GPU" if runner.size_vram_bytes else "on the CPU"
    return f"{runner.name} {bytes_text(runner.size_bytes)}, {where}"


def _runner_piece(runner: Runner, begin: int, total: int) -> Markup:
    whole = element(
        "rect",
        element("title", _told(runner)),
        x=percent(begin / total),
        width=percent(runner.size_bytes / total),
        y=0,
        height=14,
        class_="held",
    )
    gpu = element(
        "rect",
        x=percent(begin / total),
        width=percent(runner.size_vram_bytes / total),
        y=0,
        height=14,
        class_="gpu",
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
    """Return how far a download is."""
    share = completed / total if total else 0.0
    return picture(
        element("rect", x=0, y=0, width="100%", height=10, class_="track"),
        element("rect", x=0, y=0, width=percent(share), height=10, class_="done"),
        title=share_text(completed, total),
        class_="progress",
        width="100%",
        height=10,
    )


class Sample(NamedTuple):
    """When an event was recorded that stands for those around it."""

    position: int
    at: datetime


def density_strip(samples: Sequence[Sample], *, chosen: int, now: Now) -> Markup:
    """Return how close together in time the events of the log are.

    Args:
        samples: Some of the events, by position, the first and the newest among them.
        chosen: The position that the page is about.
        now: The present.
    """
    if len(samples) < 2:
        return Markup("")
    first, last = samples[0].position, samples[-1].position
    bars = [
        _bar(one, other, first, last, now)
        for one, other in pairwise(samples)
        if other.position > one.position
    ]
    at = percent((chosen - first) / max(last - first, 1))
    mark = element("line", x1=at, x2=at, y1=0, y2=28, class_="chosen")
    since = now.clock(samples[0].at, seconds=False)
    return picture(
        *bars,
        mark,
        title=f"How close together the events #{first} to #{last} are, since {since}",
        class_="density",
        width="100%",
        height=28,
    )


def _bar(one: Sample, other: Sample, first: int, last: int, now: Now) -> Markup:
    count = other.position - one.position
    seconds = max((other.at - one.at).total_seconds(), 0.001)
    height = 28 * _busy(count / seconds)
    told = (
        f"{counted(count, 'event')} in {duration_text(seconds)}, "
        f"from {now.clock(one.at)} (#{one.position})"
    )
    return element(
        "rect",
        element("title", told),
        x=percent((one.position - first) / (last - first)),
        width=percent(count / (last - first)),
        y=28 - height,
        height=height,
    )


def _busy(per_second: float) -> float:
    """Return how high a rate stands: from one event in ten days to ten a second."""
    low, high = math.log10(1 / 864_000), math.log10(10)
    share = (math.log10(per_second) - low) / (high - low)
    return min(max(share, 0.06), 1.0)
