"""The charts over time on the server page, a model's page, and their tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from support.service_program import ServiceThread
from support.web.html_client import HOSTILE, MODEL, HtmlClient

from herdbook.core.history.levels import Column
from herdbook.presentation.times import Now
from herdbook.projections.sentences import bytes_text
from herdbook.service.dashboard.charts.levels import (
    MOST_SERIES,
    OTHERS,
    Run,
    parts_of,
    runs_of,
    series_of,
    stacked_chart,
)
from herdbook.service.dashboard.charts.timeline import Window

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOW = Now(START + 4 * HOUR, UTC)


def columns(*parts: dict[str, int]) -> list[Column]:
    return [
        Column(
            begin=START + n * HOUR,
            end=START + (n + 1) * HOUR,
            at=START + n * HOUR,
            parts=each,
        )
        for n, each in enumerate(parts)
    ]


def drawn(runs: list[Run]) -> ET.Element:
    markup = stacked_chart(
        runs,
        series_of(runs),
        Window(START, START + 4 * HOUR),
        NOW,
        classes=[f"s{number}" for number in range(len(series_of(runs)))],
        title="Memory",
        text=bytes_text,
    )
    assert "style=" not in markup
    return ET.fromstring(markup)


def test_pieces_are_stacked_and_show_value_and_time() -> None:
    a, b = 3_000_000_000, 1_000_000_000
    runs = runs_of(columns({}, {"a": a, "b": b}, {"a": a, "b": b}, {"b": b}))

    root = drawn(runs)

    pieces = [e for e in root if e.tag.endswith("rect")]
    assert [piece.attrib["class"] for piece in pieces] == ["s0", "s1", "s1"]
    assert [float(p.attrib["height"]) for p in pieces] == [82.5, 27.5, 27.5]
    assert pieces[0].attrib["width"] == "50%"
    titles = [e.text or "" for p in pieces for e in p]
    assert titles[0] == "a: 3.0 GB (4.0 GB in total), 13:00:00 to 15:00:00"
    assert titles[2] == "b: 1.0 GB, 15:00:00 to 16:00:00"


def test_surplus_models_are_drawn_as_others() -> None:
    parts = {f"m{n}": 100 - n for n in range(20)}
    runs = runs_of(columns(parts))

    series = series_of(runs)

    assert len(series) == MOST_SERIES + 1
    assert series[-1] == OTHERS
    assert sum(parts_of(runs[0], series)) == sum(parts.values())


def test_hostile_label_is_escaped() -> None:
    root = drawn(runs_of(columns({HOSTILE: 5})))

    assert not [e for e in root.iter() if e.tag.endswith("script")]


def test_server_page_draws_memory_disk_and_requests(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    herdbook.operate("load", MODEL)
    herdbook.http.post(f"/v1/models/{MODEL}/uses", json={"purpose": "test"})

    page = browser.page("/node?span=hour")

    for title in ("Memory max", "Disk space max", "Requests max 1 request"):
        assert title in page.text
    tables = [link for link in page.links if link.startswith("/figures")]
    assert len(tables) == 3
    for link in tables:
        assert MODEL in browser.page(link).text
    assert "/node?span=week" in page.links


def test_model_page_draws_that_model_only(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    herdbook.operate("load", MODEL)
    herdbook.operate("load", "gemma3:4b")

    page = browser.page(f"/models/{MODEL}?span=hour")
    table = browser.page(f"/figures?of=memory&span=hour&model={MODEL}")

    assert "Memory max" in page.text
    assert "gemma3:4b" not in table.text
    assert MODEL in table.text


def test_charts_of_the_past_show_the_past(
    browser: HtmlClient, herdbook: ServiceThread
) -> None:
    before = herdbook.get("/v1/log/head")["position"]
    herdbook.operate("load", MODEL)

    then = browser.page(f"/figures?of=memory&span=all&as_of={before}")

    assert "Nothing was recorded in this period." in then.text
    assert MODEL in browser.page("/figures?of=memory&span=all").text


@pytest.mark.parametrize("query", ["", "of=power", f"of=memory&model={'x' * 600}"])
def test_invalid_figures_are_refused(browser: HtmlClient, query: str) -> None:
    browser.page(f"/figures?{query}", 400)
