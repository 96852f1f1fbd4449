"""Time travel: each page at an earlier time, the way back, and comparisons."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect
from support.service_program import RunningService
from support.web.browser import PageSession, row

MODEL = "gemma3:4b"
AS_OF = re.compile(r"[?&]as_of=\d+")


@pytest.fixture(scope="module", autouse=True)
def moment(herdbook: RunningService) -> int:
    """Return where the log was before things happened."""
    position: int = herdbook.get("/v1/log/head")["position"]
    herdbook.operate("load", MODEL)
    herdbook.http.post(f"/v1/models/{MODEL}/uses", json={}).raise_for_status()
    return position


def slider(page: Page) -> Locator:
    """Return the bar of time at the foot."""
    return page.get_by_role("slider", name="Show this page as of a time")


def see_the_past(page: Page) -> None:
    """See that a page says that it is of the past, and that nothing can be done."""
    note = page.get_by_role("note")
    expect(note).to_contain_text("as of")
    expect(note).to_contain_text("Actions are disabled")
    expect(page.get_by_label("Pull a model")).to_be_disabled()
    expect(page.locator("a[data-dialog]")).to_have_count(0)
    expect(page.locator(".button.off").first).to_have_attribute("aria-disabled", "true")


def test_keys_on_the_slider_lead_to_an_earlier_event(
    herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook)
    expect(row(page, MODEL)).to_contain_text("loaded")
    slider(page).focus()
    head = int(str(page.locator("#time").get_attribute("data-head")))

    page.keyboard.press("ArrowLeft")
    page.wait_for_url(AS_OF)

    see_the_past(page)
    assert page.url.endswith(f"as_of={head - 1}")
    expect(slider(page)).to_be_focused()
    page.keyboard.press("Home")
    page.wait_for_url(re.compile("as_of=0"))
    expect(page.get_by_role("main")).to_contain_text("No models at that time")
    expect(slider(page)).to_be_focused()
    page.keyboard.press("End")
    page.wait_for_url(lambda url: "as_of" not in url)
    expect(page.get_by_role("note")).to_have_count(0)


def test_dragging_shows_the_time_and_leads_there(
    herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook)
    box = slider(page).bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2

    page.mouse.move(box["x"] + box["width"] - 8, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, middle, steps=5)
    expect(page.locator("#time-shown")).to_contain_text("as of")
    page.mouse.up()
    page.wait_for_url(AS_OF)

    see_the_past(page)


def test_every_link_keeps_the_time_and_leads_back(
    moment: int, herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook, f"/?as_of={moment}")

    for name in ("Roles", "Log", "Server", "Models"):
        link = page.get_by_role("navigation").get_by_role("link", name=name)
        expect(link).to_have_attribute("href", AS_OF)
        link.click()
        expect(page.get_by_role("note")).to_contain_text(f"(#{moment})")
        expect(page.locator("main a[data-dialog]")).to_have_count(0)
    page.get_by_role("link", name=MODEL, exact=True).click()
    expect(page.get_by_role("note")).to_contain_text(f"(#{moment})")
    page.get_by_role("link", name="Back to now").click()

    expect(page).to_have_url(f"{herdbook.address}/models/{MODEL}")
    expect(page.locator("#head .state")).to_contain_text("loaded")


def test_past_can_be_compared_with_now(
    moment: int, herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook, f"/?as_of={moment}")

    page.get_by_role("link", name="Compare with now").click()

    result = page.get_by_role("region", name="Differences").get_by_role("row")
    state = result.filter(has_text=MODEL).filter(has_text="state")
    expect(state).to_contain_text("available")
    expect(state).to_contain_text("loaded")


def test_without_a_script_the_bar_is_a_form(
    herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook, java_script_enabled=False)

    slider(page).focus()
    page.keyboard.press("Home")
    page.get_by_role("button", name="show").click()

    expect(page.get_by_role("note")).to_contain_text("before the first event")
    page.get_by_role("link", name="Back to now").click()
    expect(page.get_by_role("note")).to_have_count(0)


def test_the_past_stands_still(
    moment: int, herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook, f"/models/{MODEL}?as_of={moment}")
    before = page.get_by_role("main").inner_text()

    herdbook.http.post(f"/v1/models/{MODEL}/uses", json={}).raise_for_status()
    page.reload()

    assert page.get_by_role("main").inner_text() == before


@pytest.mark.parametrize("script", [True, False])
def test_time_is_entered_in_a_field(
    *, script: bool, moment: int, herdbook: RunningService, visits: PageSession
) -> None:
    event = herdbook.get(f"/v1/events/{moment}")
    page = visits.open(
        herdbook, "/roles", java_script_enabled=script, timezone_id="UTC"
    )

    page.get_by_label("Time", exact=True).fill(event["recorded_at"][:19])
    page.get_by_role("button", name="Go to time").click()

    page.wait_for_url(re.compile(r"/roles\?.*as_of=\d{4}-"))
    shown = re.compile("as of|before the first event")  # of the same second
    expect(page.get_by_role("note")).to_contain_text(shown)


def test_steps_lead_from_event_to_event(
    moment: int, herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook, f"/log?as_of={moment}", java_script_enabled=False)

    page.get_by_role("link", name="Previous event").click()
    expect(page.get_by_role("note")).to_contain_text(f"(#{moment - 1})")
    page.get_by_role("link", name="Next event").click()
    expect(page.get_by_role("note")).to_contain_text(f"(#{moment})")

    assert "/log" in page.url
