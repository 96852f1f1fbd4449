"""The chart of use over time: a bar for each hour, day or month.

Data go in, SVG comes out. The lower part of a bar, the failed requests, is marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from markupsafe import Markup

from herdbook.presentation.times import Now
from herdbook.service.dashboard.charts.markup import element, percent, picture

HEIGHT: Final = 96
"""Height of the chart."""


class Bar(NamedTuple):
    """The use in one hour, day or month.

    Attributes:
        begin: When it begins.
        end: When it ends.
        whole: The number that is drawn.
        marked: The part of it that is marked.
        text: The bar as text.
    """

    begin: datetime
    end: datetime
    whole: int
    marked: int
    text: str


def span_of(name: str) -> tuple[datetime, datetime]:
    """Return begin and end of a period from its name.

    Args:
        name: ``2026-11-27T14Z``, ``2026-11-27`` or ``2026-11``.
    """
    if "T" in name:
        text, length = f"{name[:13]}:00", timedelta(hours=1)
    elif name.count("-") == 2:
        text, length = name, timedelta(days=1)
    else:
        text, length = f"{name}-01", timedelta(days=32)
    begin = datetime.fromisoformat(text).replace(tzinfo=UTC)
    try:
        end = begin + length
    except OverflowError:  # a damaged time, at the end of the year 9999
        return begin, datetime.max.replace(tzinfo=UTC)
    return begin, end.replace(day=1) if length.days > 1 else end


def usage_chart(
    bars: Sequence[Bar], *, begin: datetime, end: datetime, title: str, now: Now
) -> Markup:
    """Return the bars of a part of time.

    Args:
        bars: The bars in order of time.
        begin: When the chart begins.
        end: When it ends.
        title: What the bars show.
        now: The present, for the times at the axis.
    """
    highest = max((bar.whole for bar in bars), default=0)
    length = (end - begin).total_seconds()
    if not highest or length <= 0:
        return Markup("")
    pieces = [_piece(bar, begin, length, highest) for bar in bars if bar.whole]
    ground = element("line", x1=0, x2="100%", y1=HEIGHT, y2=HEIGHT, class_="ground")
    since = now.clock(begin, seconds=False)
    return picture(
        *pieces,
        ground,
        title=f"{title} since {since}; max {highest:,} per bar",
        class_="usage",
        width="100%",
        height=HEIGHT,
    )


def _piece(bar: Bar, begin: datetime, length: float, highest: int) -> Markup:
    left = max((bar.begin - begin).total_seconds() / length, 0.0)
    right = min((bar.end - begin).total_seconds() / length, 1.0)
    height = max(HEIGHT * bar.whole / highest, 1.0)
    marked = height * bar.marked / bar.whole
    place = {"x": percent(left), "width": percent(max(right - left, 0.002))}
    whole = element(
        "rect",
        element("title", bar.text),
        y=HEIGHT - height,
        height=height,
        class_="bar",
        **place,
    )
    if not marked:
        return whole
    part = element(
        "rect",
        element("title", bar.text),
        y=HEIGHT - marked,
        height=marked,
        class_="failed",
        **place,
    )
    return whole + part
