"""The pages of roles, log and server, and their live updates."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from support.service_program import RunningService
from support.web.browser import PageSession

MODEL = "qwen2.5-coder:7b"


def test_roles_show_the_order_its_reasons_and_who_was_passed_over(
    herdbook: RunningService, visits: PageSession
) -> None:
    herdbook.http.post(f"/v1/models/{MODEL}/uses", json={}).raise_for_status()
    page = visits.open(herdbook, "/roles")

    coding = page.get_by_role("region", name="coding")
    first = coding.get_by_role("listitem").first
    expect(first).to_contain_text("use")
    expect(first).to_contain_text(MODEL)
    expect(first).to_contain_text("used")
    coding.get_by_text("not suitable").click()
    over = coding.get_by_role("listitem").filter(has_text="gemma3:4b")
    expect(over).to_contain_text("does not support coding")


def test_pull_a_model_that_a_role_suggests(
    herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook, "/roles")

    vision = page.get_by_role("region", name="vision")
    vision.get_by_text("suggested").click()
    vision.get_by_role("link", name="pull").first.click()

    expect(page.get_by_role("dialog")).to_contain_text("Pull ")
    page.get_by_role("dialog").get_by_role("link", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_log_is_filtered_and_an_event_opens(
    herdbook: RunningService, visits: PageSession
) -> None:
    herdbook.operate("load", "phi3:3.8b")
    page = visits.open(herdbook, "/log")

    page.get_by_label("Type").select_option("ModelLoaded")
    page.get_by_label("Model", exact=True).fill("phi3:3.8b")
    page.get_by_role("button", name="filter").click()
    events = page.get_by_role("region", name="Events").get_by_role("listitem")
    expect(events).to_have_count(1)
    events.get_by_role("link").first.click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("ModelLoaded")
    position = int(page.url.rpartition("/")[2])
    event = herdbook.get(f"/v1/events/{position}")
    envelope = page.get_by_role("region", name="Envelope")
    for result in (
        event["hash"],
        event["event_id"],
        "api:local",
        "model/local/phi3:3.8b",
    ):
        expect(envelope).to_contain_text(result)
    led = page.get_by_role("region", name="Related events")
    expect(led).to_contain_text("load started")
    led.get_by_role("link", name=f"#{position - 1}", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("LoadStarted")


def test_event_is_copied_as_json(herdbook: RunningService, visits: PageSession) -> None:
    page = visits.open(
        herdbook, "/log/2", permissions=["clipboard-read", "clipboard-write"]
    )

    page.get_by_role("button", name="copy as JSON").click()

    expect(page.locator("#copied")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText().then(JSON.parse)")
    assert copied == herdbook.get("/v1/events/2")


def test_log_page_shows_new_events(
    herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook, "/log")
    expect(page.get_by_role("status").first).to_have_text("live")

    herdbook.http.post("/v1/models/smollm2:135m/uses", json={"purpose": "a live tail"})

    newest = page.get_by_role("region", name="Events").get_by_role("listitem").first
    expect(newest).to_contain_text("a live tail")
    expect(page.locator("#announced")).to_contain_text("smollm2:135m: used")


def test_page_is_fetched_again_after_the_last_event(
    herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook, "/roles")
    expect(page.locator("#connection")).to_have_text("live")

    with page.expect_request("**/roles"):
        herdbook.http.post(f"/v1/models/{MODEL}/uses", json={}).raise_for_status()
    with page.expect_request("**/roles", timeout=10_000):
        pass  # the operation that recorded the event may have ended since


@pytest.mark.parametrize("script", [True, False])
def test_node_page_shows_server_and_log(
    script: bool, herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook, "/node", java_script_enabled=script)

    expect(page.get_by_role("region", name="Connection")).to_contain_text("connected")
    page.get_by_role("button", name="Refresh now").click()
    head = herdbook.get("/v1/log/head")
    expect(page.get_by_role("region", name="Log and service")).to_contain_text(
        head["hash"]
    )
    expect(page.get_by_role("region", name="Diagnosis")).to_contain_text("ok")


def test_times_are_those_of_the_reader(
    herdbook: RunningService, visits: PageSession
) -> None:
    """The first visit tells the zone, and loads itself once more."""
    page = visits.open(herdbook, "/log/1", timezone_id="Asia/Kathmandu")

    at = herdbook.get("/v1/events/1")["recorded_at"]
    there = page.evaluate(
        "(at) => new Date(at).toLocaleTimeString('en-GB', { hour12: false })", at
    )
    expect(page.get_by_role("region", name="Envelope")).to_contain_text(there)


def test_api_is_documented_for_people(
    herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook, "/api")

    page.get_by_text("/v1/operations").first.click()

    expect(page.get_by_role("heading", level=1)).to_have_text("API")
    expect(page.get_by_role("link", name="/v1/openapi.json")).to_be_visible()
