"""The service in front of a fake Ollama: in a thread, or as a real process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli_runner import FAST, SandboxThread
from support.service_program import (
    RunningService,
    ServiceProcess,
    run_in_thread,
    run_service,
)

from herdbook.sandbox import Behaviour, RealClock, Settings, World


@pytest.fixture
def ollama() -> Iterator[SandboxThread]:
    """Return a fake server with a few models."""
    server = SandboxThread(
        World(
            models="some",
            clock=RealClock(speed=FAST),
            settings=Settings(vram_bytes=64_000_000_000),
        )
    )
    yield server
    server.close()


@pytest.fixture
def slow_ollama() -> Iterator[SandboxThread]:
    """Return a fake server with slow pulls."""
    server = SandboxThread(
        World(
            models="some",
            clock=RealClock(speed=1),
            settings=Settings(vram_bytes=64_000_000_000),
            usual=Behaviour(rate=2e6),
        )
    )
    yield server
    server.close()


@pytest.fixture
def herdbook(tmp_path: Path, ollama: SandboxThread) -> Iterator[RunningService]:
    """Return a service that runs in a thread."""
    with run_in_thread(tmp_path / "herd.db", ollama.address) as running:
        yield running


@pytest.fixture
def program(tmp_path: Path, ollama: SandboxThread) -> Iterator[ServiceProcess]:
    """Return a service that is a process of its own."""
    with run_service(tmp_path / "herd.db", ollama.address) as running:
        yield running


@pytest.fixture
def another() -> Iterator[Callable[..., SandboxThread]]:
    """Return a function that starts one more server."""
    servers: list[SandboxThread] = []

    def start(models: str = "some") -> SandboxThread:
        memory = Settings(vram_bytes=64_000_000_000)
        clock = RealClock(speed=FAST)
        servers.append(
            SandboxThread(World(models=models, clock=clock, settings=memory))
        )
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def fleet(
    herdbook: RunningService, another: Callable[..., SandboxThread]
) -> dict[str, SandboxThread]:
    """Return two more servers, which the service manages."""
    servers = {"gpu1": another(), "gpu2": another("none")}
    for name, server in servers.items():
        body = {"name": name, "url": server.address, "settings": {"weight": 2}}
        added = herdbook.http.post("/v1/nodes", json=body)
        assert added.status_code == 201, added.text
        assert added.json()["reached"] is True
    return servers
