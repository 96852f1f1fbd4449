"""Names, digests, hashes and commands are copied with a click."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from support.service_program import RunningService
from support.web.browser import PageSession

MODEL = "llama3.2:3b"


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/", MODEL),
        (f"/models/{MODEL}", MODEL),
        (f"/models/{MODEL}", "the digest"),
        ("/log/1", "the hash"),
        ("/node", "the hash"),
        ("/node", "the command"),
    ],
)
def test_button_copies_the_whole_text(
    path: str, what: str, herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook, path)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = page.get_by_role("button", name=f"Copy {what}", exact=True).first

    button.click()

    expect(button).to_have_attribute("data-done", "Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == button.get_attribute("data-copy-text")
    assert len(copied) == 64 or copied in {MODEL, "herdbook anchor"}


def test_without_a_script_there_are_no_copy_buttons(
    herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook, java_script_enabled=False)

    expect(page.get_by_role("button", name="Copy")).to_have_count(0)


def test_time_shows_date_and_zone_on_hover(
    herdbook: RunningService, visits: PageSession
) -> None:
    event = herdbook.get("/v1/events/1")
    page = visits.open(herdbook, "/log")

    time = page.locator("#e1 time")

    at = event["recorded_at"]
    expect(time).to_have_attribute("title", f"{at[:10]} {at[11:19]} UTC")
