"""Charts of an amount over time, stacked by model.

Data go in, SVG comes out. A column of the chart is a part of time; neighbours with the
same amounts are one piece, with value and time on hover.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from markupsafe import Markup

from herdbook.core.history.levels import Column
from herdbook.presentation.times import Now
from herdbook.service.dashboard.charts.markup import element, percent, picture
from herdbook.service.dashboard.charts.timeline import Window, time_grid

HEIGHT: Final = 110
"""Height of the drawing, without the times below it."""

MOST_SERIES: Final = 7
"""Models that are drawn each; the others are drawn together."""

OTHERS: Final = "others"


class Run(NamedTuple):
    """Neighbouring columns with the same amounts.

    Attributes:
        begin: When it begins.
        end: When it ends.
        at: The time of the amounts.
        parts: The amounts by label.
        total: Their sum.
        unknown: Whether the server did not answer.
    """

    begin: datetime
    end: datetime
    at: datetime
    parts: Mapping[str, int]
    total: int
    unknown: bool


def runs_of(columns: Sequence[Column], *, joined: bool = True) -> list[Run]:
    """Return the columns, with equal neighbours as one.

    Args:
        columns: The columns of a chart.
        joined: Whether to join neighbours; counts of requests are not joined.
    """
    runs: list[Run] = []
    for column in columns:
        last = runs[-1] if runs else None
        if (
            joined
            and last is not None
            and last.parts == column.parts
            and last.unknown == column.unknown
        ):
            runs[-1] = last._replace(end=column.end)
        else:
            runs.append(
                Run(
                    column.begin,
                    column.end,
                    column.at,
                    column.parts,
                    column.total,
                    column.unknown,
                )
            )
    return runs


def series_of(runs: Sequence[Run]) -> list[str]:
    """Return the labels to draw, those with the largest amounts first."""
    most: dict[str, int] = {}
    for run in runs:
        for label, amount in run.parts.items():
            most[label] = max(amount, most.get(label, 0))
    ordered = sorted(most, key=lambda label: (-most[label], label))
    if len(ordered) <= MOST_SERIES + 1:
        return ordered
    return [*ordered[:MOST_SERIES], OTHERS]


def parts_of(run: Run, series: Sequence[str]) -> list[int]:
    """Return the amounts of a run in the order of the series."""
    amounts = [run.parts.get(label, 0) for label in series]
    if series and series[-1] == OTHERS and OTHERS not in run.parts:
        amounts[-1] = run.total - sum(amounts[:-1])
    return amounts


def stacked_chart(
    runs: Sequence[Run],
    series: Sequence[str],
    window: Window,
    now: Now,
    *,
    classes: Sequence[str],
    title: str,
    text: Callable[[int], str],
    end: str = "now",
) -> Markup:
    """Return the amounts as stacked areas.

    Args:
        runs: The amounts over time.
        series: The labels to draw, the lowest first.
        window: The part of time that is shown.
        now: The time at its end, in the reader's zone.
        classes: The classes that colour the labels, in the same order.
        title: What is shown.
        text: The text of an amount.
        end: The label of the end of the window.
    """
    highest = max((run.total for run in runs), default=0)
    pieces = [
        piece
        for run in runs
        for piece in _pieces(run, series, classes, window, now, highest, text)
    ]
    return picture(
        *time_grid(window, now, HEIGHT, end),
        *pieces,
        element("line", x1=0, x2="100%", y1=HEIGHT, y2=HEIGHT, class_="ground"),
        title=f"{title} since {now.clock(window.begin)}; max {text(highest)}",
        class_="levels",
        width="100%",
        height=HEIGHT + 20,
    )


def _pieces(
    run: Run,
    series: Sequence[str],
    classes: Sequence[str],
    window: Window,
    now: Now,
    highest: int,
    text: Callable[[int], str],
) -> Iterator[Markup]:
    left, right = window.share(run.begin), window.share(run.end)
    place = {"x": percent(left), "width": percent(right - left)}
    times = f"{now.clock(run.begin)} to {now.clock(run.end)}"
    if run.unknown:
        title = f"{times}: the server did not answer"
        yield element(
            "rect",
            element("title", title),
            y=0,
            height=HEIGHT,
            class_="unknown",
            **place,
        )
    base = 0
    for number, amount in enumerate(parts_of(run, series)):
        if not amount:
            continue
        bottom, top = HEIGHT * base / highest, HEIGHT * (base + amount) / highest
        base += amount
        whole = f" ({text(run.total)} in total)" if amount != run.total else ""
        title = f"{series[number]}: {text(amount)}{whole}, {times}"
        yield element(
            "rect",
            element("title", title),
            y=HEIGHT - top,
            height=max(top - bottom, 0.5),  # visible, however small its share is
            class_=classes[number],
            **place,
        )
