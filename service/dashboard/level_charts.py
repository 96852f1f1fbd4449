"""Memory, disk space and requests over time, as pages show them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, NamedTuple

from markupsafe import Markup

from herdbook.core.history.levels import Column, LevelKind
from herdbook.events.archive_file import UNREADABLE
from herdbook.presentation.filtering import checked
from herdbook.projections.sentences import bytes_text, counted
from herdbook.service.dashboard.charts.colours import OTHERS_CLASS, Colours
from herdbook.service.dashboard.charts.levels import (
    OTHERS,
    Run,
    runs_of,
    series_of,
    stacked_chart,
)
from herdbook.service.dashboard.charts.timeline import Window
from herdbook.service.dashboard.page_request import PageRequest

SPANS: Final = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "all": None,
}
"""The parts of time that a chart can show."""

DEFAULT_SPAN: Final = "day"
_COLUMNS: Final = {
    LevelKind.MEMORY: 96,
    LevelKind.DISK: 96,
    LevelKind.REQUESTS: 48,
}
"""Columns of each chart; those of requests are wider, because equal ones stay apart."""

TITLES: Final = {
    LevelKind.MEMORY: "Memory",
    LevelKind.DISK: "Disk space",
    LevelKind.REQUESTS: "Requests",
}
"""The titles of the charts."""


def requests_text(count: int) -> str:
    """Return a number of requests: ``12 requests``."""
    return counted(count, "request")


TEXTS: Final[dict[LevelKind, Callable[[int], str]]] = {
    LevelKind.MEMORY: bytes_text,
    LevelKind.DISK: bytes_text,
    LevelKind.REQUESTS: requests_text,
}
"""The text of an amount."""


class Series(NamedTuple):
    """A model in the legend.

    Attributes:
        label: The model, or ``others``.
        colour: The class that colours it.
        link: Its page; empty for others.
        now: The amount at the end of the chart.
    """

    label: str
    colour: str
    link: str
    now: str


class LevelChart(NamedTuple):
    """A chart with its legend.

    Attributes:
        kind: What it shows.
        title: Its title.
        svg: The drawing; empty if there is nothing to draw.
        highest: The highest amount.
        legend: The models, the lowest first.
        table: The page with the same figures.
        missing: The archive without which it cannot be drawn; otherwise empty.
    """

    kind: LevelKind
    title: str
    svg: Markup
    highest: str
    legend: list[Series]
    table: str
    missing: str = ""


def span_of(text: str) -> str:
    """Return the name of a part of time; the default for an empty text.

    Raises:
        CallerError: There is no such part of time.
    """
    return checked("span", [text], SPANS)[0] if text else DEFAULT_SPAN


async def runs(
    page: PageRequest, kind: LevelKind, span: str, model: str | None = None
) -> list[Run]:
    """Return the amounts over time that a page shows.

    Raises:
        StoreError: The log cannot be read.
    """
    length, end = SPANS[span], page.now.at
    columns: list[Column] = await page.manager.levels(
        kind,
        begin=None if length is None else end - length,
        end=end,
        columns=_COLUMNS[kind],
        until=page.read_model.position,
        model=model,
    )
    return runs_of(columns, joined=kind is not LevelKind.REQUESTS)


async def level_charts(
    page: PageRequest, span: str, model: str | None = None
) -> list[LevelChart]:
    """Return the charts of a page: memory, disk space and requests.

    Args:
        page: The page.
        span: The part of time, by name.
        model: Only this model.

    Raises:
        StoreError: The log cannot be read.
    """
    try:
        return [await _chart(page, kind, span, model) for kind in LevelKind]
    except UNREADABLE as error:
        missing = f"{error.subject} {error.state}"
        return [
            LevelChart(kind, TITLES[kind], Markup(""), "", [], "", missing)
            for kind in LevelKind
        ]


async def _chart(
    page: PageRequest, kind: LevelKind, span: str, model: str | None
) -> LevelChart:
    found = await runs(page, kind, span, model)
    series, text = series_of(found), TEXTS[kind]
    classes = Colours(page.read_model.statuses()).classes(
        [label for label in series if label != OTHERS]
    )
    classes += [OTHERS_CLASS] * (len(series) - len(classes))
    highest = max((run.total for run in found), default=0)
    svg = Markup("")
    if highest:
        svg = stacked_chart(
            found,
            series,
            Window(found[0].begin, found[-1].end),
            page.now,
            classes=classes,
            title=TITLES[kind],
            text=text,
            end="then" if page.past else "now",
        )
    return LevelChart(
        kind=kind,
        title=TITLES[kind],
        svg=svg,
        highest=f"max {text(highest)}",
        legend=[
            _series(page, found, label, colour, kind)
            for label, colour in zip(series, classes, strict=True)
        ],
        table=page.links.to(
            "/figures", of=kind.value, span=span, model=model, node=page.node
        ),
    )


def _series(
    page: PageRequest, found: list[Run], label: str, colour: str, kind: LevelKind
) -> Series:
    amounts = [run.parts.get(label, 0) for run in found]
    amount = sum(amounts) if kind is LevelKind.REQUESTS else amounts[-1]
    return Series(
        label=label,
        colour=colour,
        link="" if label == OTHERS else page.links.model(label),
        now=""
        if label == OTHERS
        else TEXTS[kind](amount)
        if amount
        else ("none then" if page.past else "none now"),
    )
