"""Each page on a phone, in dark mode and for screen readers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Page, ViewportSize, expect
from support.cli_runner import SandboxThread
from support.service_program import RunningService, run_in_thread
from support.web.browser import PageSession
from support.web.http_fixture import TOKENS
from support.web.page_assertions import inaccessible, low_contrast, overflowing

MODEL = "gemma3:4b"
BROKEN = "no-such-model:7b"
LONG = (
    "hf.co/somebody-with-a-long-name/A-model-whose-name-does-not-end-soon-GGUF:Q4_K_M"
)
PAGES = (
    *("/", "/?gone=1", "/?as_of=3", f"/models/{MODEL}", f"/models/{MODEL}?as_of=3"),
    *(f"/models/{BROKEN}", "/models/never-seen:1b", f"/models/{MODEL}/configuration"),
    *(f"/models/{MODEL}/unload", f"/models/{MODEL}/delete", f"/models/{LONG}/pull"),
    *(f"/models/{LONG}", "/roles", "/log", "/log?type=ModelUsed", "/log/5", "/node"),
    *("/usage", "/usage?range=all", "/nodes", "/tokens", "/free?size=1GB"),
    *("/compare", "/compare?from=1", "/api"),
)
UNFOLDED = "document.querySelectorAll('details').forEach((one) => one.open = true)"
DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 360, "height": 740}


@pytest.fixture(scope="module", autouse=True)
def history(herdbook: RunningService, ollama: SandboxThread) -> None:
    """Let something of each kind have happened."""
    herdbook.operate("load", MODEL)
    herdbook.operate("pull", BROKEN)
    herdbook.operate("pull", LONG)
    settings = {"num_ctx": 8192, "notes": "much " * 60 + "x" * 200}
    herdbook.http.put(
        f"/v1/models/{MODEL}/configuration",
        json={"settings": settings, "note": "a reason " * 20},
        headers={"if-match": "*"},
    ).raise_for_status()
    herdbook.http.post(f"/v1/models/{MODEL}/uses", json={"purpose": "review"})


def troubles(page: Page) -> list[str]:
    """Return what is wrong with a page: by day, by night, on a phone, to the ear."""
    page.evaluate(UNFOLDED)
    found = [*inaccessible(page), *low_contrast(page)]
    page.emulate_media(color_scheme="dark")
    found += [f"in the dark: {one}" for one in low_contrast(page)]
    page.set_viewport_size(PHONE)
    found += [f"on a phone: {one}" for one in overflowing(page)]
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(DESK)
    return found


@pytest.mark.parametrize("paths", [PAGES[::2], PAGES[1::2]], ids=["some", "others"])
def test_page_is_public(
    paths: Sequence[str], herdbook: RunningService, visits: PageSession
) -> None:
    page = visits.open(herdbook, viewport=DESK, reduced_motion="reduce")
    found = {}
    for path in paths:
        page.goto(path)
        found[path] = troubles(page)

    assert not any(found.values()), found


def test_sign_in_page_is_public(
    tmp_path: Path, ollama: SandboxThread, visits: PageSession
) -> None:
    with run_in_thread(tmp_path / "herd.db", ollama.address, tokens=TOKENS) as guarded:
        page = visits.open(guarded, viewport=DESK, reduced_motion="reduce")

        assert not troubles(page)


def test_swapped_page_is_as_whole_as_a_loaded_one(
    herdbook: RunningService, visits: PageSession
) -> None:
    model = "mistral:7b"
    page = visits.open(herdbook, f"/models/{model}", viewport=PHONE)
    assert not inaccessible(page)

    herdbook.http.post(f"/v1/models/{model}/uses", json={"purpose": "swap"})
    expect(page.get_by_role("region", name="History")).to_contain_text("swap")

    assert not inaccessible(page)
    assert not overflowing(page)
    page.get_by_role("link", name="Mark as used").click()
    expect(page.get_by_role("dialog").get_by_label("Purpose")).to_be_focused()
    page.evaluate("document.querySelector('body > main').remove()")
    assert not inaccessible(page)


def test_nothing_moves_for_who_does_not_want_it(
    herdbook: RunningService, visits: PageSession
) -> None:
    moving = """() => [...document.querySelectorAll("*")].filter((one) => {
      const { transitionDuration, animationName } = getComputedStyle(one);
      return animationName !== "none" || /[1-9]/.test(transitionDuration);
    }).length"""
    page = visits.open(herdbook, reduced_motion="reduce")
    assert page.evaluate(moving) == 0

    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0, "it would not have been seen"


def test_every_problem_is_found(herdbook: RunningService, visits: PageSession) -> None:
    page = visits.open(herdbook, viewport=PHONE)
    page.evaluate(
        """() => {
          const wrong = document.createElement("p");
          Object.assign(wrong, { id: "models", textContent: "too pale" });
          Object.assign(wrong.style, { color: "#999", width: "150vw" });
          document.getElementById("main").append(wrong);
        }"""
    )

    assert low_contrast(page) == ["too pale: 2.61"]
    assert inaccessible(page) == ["one element alone with the id models"]
    assert any("too pale" in one for one in overflowing(page))


def test_header_of_the_models_stays_in_view(
    herdbook: RunningService, visits: PageSession
) -> None:
    # Without its script the page stands still: a swap would undo the heights.
    low: ViewportSize = {"width": 1280, "height": 560}
    page = visits.open(herdbook, viewport=low, java_script_enabled=False)
    page.locator("tbody td").evaluate_all(
        "cells => cells.forEach(one => { one.style.height = '300px' })"
    )

    page.evaluate("scrollTo(0, 900)")

    bar = page.get_by_role("banner").bounding_box()
    size = page.get_by_role("link", name="Size", exact=True)
    header = size.bounding_box()
    assert bar is not None
    assert header is not None
    assert header["y"] >= bar["y"] + bar["height"] > 0
    expect(size).to_be_in_viewport()


@pytest.mark.parametrize(
    ("path", "field"), [("/", "#find"), ("/", "#family"), ("/node", "#free-size")]
)
def test_fields_are_wide_enough_on_a_phone(
    path: str, field: str, herdbook: RunningService, visits: PageSession
) -> None:
    narrow: ViewportSize = {"width": 400, "height": 800}
    page = visits.open(herdbook, path, viewport=narrow, java_script_enabled=False)

    box = page.locator(field).bounding_box()

    assert box is not None
    assert box["width"] > 90
