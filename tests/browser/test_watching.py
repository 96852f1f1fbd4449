"""Long operations in a browser: live progress, cancelling, two viewers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect
from support.cli_runner import SandboxThread
from support.service_program import RunningService, run_in_thread
from support.waiting import wait_until
from support.web.browser import (
    FAST_REGISTRY,
    SLOW_REGISTRY,
    PageSession,
    events_and_actors,
    expect_state,
    pull,
    row,
)

LONG, SHORT = "llama3.1:8b", "mxbai-embed-large:latest"


@pytest.fixture(scope="module")
def slow(
    tmp_path_factory: pytest.TempPathFactory, slow_ollama: SandboxThread
) -> Iterator[RunningService]:
    log = tmp_path_factory.mktemp("herdbook") / "herd.db"
    with run_in_thread(log, slow_ollama.address) as running:
        yield running


def test_pull_shows_bytes_moves_by_itself_and_ends(
    slow: RunningService, slow_ollama: SandboxThread, visits: PageSession
) -> None:
    slow_ollama.apply(registry=SLOW_REGISTRY)
    page = visits.open(slow)

    page.get_by_label("Pull a model").fill(SHORT)
    page.get_by_label("Pull a model").press("Enter")
    asked = page.get_by_role("dialog")
    expect(asked).to_contain_text("670 MB")
    asked.get_by_role("button", name="pull").click()
    page.wait_for_url(f"**/models/{SHORT}")
    page.evaluate("window.here = true")
    work = page.locator("#works")
    expect(work).to_contain_text("pull")
    expect(work).to_contain_text("of 670 MB")
    expect(work).to_contain_text("MB/s")
    expect(work).to_contain_text("left")
    seen = work.inner_text()
    expect(work).not_to_have_text(seen)
    page.reload()
    expect(work).to_contain_text("of 670 MB")
    page.evaluate("window.here = true")
    expect_state(page, slow, SHORT, "available")

    assert page.evaluate("window.here"), "it was loaded anew"
    expect(work).to_be_empty()
    assert events_and_actors(slow, SHORT)[0] == ("PullStarted", "api:local")
    assert ("PullCompleted", "api:local") in events_and_actors(slow, SHORT)


@pytest.mark.parametrize("script", [True, False])
def test_pull_can_be_cancelled(
    script: bool, slow: RunningService, slow_ollama: SandboxThread, visits: PageSession
) -> None:
    model = "mixtral:8x7b" if script else LONG
    slow_ollama.apply(registry=SLOW_REGISTRY)
    page = visits.open(slow, java_script_enabled=script)

    pull(page, model)
    wait_until(
        lambda: events_and_actors(slow, model)[:1] == [("PullStarted", "api:local")]
    )
    if not script:
        page.reload()
    page.get_by_role("link", name="cancel").click()
    page.get_by_role("main").last.get_by_role("button", name="cancel").click()
    expect_state(page, slow, model, "not present", script=script)

    assert events_and_actors(slow, model)[-1] == ("PullCancelled", "api:local")


def test_two_who_watch_see_the_same(
    slow: RunningService, slow_ollama: SandboxThread, visits: PageSession
) -> None:
    slow_ollama.apply(registry=FAST_REGISTRY)
    one, other = visits.open(slow), visits.open(slow)

    pull(one, "tinyllama:latest")

    expect(row(other, "tinyllama:latest")).to_contain_text("available")
    expect(other.get_by_role("row").filter(has_text="same weights")).to_have_count(1)


def test_usage_moves_by_itself(slow: RunningService, visits: PageSession) -> None:
    page = visits.open(slow, "/usage")
    expect(page.locator("#connection[data-state=live]")).to_be_visible()
    page.evaluate("window.here = true")

    for _ in range(2):
        slow.http.post("/v1/models/llama3.2:3b/uses", json={}).raise_for_status()

    expect(page.locator("#usage-total")).to_contain_text("2 requests")
    assert page.evaluate("window.here"), "it was loaded again"
