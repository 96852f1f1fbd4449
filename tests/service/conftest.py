"""The service as a real process, in front of a pretend Ollama."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from command import FAST, Server
from service_program import Program, service

from herdbook.sandbox import Behaviour, RealClock, Settings, World

Serve = Callable[..., AbstractContextManager[Program]]


@pytest.fixture
def ollama() -> Iterator[Server]:
    """Return a pretend server with a few models."""
    server = Server(
        World(
            models="some",
            clock=RealClock(speed=FAST),
            settings=Settings(vram_bytes=64_000_000_000),
        )
    )
    yield server
    server.close()


@pytest.fixture
def slow_ollama() -> Iterator[Server]:
    """Return a pretend server that takes its time with pulls."""
    server = Server(
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
def serve(tmp_path: Path, ollama: Server) -> Serve:
    """Return what runs a service in front of that server."""
    return partial(service, tmp_path / "herd.db", ollama.address)


@pytest.fixture
def herdbook(serve: Serve) -> Iterator[Program]:
    """Return a service that runs."""
    with serve() as program:
        yield program
