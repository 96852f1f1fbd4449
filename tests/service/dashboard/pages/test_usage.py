"""The usage page and its charts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from msgspec import UNSET
from support.service_program import run_in_thread
from support.uses import failed, record, recorded, used
from support.web.html_client import HtmlClient, open_client

from herdbook.events.facts import ModelDiscovered, ModelUsed, UsesNotRecorded
from herdbook.events.recorded import Cause
from herdbook.presentation.times import Now
from herdbook.projections.usage.view import Span
from herdbook.service.dashboard.charts.usage import (
    HEIGHT,
    Bar,
    span_of,
    usage_chart,
)

SVG = "{http://www.w3.org/2000/svg}"
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
NOW = datetime.now(UTC)


def bar(hour: int, whole: int, marked: int = 0) -> Bar:
    begin = BEGIN + timedelta(hours=hour)
    return Bar(begin, begin + timedelta(hours=1), whole, marked, f"hour {hour}")


def rectangles(bars: list[Bar]) -> list[tuple[str, float, float, float]]:
    """Return class, left edge, width and height of each rectangle."""
    chart = usage_chart(
        bars,
        begin=BEGIN,
        end=BEGIN + timedelta(hours=10),
        title="Requests",
        now=Now(NOW, UTC),
    )
    assert not re.search(r"\sstyle=|<style|<script|\son\w+=", chart)
    found = []
    for each in ET.fromstring(chart).iter(f"{SVG}rect"):
        left, width = (float(each.attrib[name].strip("%")) for name in ("x", "width"))
        height = float(each.attrib["height"])
        assert float(each.attrib["y"]) + height == pytest.approx(HEIGHT, abs=0.02)
        found.append((each.attrib["class"], left, width, height))
    return found


def test_bars_have_the_right_place_and_height() -> None:
    assert rectangles([bar(0, 10), bar(3, 0), bar(5, 40, marked=10)]) == [
        ("bar", 0.0, 10.0, HEIGHT / 4),
        ("bar", 50.0, 10.0, HEIGHT),
        ("failed", 50.0, 10.0, HEIGHT / 4),
    ]


def test_bars_are_cut_at_the_ends_of_the_chart() -> None:
    day = Bar(BEGIN - timedelta(hours=5), BEGIN + timedelta(hours=1), 4, 0, "a day")

    assert rectangles([day]) == [("bar", 0.0, 10.0, HEIGHT)]


def test_chart_without_uses_is_empty() -> None:
    assert not usage_chart([], begin=BEGIN, end=NOW, title="x", now=Now(NOW, UTC))
    nothing = [bar(1, 0)]
    assert not usage_chart(nothing, begin=BEGIN, end=NOW, title="x", now=Now(NOW, UTC))


def test_chart_text_is_escaped() -> None:
    hostile = bar(1, 1)._replace(text="<script>&")
    chart = usage_chart(
        [hostile], begin=BEGIN, end=NOW, title='"><b>', now=Now(NOW, UTC)
    )

    assert "<script" not in chart
    assert "<b>" not in chart


@pytest.mark.parametrize(
    ("name", "hours"), [("2026-02-28T23Z", 1), ("2026-02-28", 24), ("2026-02", 28 * 24)]
)
def test_span_of_a_period(name: str, hours: int) -> None:
    begin, end = span_of(name)

    assert end - begin == timedelta(hours=hours)
    assert name.startswith(f"{begin:%Y-%m}")


@pytest.mark.parametrize("year", [1, 9999])
def test_span_of_a_damaged_time(year: int) -> None:
    for span in Span:
        at = span.begin(datetime(year, 12, 31, 23, 30, tzinfo=UTC))

        begin, end = span_of(span.text(at))

        assert begin == at
        assert end > begin


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[HtmlClient]:
    """Return a client of a service with uses of now and of twenty days ago."""
    log, before = tmp_path / "herd.db", NOW - timedelta(days=20)
    missing = UsesNotRecorded(count=7, since=NOW, until=NOW, reason="disk full")
    events = [
        recorded(1, ModelDiscovered(digest="a" * 64, size_bytes=1), at=before),
        recorded(2, used(client="old"), at=before),
        recorded(3, used(client="ann", role="coding", count=30), at=NOW),
        recorded(4, used(client="<b>ben</b>", role=UNSET), at=NOW),
        recorded(5, failed(client="ann", count=2), at=NOW),
        recorded(6, missing, at=NOW),
        recorded(7, ModelUsed(), cause=Cause.OBSERVED, at=NOW),
    ]
    asyncio.run(record(log, events))
    with run_in_thread(log, "127.0.0.1:9") as service:
        with open_client(service.address) as looking:
            yield looking


def test_page_shows_totals_charts_and_tables(browser: HtmlClient) -> None:
    page = browser.page("/usage")

    text = " ".join(page.text.split())
    assert "33 requests · 2 failed · 220 tokens · 1 use observed" in text
    assert "7 requests, while the log could not be written" in text
    for title in ("By model", "By client", "By role", "By outcome"):
        assert title in text
    assert "failed · server busy" in text or "failed · server_busy" in text
    assert "<b>ben</b>" in page.text  # as text
    assert "old" not in text
    html = browser.http.get("/usage").text
    assert html.count('class="usage"') == 2
    assert "&lt;b&gt;ben&lt;/b&gt;" in html


def test_links_choose_the_period_and_the_export(browser: HtmlClient) -> None:
    page = browser.page("/usage?range=30d")

    assert "old" in page.text
    exports = [link for link in page.links if link.startswith("/v1/usage")]
    assert len(exports) == 4
    for link in exports:
        answer = browser.http.get(link)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/csv")
    assert {"/usage?range=7d", "/usage?range=all"} <= set(page.links)


def test_past_page_has_only_earlier_events(
    browser: HtmlClient,
) -> None:
    page = browser.page("/usage?as_of=2&range=24h")
    text = " ".join(page.text.split())

    assert "1 request" in text
    assert "old" in text
    assert "ann" not in text


def test_page_without_uses_says_how_to_record_them(browser: HtmlClient) -> None:
    page = browser.page("/usage?as_of=1")

    assert "No uses were recorded in this period." in page.text
    assert "herdbook gateway" in page.text
