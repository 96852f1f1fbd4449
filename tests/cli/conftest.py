"""Run the command in this process against a sandbox server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli_runner import (
    Herdbook,
    SandboxThread,
    command_runner,
    sandbox_threads,
)


@pytest.fixture
def serving() -> Iterator[Callable[..., SandboxThread]]:
    """Return a function that starts a server; all are closed at the end."""
    with sandbox_threads() as start:
        yield start


@pytest.fixture
def server(
    serving: Callable[..., SandboxThread], monkeypatch: pytest.MonkeyPatch
) -> SandboxThread:
    """Return a server to which OLLAMA_HOST points."""
    started = serving()
    monkeypatch.setenv("OLLAMA_HOST", started.address)
    return started


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OLLAMA_HOST point to an address where nothing answers."""
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path in HERDBOOK_DB; the file does not exist yet."""
    path = tmp_path / "herd.db"
    monkeypatch.setenv("HERDBOOK_DB", str(path))
    monkeypatch.setenv("LOGNAME", "ann")
    return path


@pytest.fixture
def herdbook(log: Path, capsys: pytest.CaptureFixture[str]) -> Herdbook:
    """Return a function that runs the command in this process."""
    return command_runner(capsys)
