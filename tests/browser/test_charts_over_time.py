"""The charts over time, and the table of their figures."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect
from support.service_program import RunningService
from support.web.browser import PageSession

MODEL = "llama3.2:3b"


@pytest.mark.parametrize("path", ["/node?span=hour", f"/models/{MODEL}?span=hour"])
def test_chart_shows_value_and_time_and_leads_to_its_table(
    path: str, herdbook: RunningService, visits: PageSession
) -> None:
    herdbook.operate("load", MODEL)
    page = visits.open(herdbook, path)
    charts = page.get_by_role("region", name="Over time")

    memory = charts.locator(".level-chart").filter(
        has=page.get_by_role("heading", name="Memory")
    )
    piece = memory.locator("svg rect", has_text=MODEL).last
    result = re.compile(rf"{MODEL}: [\d.]+ GB.*, .*\d\d:\d\d:\d\d to .*\d\d:\d\d:\d\d")
    expect(piece.locator("title")).to_have_text(result)
    expect(memory.get_by_role("link", name=MODEL)).to_be_visible()
    memory.get_by_role("link", name="Table").click()

    expect(page.get_by_role("heading", name="Memory over time")).to_be_visible()
    expect(page.get_by_role("columnheader", name=MODEL)).to_be_visible()
    expect(page.get_by_role("row").nth(1)).to_contain_text("GB")


def test_chart_follows_the_log(herdbook: RunningService, visits: PageSession) -> None:
    page = visits.open(herdbook, "/node?span=hour")
    charts = page.get_by_role("region", name="Over time")

    herdbook.operate("load", "gemma3:4b")

    expect(charts).to_contain_text("gemma3:4b")
    expect(charts.get_by_role("link", name="gemma3:4b")).to_have_count(2)
