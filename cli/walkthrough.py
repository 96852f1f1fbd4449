"""A walk of real commands, each in a process of its own, one of them killed."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from herdbook.cli.invocation import Invocation
from herdbook.cli.output import Piece
from herdbook.cli.render import progress
from herdbook.core import HerdbookError, PullProgress, Storage, SystemClock
from herdbook.presentation import shapes

COMMAND = (sys.executable, "-m", "herdbook.cli")
START_WITHIN_S = 30.0
"""Seconds that a sandbox may take to start."""


class SandboxFailedError(HerdbookError):
    """The sandbox for the demo did not start."""

    code = "sandbox_failed"


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """Where the walk takes place.

    Attributes:
        address: The server.
        what: What that is, in words.
        log: The walk's own log.
        quick: A model that is fetched soon.
        slow: A model whose pull takes long enough to be killed.
        kill_at: Percents at which it is killed.
        afterwards: What to try next, in words.
    """

    address: str
    what: str
    log: Path
    quick: str
    slow: str
    kill_at: int
    afterwards: str


class Walk:
    """One walk: it says what it does, and does it.

    Args:
        invocation: The call that it belongs to.
        stage: Where it takes place.
    """

    def __init__(self, invocation: Invocation, stage: Stage) -> None:
        self.stage = stage
        self._screen = invocation.screen
        self._json = invocation.json
        self._environment = {
            **os.environ,
            "HERDBOOK_DB": str(stage.log),
            "HERDBOOK_NODE": "demo",
            "OLLAMA_HOST": stage.address,
        }

    def say(self, text: str) -> None:
        """Say something to people."""
        if not self._json:
            self._screen.write("")
            self._screen.write(Piece(text, "bold"))

    async def step(self, text: str, *words: str) -> int:
        """Run one command, and return its exit code."""
        self._announce(text, words)
        process = await self._start(words, stdout=DEVNULL if self._json else None)
        return self._tell(words, await process.wait())

    def _announce(self, text: str, words: Sequence[str]) -> None:
        self.say(text)
        if not self._json:
            self._screen.write(Piece(f"$ herdbook {shlex.join(words)}", "green"))
        self._screen.stream.flush()

    async def _start(self, words: Sequence[str], *, stdout: int | None) -> Process:
        return await asyncio.create_subprocess_exec(
            *COMMAND, *words, stdout=stdout, env=self._environment
        )

    def _tell(self, words: Sequence[str], code: int) -> int:
        if self._json:
            told = {"command": ["herdbook", *words], "exit": code}
            self._screen.write_json(told, in_lines=True)
        return code

    async def pull_and_kill(self, text: str, name: str) -> bool:
        """Pull in a process, and kill that without warning in the middle.

        Returns:
            Whether it was killed: a pull may be over before.
        """
        words = ("pull", name)
        self._announce(text, words)
        process = await self._start([*words, "--json"], stdout=PIPE)
        percent = None
        with progress.meter(self._screen, name, as_json=self._json) as meter:
            async for told in _followed(process):
                percent = told.percent
                meter.tell(told)
                if percent is not None and self.stage.kill_at <= percent < 100:
                    process.kill()
                    break
        code = self._tell(words, await process.wait())
        if code < 0 and not self._json:
            self._screen.write(f"killed at {percent} %: nothing could be tidied up")
        return code < 0

    async def position(self) -> int:
        """Return the last event of the log, without being one who recovers it."""
        async with Storage.open(self.stage.log, SystemClock()) as storage:
            return (await storage.store.head()).position


async def _followed(process: Process) -> AsyncIterator[PullProgress]:
    """Yield the progress that a pull with ``--json`` tells."""
    assert process.stdout is not None
    async for line in process.stdout:
        told = msgspec.json.decode(line, type=shapes.Progress)
        yield PullProgress(
            completed_bytes=told.completed_bytes or 0,
            total_bytes=told.total_bytes,
            rate_bytes_s=told.rate_bytes_s,
            eta_s=told.eta_s,
            status=told.status,
        )


@asynccontextmanager
async def sandbox_server(*, rate: float) -> AsyncIterator[str]:
    """Run a sandbox in a process of its own while the block runs.

    Args:
        rate: Bytes per second of each of its connections to the registry.

    Raises:
        SandboxFailedError: It did not start.
    """
    address = ""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "sandbox", "--registry-rate", f"{rate:.0f}", stdout=PIPE
    )
    try:
        assert process.stdout is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(START_WITHIN_S):
                address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise SandboxFailedError("the sandbox", "did not start")
        yield address
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
