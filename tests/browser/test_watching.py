"""Watching long work: progress without loading, cancelling, and a service that ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Visits, facts, free_port, pretended, row, see_state, until
from command import Server
from playwright.sync_api import Page, expect
from service_program import Program, Reached, service, thread

SLOW = {"rate": 2e7}
FAST = {"rate": 1e9}
LONG, SHORT = "llama3.1:8b", "mxbai-embed-large:latest"


@pytest.fixture(scope="module")
def slow_ollama() -> Iterator[Server]:
    """Return a pretend server with a registry that takes its time."""
    server = Server(pretended(speed=1))
    yield server
    server.close()


@pytest.fixture(scope="module")
def slow(
    tmp_path_factory: pytest.TempPathFactory, slow_ollama: Server
) -> Iterator[Reached]:
    log = tmp_path_factory.mktemp("herdbook") / "herd.db"
    with thread(log, slow_ollama.address) as running:
        yield running


def pull(page: Page, model: str) -> None:
    """Pull a model by its name, as a person does from the herd."""
    page.get_by_label("Pull a model").fill(model)
    page.get_by_role("button", name="pull").click()
    asked = page.get_by_role("main").last
    expect(asked).to_contain_text(f"Pull {model}?")
    asked.get_by_role("button", name="pull").click()
    page.wait_for_url(f"**/models/{model}")


def test_pull_tells_bytes_moves_by_itself_and_ends(
    slow: Reached, slow_ollama: Server, visits: Visits
) -> None:
    slow_ollama.did(registry=SLOW)
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
    see_state(page, slow, SHORT, "available")

    assert page.evaluate("window.here"), "it was loaded anew"
    expect(work).to_be_empty()
    assert facts(slow, SHORT)[0] == ("PullStarted", "api:local")
    assert ("PullCompleted", "api:local") in facts(slow, SHORT)


@pytest.mark.parametrize("script", [True, False])
def test_cancel_a_pull(
    script: bool, slow: Reached, slow_ollama: Server, visits: Visits
) -> None:
    model = "mixtral:8x7b" if script else LONG
    slow_ollama.did(registry=SLOW)
    page = visits.open(slow, java_script_enabled=script)

    pull(page, model)
    until(lambda: facts(slow, model)[:1] == [("PullStarted", "api:local")])
    if not script:
        page.reload()
    page.get_by_role("link", name="cancel").click()
    page.get_by_role("main").last.get_by_role("button", name="cancel").click()
    see_state(page, slow, model, "not present", script=script)

    assert facts(slow, model)[-1] == ("PullCancelled", "api:local")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_service_that_ends_and_comes_back(
    number: int, tmp_path: Path, slow_ollama: Server, visits: Visits
) -> None:
    visits.foresee(
        "ERR_CONNECTION_REFUSED",
        "ERR_INCOMPLETE_CHUNKED_ENCODING",
        "ERR_EMPTY_RESPONSE",
        "ERR_CONNECTION_RESET",
    )
    model = "embeddinggemma:latest" if number == signal.SIGTERM else "qwen3:0.6b"
    log, port = tmp_path / "herd.db", free_port()
    slow_ollama.did(registry=SLOW)
    with service(log, slow_ollama.address, port=port) as program:
        page = visits.open(program)
        connection = page.locator("#connection")
        pull(page, model)
        expect(page.locator("#works")).to_contain_text("MB/s")
        expect(connection).to_have_text("live")
        end(program, number)
        expect(connection).to_contain_text("disconnected since")
        page.evaluate("window.here = true")
    slow_ollama.did(registry=FAST)
    with service(log, slow_ollama.address, port=port) as program:
        expect(connection).to_have_text("live")
        expect(page.locator("#head")).to_contain_text("pull interrupted")
        assert page.evaluate("window.here"), "it was loaded anew"
        page.get_by_role("link", name="pull", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="pull").click()
        see_state(page, program, model, "available")

        told = [fact for fact, _ in facts(program, model)]
        assert [fact for fact in told if fact != "PullProgressed"][:4] == [
            *("PullStarted", "PullInterrupted", "PullStarted", "PullCompleted")
        ]


def end(program: Program, number: int) -> None:
    """End a service, with or without warning."""
    if number == signal.SIGKILL:
        program.kill()
    else:
        program.stop(number)


def test_two_who_watch_see_the_same(
    slow: Reached, slow_ollama: Server, visits: Visits
) -> None:
    slow_ollama.did(registry=FAST)
    one, other = visits.open(slow), visits.open(slow)

    pull(one, "tinyllama:latest")

    expect(row(other, "tinyllama:latest")).to_contain_text("available")
    expect(other.get_by_role("row").filter(has_text="same weights")).to_have_count(1)
