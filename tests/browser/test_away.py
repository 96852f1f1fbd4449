"""A service that stops and starts again while a page is open.

It has a file of its own, and its name, because what takes longest is to begin first.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from playwright.sync_api import expect
from support.cli_runner import SandboxThread
from support.ports import free_port
from support.service_program import ServiceProcess, run_service
from support.web.browser import (
    FAST_REGISTRY,
    SLOW_REGISTRY,
    PageSession,
    events_and_actors,
    expect_state,
    pull,
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_service_that_stops_and_starts_again(
    number: int, tmp_path: Path, slow_ollama: SandboxThread, visits: PageSession
) -> None:
    visits.expect_errors(
        "ERR_CONNECTION_REFUSED",
        "ERR_INCOMPLETE_CHUNKED_ENCODING",
        "ERR_EMPTY_RESPONSE",
        "ERR_CONNECTION_RESET",
    )
    model = "embeddinggemma:latest" if number == signal.SIGTERM else "qwen3:0.6b"
    log, port = tmp_path / "herd.db", free_port()
    slow_ollama.apply(registry=SLOW_REGISTRY)
    with run_service(log, slow_ollama.address, port=port) as program:
        page = visits.open(program)
        connection = page.locator("#connection")
        pull(page, model)
        expect(page.locator("#works")).to_contain_text("MB/s")
        expect(connection).to_have_text("live")
        end(program, number)
        expect(connection).to_contain_text("disconnected since")
        page.evaluate("window.here = true")
    slow_ollama.apply(registry=FAST_REGISTRY)
    with run_service(log, slow_ollama.address, port=port) as program:
        # The page waits up to 15 s between two attempts to connect.
        expect(connection).to_have_text("live", timeout=45_000)
        expect(page.locator("#head")).to_contain_text("pull interrupted")
        assert page.evaluate("window.here"), "it was loaded anew"
        page.get_by_role("link", name="Pull again", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="pull").click()
        expect_state(page, program, model, "available")

        result = [fact for fact, _ in events_and_actors(program, model)]
        assert [fact for fact in result if fact != "PullProgressed"][:4] == [
            *("PullStarted", "PullInterrupted", "PullStarted", "PullCompleted")
        ]


def end(program: ServiceProcess, number: int) -> None:
    """End a service, with or without warning."""
    if number == signal.SIGKILL:
        program.kill()
    else:
        program.stop(number)
