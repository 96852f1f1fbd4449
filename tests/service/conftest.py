"""The service in front of a sandbox server: in a thread, or as a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli_runner import SandboxThread, sandbox_threads
from support.service_program import (
    RunningService,
    ServiceProcess,
    run_in_thread,
    run_service,
)


@pytest.fixture
def another() -> Iterator[Callable[..., SandboxThread]]:
    """Return a function that starts one more server."""
    with sandbox_threads() as start:
        yield start


@pytest.fixture
def ollama(another: Callable[..., SandboxThread]) -> SandboxThread:
    """Return a sandbox server with a few models."""
    return another()


@pytest.fixture
def slow_ollama(another: Callable[..., SandboxThread]) -> SandboxThread:
    """Return a sandbox server with slow pulls."""
    return another(speed=1, rate=2e6)


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
