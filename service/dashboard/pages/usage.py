"""Use: requests and tokens over time, by model, client, role and outcome."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from litestar import Response, get
from markupsafe import Markup

from herdbook.core import Usage, UsageDimension, UsageRow
from herdbook.core.fleet import queries
from herdbook.presentation import usage as texts
from herdbook.presentation.filtering import checked
from herdbook.presentation.times import Now
from herdbook.projections.sentences import counted
from herdbook.service.dashboard.charts.usage import Bar, span_of, usage_chart
from herdbook.service.dashboard.layout import render
from herdbook.service.dashboard.links import joined_link
from herdbook.service.dashboard.page_request import PageRequest, visit
from herdbook.service.http.request import AnyRequest

SHOWN_AT_MOST: Final = 50
"""Rows of a table; the CSV has all."""


class Window(NamedTuple):
    """A choice of how far back the page goes.

    Attributes:
        word: Its label.
        days: Number of days; None for all.
        by: The length of a bar.
    """

    word: str
    days: int | None
    by: UsageDimension


WINDOWS: Final = {
    "24h": Window("24 hours", 1, UsageDimension.HOUR),
    "7d": Window("7 days", 7, UsageDimension.HOUR),
    "30d": Window("30 days", 30, UsageDimension.DAY),
    "all": Window("all", None, UsageDimension.DAY),
}
"""The choices by name; the first is shown without one."""

_TABLES: Final = (
    ("By model", (UsageDimension.MODEL,)),
    ("By client", (UsageDimension.CLIENT,)),
    ("By role", (UsageDimension.ROLE,)),
    ("By outcome", (UsageDimension.OUTCOME, UsageDimension.FAILURE)),
)


class Line(NamedTuple):
    """A row of a table.

    Attributes:
        model: The model, for a link; empty for other groups.
        name: Name of the group.
        requests: Number of requests.
        failed: Number of failed ones.
        observed: Number of observed uses.
        tokens_in: Tokens of the prompts.
        tokens_out: Tokens of the answers.
        time: Median and 95th percentile of the duration.
        first: The same of the time to the first token.
        rate: Tokens per second.
    """

    model: str
    name: str
    requests: str
    failed: str
    observed: str
    tokens_in: str
    tokens_out: str
    time: str
    first: str
    rate: str


class Table(NamedTuple):
    """A table of groups.

    Attributes:
        id: Its id on the page.
        title: Its heading.
        lines: Its rows, at most ``SHOWN_AT_MOST``.
        more: How many rows are left out.
        csv: Link to all rows as CSV.
    """

    id: str
    title: str
    lines: list[Line]
    more: int
    csv: str


class Chart(NamedTuple):
    """A chart, and the words at its axis."""

    svg: Markup
    begin: str
    highest: str
    end: str


@get("/usage", include_in_schema=False)
async def usage_page(request: AnyRequest) -> Response[str]:
    """Show how models were used.

    Raises:
        CallerError: There is no such range.
        StoreError: The log cannot be read.
    """
    page = await visit(request)
    name = request.query_params.get("range", "") or next(iter(WINDOWS))
    (name,) = checked("range", [name], WINDOWS)
    window = WINDOWS[name]
    since = _begin(page, window)
    over_time = await _usage(page, since, window.by)
    total = over_time.total
    tables = (
        [await _table(page, title, by, since) for title, by in _TABLES]
        if over_time.rows
        else []
    )
    return await render(
        page,
        "usage.html",
        title="Usage",
        windows=[
            (
                key,
                one.word,
                page.links.to("/usage", range=key, node=page.node),
                key == name,
            )
            for key, one in WINDOWS.items()
        ],
        any_use=bool(over_time.rows),
        total=total,
        summary=texts.summary_text(over_time),
        words=_line(total, "all"),
        number=texts.number_text,
        disconnects_text=texts.disconnects_text,
        bar_word=window.by.value,
        requests_chart=_chart(page, over_time, window, "Requests", _requests),
        tokens_chart=_chart(page, over_time, window, "Tokens", _tokens),
        tables=[each for each in tables if each.lines],
    )


def _begin(page: PageRequest, window: Window) -> datetime | None:
    """Return where a window begins: at an hour or a day, so that bars are whole."""
    if window.days is None:
        return None
    now = page.now.at.astimezone(UTC)
    begin = now.replace(minute=0, second=0, microsecond=0)
    if window.by is UsageDimension.DAY:
        begin = begin.replace(hour=0) + timedelta(days=1)
    else:
        begin += timedelta(hours=1)
    return begin - timedelta(days=window.days)


async def _usage(
    page: PageRequest, since: datetime | None, *by: UsageDimension
) -> Usage:
    until = page.read_model.position if page.past else None
    if page.node:
        return await page.manager.usage(by, since=since, until=until)
    return await queries.usage(page.service.fleet, by, since=since, until=until)


async def _table(
    page: PageRequest,
    title: str,
    by: tuple[UsageDimension, ...],
    since: datetime | None,
) -> Table:
    usage = await _usage(page, since, *by)
    rows = usage.rows
    if by == (UsageDimension.ROLE,) and all(one.group["role"] is None for one in rows):
        rows = ()  # no request named a role
    lines = [
        _line(
            row,
            " · ".join(
                texts.group_text(row, each)
                for each in by
                if each is not UsageDimension.FAILURE or row.group[each] is not None
            ),
            model=row.group.get("model") or "",
        )
        for row in rows[:SHOWN_AT_MOST]
    ]
    return Table(
        id=f"by-{by[0].value}",
        title=title,
        lines=lines,
        more=max(len(rows) - SHOWN_AT_MOST, 0),
        csv=_csv_link(page, by, since),
    )


def _csv_link(
    page: PageRequest, by: tuple[UsageDimension, ...], since: datetime | None
) -> str:
    begin = None if since is None else f"{since:%Y-%m-%dT%H:%MZ}"
    query = {
        "since": begin,
        "as_of": page.links.as_of,
        "node": page.node,
        "format": "csv",
    }
    return joined_link("/v1/usage", query) + "".join(f"&by={each}" for each in by)


def _line(row: UsageRow, name: str, *, model: str = "") -> Line:
    return Line(
        model=model,
        name=name,
        requests=texts.number_text(row.requests),
        failed=texts.number_text(row.failed),
        observed=texts.number_text(row.observed),
        tokens_in=texts.number_text(row.prompt_tokens),
        tokens_out=texts.number_text(row.output_tokens),
        time=_pair(row.duration_p50_s, row.duration_p95_s),
        first=_pair(row.first_token_p50_s, row.first_token_p95_s),
        rate=texts.rate_text(row.tokens_per_s),
    )


def _pair(median: float | None, high: float | None) -> str:
    if median is None:
        return texts.seconds_text(None)
    return f"{texts.seconds_text(median)} / {texts.seconds_text(high)}"


def _requests(row: UsageRow) -> tuple[int, int, str]:
    whole = row.requests + row.observed
    text = counted(row.requests, "request")
    text += f", {row.failed:,} failed" if row.failed else ""
    text += f", {row.observed:,} observed" if row.observed else ""
    text += f", {row.not_recorded:,} not recorded" if row.not_recorded else ""
    return whole, row.failed, text


def _tokens(row: UsageRow) -> tuple[int, int, str]:
    whole = row.prompt_tokens + row.output_tokens
    return whole, 0, f"{row.prompt_tokens:,} tokens in, {row.output_tokens:,} out"


def _period_text(name: str, begin: datetime, end: datetime, now: Now) -> str:
    """Return a period in words: hours in the reader's zone, days and months in UTC."""
    if end - begin > timedelta(hours=1):
        return f"{name} UTC"
    since = now.clock(begin, seconds=False)
    return f"{since} to {end.astimezone(now.zone):%H:%M}"


def _chart(
    page: PageRequest,
    usage: Usage,
    window: Window,
    title: str,
    figures: Callable[[UsageRow], tuple[int, int, str]],
) -> Chart:
    bars, since = [], _begin(page, window)
    for row in usage.rows:
        name = next(iter(row.group.values())) or ""
        begin, end = span_of(name)
        whole, marked, text = figures(row)
        period = _period_text(name, begin, end, page.now)
        bars.append(Bar(begin, end, whole, marked, f"{period}: {text}"))
    begin = since or min((bar.begin for bar in bars), default=page.now.at)
    if since is not None and window.days is not None:
        end = since + timedelta(days=window.days)
    else:
        end = max((bar.end for bar in bars), default=page.now.at)
    chart = usage_chart(bars, begin=begin, end=end, title=title, now=page.now)
    highest = max((bar.whole for bar in bars), default=0)
    return Chart(
        svg=chart,
        begin=page.now.clock(begin, seconds=False),
        highest=f"max {texts.number_text(highest)}",
        end=page.now.clock(end, seconds=False)
        if page.past or end < page.now.at
        else "now",
    )
