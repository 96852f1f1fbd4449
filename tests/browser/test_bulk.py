"""Several models at once, and freeing disk space, in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from support.cli_runner import SandboxThread
from support.service_program import RunningService, ServiceThread, run_in_thread
from support.waiting import wait_until
from support.web.browser import PageSession, row


@pytest.fixture
def own(tmp_path: Path, ollama: SandboxThread) -> Iterator[ServiceThread]:
    """Return a service of this test alone."""
    with run_in_thread(tmp_path / "herd.db", ollama.address) as running:
        yield running


@pytest.mark.parametrize("script", [True, False])
def test_several_models_can_be_deleted_at_once(
    script: bool, own: RunningService, visits: PageSession
) -> None:
    models = (
        ("phi3:3.8b", "tinyllama:1.1b") if script else ("mistral:7b", "codellama:7b")
    )
    page = visits.open(own, java_script_enabled=script)
    delete = page.get_by_role("button", name="Delete", exact=True)
    if script:
        expect(delete).to_be_hidden()

    for model in models:
        page.get_by_label(f"Select {model}").check()
    delete.click()
    expect(page.get_by_role("heading", name="Delete 2 models?")).to_be_visible()
    if script:
        expect(page.get_by_role("link", name="Cancel")).to_be_focused()
    for model in models:
        expect(page.locator("ul.chosen")).to_contain_text(f"{model} frees")
    page.get_by_role("button", name="Delete 2 models").click()

    expect(
        page.get_by_role("status").filter(has_text="2 models deleted")
    ).to_be_visible()
    if script:
        own.operate("load", "llama3.2:3b")  # the page is not updated to another
        expect(page.locator("#announced")).to_contain_text("llama3.2:3b: load")
        expect(page.locator("main .toast")).to_contain_text("2 models deleted")
        page.reload()  # does not send the form again
        expect(page.get_by_label("Pull a model")).to_be_visible()
    else:
        page.get_by_role("main").get_by_role("link", name="Models").click()
    for model in models:
        expect(row(page, model)).to_have_count(0)


def test_selection_survives_an_update_of_the_page(
    own: RunningService, visits: PageSession
) -> None:
    page = visits.open(own)
    page.get_by_label("Select gemma3:4b").check()

    own.operate("load", "llama3.2:3b")

    expect(row(page, "llama3.2:3b")).to_contain_text("loaded")
    expect(page.get_by_label("Select gemma3:4b")).to_be_checked()


def test_actions_for_selected_models_stay_in_view(
    own: RunningService, visits: PageSession
) -> None:
    page = visits.open(own)
    page.set_viewport_size({"width": 1200, "height": 440})
    boxes = page.locator("[data-pick]")
    boxes.last.check()

    page.mouse.wheel(0, 150)
    # Scrolling takes a frame or more; the page's policy forbids wait_for_function.
    wait_until(lambda: bool(page.evaluate("window.scrollY") > 100))

    expect(page.get_by_role("button", name="Unload", exact=True)).to_be_in_viewport()
    expect(page.get_by_role("link", name="Size", exact=True)).to_be_in_viewport()


def test_free_space_proposes_asks_and_can_be_cancelled(
    own: RunningService, visits: PageSession
) -> None:
    before = len(own.get("/v1/models"))
    page = visits.open(own, "/node")

    page.get_by_label("Free disk space").fill("1GB")
    page.get_by_role("button", name="Propose models to delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Free 1.0 GB of disk space")
    expect(dialog.get_by_role("link", name="Cancel")).to_be_focused()
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog).to_contain_text("Delete 1 model?")
    expect(dialog.get_by_role("link", name="Cancel")).to_be_focused()
    page.keyboard.press("Enter")

    expect(dialog).to_be_hidden()
    assert len(own.get("/v1/models")) == before
