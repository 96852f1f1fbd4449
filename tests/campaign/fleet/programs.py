"""The processes of the campaign: instances and nodes that are killed and come back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.ports import free_port
from support.postgres.dropping_proxy import DroppingProxy

START_S = 150.0
"""Longest time for a start, on a busy machine."""


class Program:
    """A process that serves at a fixed port.

    Attributes:
        name: Its name in messages.
        url: Its address.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        port = free_port()
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self._command = [*command, "--port", f"{port}"]
        self._output = folder / f"{name}.output"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def output(self) -> str:
        """The last warnings and errors that it wrote to standard error."""
        lines = self._output.read_text().splitlines()
        return "\n".join([line for line in lines if " info " not in line][-20:])

    @property
    def is_running(self) -> bool:
        """Whether it has a process, stopped or not."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it, again and again until it serves.

        Raises:
            TimeoutError: It does not start.
        """
        try:
            async with asyncio.timeout(START_S):
                while not await self._started():
                    await asyncio.sleep(0.2)  # such as an instance without a database
        except TimeoutError:
            raise TimeoutError(f"{self.name} does not start: {self.output}") from None

    async def _started(self) -> bool:
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("OLLAMA_", "HERDBOOK_"))
        }
        with self._output.open("a") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._command,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        self._process = process
        assert process.stdout is not None
        if not await process.stdout.readline():
            await process.wait()
            return False
        return True

    async def kill(self) -> None:
        """Kill it."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Stop it as a service manager does."""
        await self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop its execution; its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue its execution."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def _end(self, number: int) -> None:
        if not self.is_running:
            return
        assert self._process is not None
        self._process.send_signal(number)
        async with asyncio.timeout(START_S):
            await self._process.wait()


class Instance(Program):
    """A ``herdbook serve`` that reaches the database through a proxy of its own.

    Attributes:
        proxy: The proxy.
    """

    def __init__(
        self, name: str, database: str, ollama: str, proxy: DroppingProxy, folder: Path
    ) -> None:
        command = ("-m", "herdbook.cli", "serve", "--db", database, "--ollama", ollama)
        super().__init__(name, command, folder)
        self.proxy = proxy


class Node(Program):
    """A sandbox that keeps its models in a folder."""

    def __init__(self, name: str, folder: Path) -> None:
        state = folder / f"{name}.models"
        options = ("--models", "some", "--speed", "50", "--state", str(state))
        super().__init__(name, ("-m", "herdbook.sandbox", *options), folder)
