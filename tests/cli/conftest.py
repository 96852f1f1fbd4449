"""Run the command in this process against a fake server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli_runner import FAST, CommandResult, Herdbook, SandboxThread

from herdbook.cli import run
from herdbook.sandbox import Behaviour, RealClock, Settings, World


@pytest.fixture
def serving() -> Iterator[Callable[..., SandboxThread]]:
    """Return a function that starts a server; all are closed at the end."""
    servers: list[SandboxThread] = []

    def start(
        *, models: str = "some", speed: float = FAST, **usual: object
    ) -> SandboxThread:
        world = World(
            models=models,
            clock=RealClock(speed=speed),
            settings=Settings(vram_bytes=64_000_000_000),
            usual=Behaviour(**usual),  # type: ignore[arg-type]  # fields by name
        )
        servers.append(SandboxThread(world))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


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

    def call(*words: str) -> CommandResult:
        capsys.readouterr()
        code = run(words)
        out, err = capsys.readouterr()
        return CommandResult(code, out, err)

    return call
