"""The page that compares two times."""

from __future__ import annotations

from datetime import datetime

from litestar import Response, get

from herdbook.core import Difference, ReadModel
from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.history.diff import difference
from herdbook.presentation.differences import DifferenceRow, rows_of
from herdbook.presentation.times import FORMS
from herdbook.service.dashboard.charts.sampling import recorded_at
from herdbook.service.dashboard.layout import render
from herdbook.service.dashboard.page_request import PageRequest, visit
from herdbook.service.http.request import AnyRequest


@get("/compare", include_in_schema=False)
async def compare_page(request: AnyRequest) -> Response[str]:
    """Show the differences; without ``to`` up to the time that the page shows.

    Raises:
        CallerError: A time is invalid, or outside the log.
    """
    page = await visit(request)
    since = request.query_params.get("from", "").strip()
    until = request.query_params.get("to", "").strip()
    one = await _read_model(page, since) if since else None
    other = await _read_model(page, until) if until else page.read_model
    found = None if one is None else await difference(one, other)
    return await render(
        page,
        "compare.html",
        title="Compare",
        since=since,
        until=until,
        rows=None if found is None else await _rows(found),
        one=await _words(page, one),
        other=await _words(page, other),
        forms=", ".join(FORMS),
        node_names=sorted(page.by_name) if page.several else [],
    )


async def _rows(found: Difference) -> list[DifferenceRow]:
    rows, time_slice = [], TimeSlice()
    for row in rows_of(found):
        rows.append(row)
        await time_slice.checkpoint()
    return rows


async def _read_model(page: PageRequest, text: str) -> ReadModel:
    then = await page.service.past(page.present.parse(text))
    return then.of(page.read_model.node)


async def _words(
    page: PageRequest, read_model: ReadModel | None
) -> tuple[str, int, datetime | None]:
    """Return the time of a read model as text, its position, and the time."""
    if read_model is None:
        return "", 0, None
    at: datetime | None = read_model.asked
    at = at or await recorded_at(page.service.manager, read_model.position)
    text = page.present.clock(at) if at else "before the first event"
    return text, read_model.position, at
