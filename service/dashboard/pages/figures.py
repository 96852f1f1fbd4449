"""The figures of a chart over time, as a table."""

from __future__ import annotations

from typing import NamedTuple

from litestar import Response, get
from litestar.params import FromQuery

from herdbook.core.errors.suggestions import did_you_mean
from herdbook.core.history.levels import LevelKind
from herdbook.presentation.wording import NOTHING
from herdbook.service.api.parameters import name_of
from herdbook.service.dashboard.charts.levels import parts_of, series_of
from herdbook.service.dashboard.layout import render
from herdbook.service.dashboard.level_charts import (
    SPANS,
    TEXTS,
    TITLES,
    runs,
    span_of,
)
from herdbook.service.dashboard.page_request import visit
from herdbook.service.errors import BadRequestError
from herdbook.service.http.request import AnyRequest


class Line(NamedTuple):
    """A row of the table.

    Attributes:
        begin: When it begins.
        end: When it ends.
        total: The sum; for bytes the highest in that time.
        parts: The amount of each series.
        unknown: Whether the server did not answer.
    """

    begin: str
    end: str
    total: str
    parts: list[str]
    unknown: bool


@get("/figures", include_in_schema=False)
async def figures_page(
    request: AnyRequest,
    of: FromQuery[str] = "",
    span: FromQuery[str] = "",
    model: FromQuery[str] = "",
) -> Response[str]:
    """Show the figures of a chart, the newest first.

    Raises:
        BadRequestError: There is no such chart.
        InvalidNameError: The name of the model is not valid.
    """
    page = await visit(request)
    if of not in tuple(LevelKind):
        known = ", ".join(LevelKind)
        if not of:
            raise BadRequestError("the chart", "is missing", f"Use one of: {known}")
        near = did_you_mean(of, LevelKind)
        raise BadRequestError(
            f"{of[:80]!r}", "is not a chart", f"{near}Use one of: {known}"
        )
    kind, span = LevelKind(of), span_of(span)
    name = page.read_model.spelled(name_of(model)) if model else None
    found = await runs(page, kind, span, name)
    series, text = series_of(found), TEXTS[kind]
    lines = [
        Line(
            page.now.exact(run.begin),
            page.now.exact(run.end),
            text(run.total),
            [text(part) if part else NOTHING for part in parts_of(run, series)],
            run.unknown,
        )
        for run in reversed(found)
        if run.total or run.unknown or kind is not LevelKind.REQUESTS
    ]
    return await render(
        page,
        "figures.html",
        title=f"{TITLES[kind]} over time",
        model=name,
        lines=lines,
        series=series,
        spans=[
            (
                each,
                page.links.to("/figures", of=of, span=each, model=name, node=page.node),
                each == span,
            )
            for each in SPANS
        ],
    )
