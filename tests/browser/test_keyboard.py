"""The dashboard without a mouse: the skip link, a load, keyboard shortcuts."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from support.service_program import RunningService
from support.web.browser import PageSession, events_and_actors, expect_state

FOCUSED = """() => {
  const one = document.activeElement, look = getComputedStyle(one);
  const seen = look.outlineStyle !== "none" && parseFloat(look.outlineWidth) >= 1;
  return [one.tagName, one.textContent.trim() || one.id, seen, !!one.closest("dialog")];
}"""


def tab_to(page: Page, name: str, most: int = 80) -> None:
    """Press Tab until something is focused; what is focused on the way is seen."""
    for _ in range(most):
        page.keyboard.press("Tab")
        tag, text, seen, _ = page.evaluate(FOCUSED)
        assert seen or tag == "BODY", f"the focus on {tag} {text} cannot be seen"
        if text == name:
            return
    pytest.fail(f"{name} is not reached with Tab")


def test_load_with_the_keyboard_alone(
    herdbook: RunningService, visits: PageSession
) -> None:
    model = "gemma3:4b"
    page = visits.open(herdbook)

    tab_to(page, "Skip to content", 1)
    expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    tab_to(page, model)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/models/{model}")
    tab_to(page, "Load model")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="load")).to_be_visible()
    for _ in range(6):
        page.keyboard.press("Tab")
        tag, text, _, inside = page.evaluate(FOCUSED)
        assert inside or tag == "BODY", f"the focus left the dialog for {text}"
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("link", name="load")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("button", name="load")).to_be_visible()
    tab_to(page, "Load model")
    page.keyboard.press("Enter")
    expect_state(page, herdbook, model, "loaded")

    assert ("ModelLoaded", "api:local") in events_and_actors(herdbook, model)


def test_keys_of_the_page(herdbook: RunningService, visits: PageSession) -> None:
    page = visits.open(herdbook)

    for key, path in (("l", "/log"), ("u", "/usage"), ("s", "/node"), ("m", "/")):
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(f"{herdbook.address}{path}")
    page.keyboard.press("/")
    expect(page.locator("[data-find]")).to_be_focused()
    page.keyboard.type("g l/")
    expect(page.locator("[data-find]")).to_have_value("g l/")
    page.keyboard.press("Escape")
    expect(page.locator("[data-find]")).not_to_be_focused()


def test_focus_stays_where_it_was_when_the_page_changes(
    herdbook: RunningService, visits: PageSession
) -> None:
    model = "mistral:7b"
    page = visits.open(herdbook, f"/models/{model}")
    link = page.get_by_role("link", name="delete")
    link.focus()

    herdbook.http.post(f"/v1/models/{model}/uses", json={}).raise_for_status()

    expect(page.get_by_role("link", name="unload")).to_be_visible()
    expect(link).to_be_focused()
