"""The verb serve, as a person types it: address first, sandbox where nobody answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.cli_runner import Herdbook

from herdbook.cli.programs.run_service import ANCHOR_TOKEN, UpkeepOptions


@contextmanager
def serving(
    folder: Path, *words: str, **environment: str
) -> Iterator[tuple[list[str], str]]:
    """Run the verb; give what it says first, and its address."""
    command = [sys.executable, "-m", "herdbook.cli", "serve", "--port", "0", *words]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OLLAMA")}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**kept, "XDG_DATA_HOME": str(folder), **environment},
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline().strip()
        lines = [first, process.stdout.readline().strip()]
        try:
            yield lines, first
            process.send_signal(signal.SIGINT)
            assert process.wait(5) == 0
        finally:
            process.kill()


def test_sandbox_replaces_an_unreachable_server(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, "--sandbox", "auto", OLLAMA_HOST="127.0.0.1:9") as (
        lines,
        address,
    ):
        page = httpx.get(address, headers={"accept": "text/html"}, trust_env=False)
        models = httpx.get(f"{address}/v1/models", trust_env=False).json()

    assert address.startswith("http://127.0.0.1:")
    assert lines[1].startswith("No Ollama server answers. Sandbox: ")
    assert "Sandbox: a simulated Ollama server." in page.text
    assert len(models) > 1
    assert {model["node"] for model in models} == {"sandbox"}
    assert (tmp_path / "herdbook" / "sandbox" / "herd.db").exists()
    assert not (tmp_path / "herdbook" / "herd.db").exists()


def test_sandbox_starts_with_a_sample_history_once(tmp_path: Path) -> None:
    words = ("--sandbox", "always")
    with serving(tmp_path, *words) as (_, address):
        models = httpx.get(f"{address}/v1/models", trust_env=False).json()
        first = httpx.get(f"{address}/v1/events?limit=1000", trust_env=False).json()
    with serving(tmp_path, *words) as (_, address):
        second = httpx.get(f"{address}/v1/events?limit=1000", trust_env=False).json()

    assert {"available", "loaded", "error"} <= {model["state"] for model in models}
    assert by_demo(first) > 30
    assert by_demo(second) == by_demo(first)


def test_user_log_gets_no_sample_history(tmp_path: Path) -> None:
    words = ("--sandbox", "always", "--db", str(tmp_path / "own.db"))
    with serving(tmp_path, *words) as (_, address):
        events = httpx.get(f"{address}/v1/events?limit=1000", trust_env=False).json()

    assert by_demo(events) == 0


def by_demo(page: dict[str, Any]) -> int:
    """Count the events of the sample history's actors."""
    return sum(event["actor"].startswith("demo") for event in page["events"])


def test_sandbox_keeps_its_models_next_to_its_log(tmp_path: Path) -> None:
    words = ("--sandbox", "always", "--db", str(tmp_path / "play.db"))
    with serving(tmp_path, *words) as (_, address):
        gone = httpx.get(f"{address}/v1/models", trust_env=False).json()[0]["name"]
        httpx.delete(f"{address}/v1/models/{gone}", trust_env=False)
    with serving(tmp_path, *words) as (_, address):
        again = httpx.get(f"{address}/v1/models", trust_env=False).json()

    assert gone not in {model["name"] for model in again}
    assert (tmp_path / "play.db-sandbox").is_dir()


def test_answering_server_is_used(
    tmp_path: Path, server: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    del server  # OLLAMA_HOST names it
    address_of_ollama = os.environ["OLLAMA_HOST"]
    with serving(tmp_path, "--sandbox", "auto", OLLAMA_HOST=address_of_ollama) as (
        lines,
        address,
    ):
        status = httpx.get(f"{address}/v1/status", trust_env=False).json()

    assert "sandbox" not in lines[1]
    assert status["node"]["url"] == address_of_ollama
    assert (tmp_path / "herdbook" / "herd.db").exists()


def test_serve_errors_are_one_line(herdbook: Herdbook, tmp_path: Path) -> None:
    missing = herdbook("serve", "--tokens", str(tmp_path / "none.toml"))
    beyond = herdbook("serve", "--host", "0.0.0.0", "--port", "0")

    assert (missing.code, missing.err.count("\n")) == (2, 1)
    assert "none.toml" in missing.err
    assert beyond.code == 2
    assert "herdbook token" in beyond.err


def test_anchor_token_is_removed_from_the_environment_in_any_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ANCHOR_TOKEN, "secret")

    assert UpkeepOptions().settings().anchors is None
    assert ANCHOR_TOKEN not in os.environ
