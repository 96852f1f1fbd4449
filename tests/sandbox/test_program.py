"""The sandbox as a program of its own."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.sandbox_program import sandbox_process

from herdbook.sandbox import Options
from herdbook.sandbox.__main__ import parse
from herdbook.sandbox.run import world_of

if TYPE_CHECKING:
    from pathlib import Path


def post(url: str, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{url}{path}", json=body, timeout=10)


def last_seen(url: str) -> Any:
    return httpx.get(f"{url}/sandbox/seen").json()["seen"][-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_program_prints_its_address_and_stops_at_a_signal(
    number: signal.Signals,
) -> None:
    with sandbox_process("--models", "herd") as (process, url):
        assert httpx.get(url).text == "Ollama is running"
        began = time.monotonic()

        process.send_signal(number)
        rest, _ = process.communicate(timeout=5)

    assert process.returncode == 0
    assert rest == ""
    assert time.monotonic() - began < 2.0  # a fraction of it where nothing else runs


def test_killed_program_finds_its_store_again(tmp_path: Path) -> None:
    kept = ("--state", str(tmp_path), "--registry-rate", "20000000")
    with sandbox_process("--models", "none", *kept) as (process, url):
        post(url, "/api/pull", model="plain")
        with httpx.stream(
            "POST", f"{url}/api/pull", json={"model": "smollm2:135m"}
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            post(url, "/sandbox/clock", advance=2)
        while last_seen(url)["ended"] != "closed by client":
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with sandbox_process("--models", "some", *kept) as (_, url):
        names = [one["name"] for one in httpx.get(f"{url}/api/tags").json()["models"]]
        with httpx.stream(
            "POST", f"{url}/api/pull", json={"model": "smollm2:135m"}
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            resumed = httpx.Response(200, text=next(lines)).json()

    assert names == ["plain:latest"]
    assert resumed["completed"] > 80_000_000


def test_manual_clock_stands_still_until_it_is_advanced() -> None:
    with sandbox_process("--models", "herd", "--clock", "manual") as (_, url):
        before = httpx.get(f"{url}/sandbox/clock").json()["now"]
        moved = post(url, "/sandbox/clock", advance=3600).json()["now"]
        after = httpx.get(f"{url}/sandbox/clock").json()["now"]

    assert (before, moved, after) == (0.0, 3600.0, 3600.0)


def test_words_of_the_command_line_become_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OLLAMA_KEEP_ALIVE", "7m")

    options = parse(["--speed", "60", "--profile", "older", "--memory", "1000"])

    assert (options.speed, options.profile, options.memory) == (60.0, "older", 1000)
    assert world_of(options).settings.keep_alive_s == 420.0


def test_options_configure_the_sandbox() -> None:
    world = world_of(Options(models="none", registry_rate=5.0, vram=7))

    assert world.store.entries == {}
    assert world.registry.behaviour.rate == 5.0
    assert world.settings.vram_bytes == 7
