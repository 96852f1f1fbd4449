"""A sandbox server in a thread, and the result of a command."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from herdbook.sandbox import World, apply_step, serve

FAST = 100.0
"""Simulated seconds per second."""


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
