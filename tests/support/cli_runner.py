"""A sandbox server in a thread, and commands that run in this process."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from herdbook.cli import run
from herdbook.sandbox import (
    Behaviour,
    RealClock,
    Settings,
    World,
    apply_step,
    serve,
)

FAST = 100.0
"""Simulated seconds per second."""

MEMORY_BYTES = 64_000_000_000
"""Memory of the simulated GPU, enough for all models of a test."""


class SandboxThread:
    """A sandbox server in a thread of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.address = ""
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(20)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with serve(self.world) as self.address:
            self._ready.set()
            await self._ended.wait()

    def apply(self, **step: object) -> None:
        """Apply a step to the server; see the sandbox's faults."""

        async def now() -> None:
            apply_step(self.world, step)

        asyncio.run_coroutine_threadsafe(now(), self._loop).result(20)

    def close(self) -> None:
        """Stop serving and wait for the thread; safe to call twice."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(20)
        assert not self._thread.is_alive()


@contextmanager
def sandbox_threads() -> Iterator[Callable[..., SandboxThread]]:
    """Yield a function that starts a sandbox server; end all when the block ends."""
    servers: list[SandboxThread] = []

    def start(
        models: str = "some", *, speed: float = FAST, **usual: object
    ) -> SandboxThread:
        world = World(
            models=models,
            clock=RealClock(speed=speed),
            settings=Settings(vram_bytes=MEMORY_BYTES),
            usual=Behaviour(**usual),  # type: ignore[arg-type]  # fields by name
        )
        servers.append(SandboxThread(world))
        return servers[-1]

    try:
        yield start
    finally:
        for server in servers:
            server.close()


class CommandResult(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The output as one JSON value."""
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        """The output as one JSON value per line."""
        return [json.loads(line) for line in self.out.splitlines()]


Herdbook = Callable[..., CommandResult]
"""Runs a command, given as its words."""


def command_runner(capsys: pytest.CaptureFixture[str]) -> Herdbook:
    """Return a function that runs a command in this process."""

    def call(*words: str) -> CommandResult:
        capsys.readouterr()
        code = run(words)
        out, err = capsys.readouterr()
        return CommandResult(code, out, err)

    return call
