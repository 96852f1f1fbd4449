"""Run the commands of the demo, each in its own process, and kill one of them."""

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
from herdbook.events.shared.cancellation import finish
from herdbook.presentation import shapes

COMMAND = (sys.executable, "-m", "herdbook.cli")
START_WITHIN_S = 30.0
"""Seconds that a sandbox may take to start."""

END_WITHIN_S = 10.0
"""Seconds after which a command that does not stop is killed."""


class SandboxFailedError(HerdbookError):
    """The sandbox for the demo did not start."""

    code = "sandbox_failed"


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """The server, log and models of one demo.

    Attributes:
        address: Address of the server.
        server: Description of the server.
        log: Log file of the demo.
        quick: A model that downloads fast.
        slow: A model whose pull takes long enough to be killed.
        kill_at: Percentage at which that pull is killed.
        afterwards: Suggestion for the next steps.
    """

    address: str
    server: str
    log: Path
    quick: str
    slow: str
    kill_at: int
    afterwards: str


class Walkthrough:
    """Announce and run the commands of a demo.

    Args:
        invocation: The call of ``demo``.
        stage: Server, log and models.
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
        """Write a text, unless JSON is printed."""
        if not self._json:
            self._screen.write("")
            self._screen.write(Piece(text, "bold"))

    async def step(self, text: str, *words: str) -> int:
        """Run one command and return its exit code."""
        self._announce(text, words)
        async with self._started(words, DEVNULL if self._json else None) as process:
            return self._report(words, await process.wait())

    def _announce(self, text: str, words: Sequence[str]) -> None:
        self.say(text)
        if not self._json:
            self._screen.write(Piece(f"$ herdbook {shlex.join(words)}", "green"))
        self._screen.stream.flush()

    @asynccontextmanager
    async def _started(
        self, words: Sequence[str], stdout: int | None
    ) -> AsyncIterator[Process]:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *words, stdout=stdout, env=self._environment
        )
        try:
            yield process
        finally:
            await finish(_end(process))

    def _report(self, words: Sequence[str], code: int) -> int:
        if self._json:
            ran = {"command": ["herdbook", *words], "exit": code}
            self._screen.write_json(ran, in_lines=True)
        return code

    async def pull_and_kill(self, text: str, name: str) -> int:
        """Pull in a process and kill it halfway with SIGKILL.

        Returns:
            The exit code: negative if it was killed; the pull may end first.
        """
        words = ("pull", name)
        self._announce(text, words)
        percent = None
        async with self._started([*words, "--json"], PIPE) as process:
            with progress.meter(self._screen, name, as_json=self._json) as meter:
                async for each in _progress(process):
                    percent = each.percent
                    meter.show(each)
                    if percent is not None and self.stage.kill_at <= percent < 100:
                        process.kill()
                        break
            code = self._report(words, await process.wait())
        if code < 0 and not self._json:
            self._screen.write(f"killed at {percent}%, with no chance to clean up")
        return code

    async def position(self) -> int:
        """Return the last position of the log, without recovering it."""
        async with Storage.open(self.stage.log, SystemClock()) as storage:
            return (await storage.store.head()).position


async def _progress(process: Process) -> AsyncIterator[PullProgress]:
    """Yield the progress that ``pull --json`` prints."""
    assert process.stdout is not None
    async for line in process.stdout:
        read = msgspec.json.decode(line, type=shapes.Progress)
        yield PullProgress(
            completed_bytes=read.completed_bytes or 0,
            total_bytes=read.total_bytes,
            rate_bytes_s=read.rate_bytes_s,
            eta_s=read.eta_s,
            status=read.status,
        )


@asynccontextmanager
async def sandbox_server(*, rate: float) -> AsyncIterator[str]:
    """Run a sandbox in its own process while the block runs.

    Args:
        rate: Bytes per second of each simulated download connection.

    Raises:
        SandboxFailedError: The sandbox did not start.
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
        await finish(_end(process))


async def _end(process: Process) -> None:
    """End a process that still runs, for example because the demo was stopped."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(END_WITHIN_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
