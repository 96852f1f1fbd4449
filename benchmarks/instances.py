"""Instances of Herdbook or of the peer on one database, each in a process of its own.

Each process has models of its own, so that the peer's cache stays correct.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from multiprocessing.connection import Connection
from time import perf_counter
from typing import TypeAlias

from benchmarks.dataset import open_manager
from benchmarks.peer import tuned_peer_on_postgres
from benchmarks.rows.bench_command import Command, Load

END_S = 30.0
"""Longest time for the end of a process, seconds."""

THREADS = 5
"""Size of the peer's pool of connections, by default."""

Opening: TypeAlias = Callable[[AsyncExitStack, str, str], Awaitable[Command]]
"""Opens an instance on a database and a schema; returns its command."""


async def herdbook(stack: AsyncExitStack, url: str, schema: str) -> Command:
    """Open a manager."""
    address = f"{url}?schema={schema}"
    manager = await stack.enter_async_context(open_manager(address))
    return manager.mark_used


async def peer(stack: AsyncExitStack, url: str, schema: str) -> Command:
    """Open the peer, which is synchronous, with as many threads as connections."""
    loop = asyncio.get_running_loop()
    opened = tuned_peer_on_postgres(url, schema, creates=False)
    stack.callback(opened.close)
    threads = stack.enter_context(ThreadPoolExecutor(THREADS))

    def use(name: str) -> Awaitable[object]:
        return loop.run_in_executor(threads, opened.use, name)

    return use


class Instances:
    """Processes that send commands at the same time; use ``running``.

    Attributes:
        latencies: Duration of each command in all runs, s.
    """

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self.latencies: list[float] = []
        self._pipes = pipes

    @classmethod
    @asynccontextmanager
    async def running(
        cls, opening: Opening, url: str, schema: str, count: int, models: list[str]
    ) -> AsyncIterator[Instances]:
        """Start a number of instances, and end them when the block ends."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        pipes, processes = [], []
        for number in range(count):
            here, there = context.Pipe()
            process = context.Process(
                target=_process,
                args=(there, opening, url, schema, models[number::count]),
                daemon=True,
            )
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        try:
            await _answers(pipes)
            yield cls(pipes)
            for pipe in pipes:
                pipe.send(None)
        finally:
            for pipe in pipes:
                pipe.close()
            for process in processes:
                await asyncio.to_thread(process.join, END_S)

    async def run(self, callers: int, each: int) -> float:
        """Send commands from a number of callers; return the seconds per command."""
        count = len(self._pipes)
        started = perf_counter()
        for number, pipe in enumerate(self._pipes):
            pipe.send((len(range(number, callers, count)), each))
        for latencies in await _answers(self._pipes):
            self.latencies += latencies
        return (perf_counter() - started) / (callers * each)


async def _answers(pipes: Sequence[Connection]) -> list[list[float]]:
    received: list[list[float]] = await asyncio.gather(
        *(asyncio.to_thread(pipe.recv) for pipe in pipes)
    )
    return received


def _process(
    pipe: Connection, opening: Opening, url: str, schema: str, models: list[str]
) -> None:
    asyncio.run(_work(pipe, opening, url, schema, models))


async def _work(
    pipe: Connection, opening: Opening, url: str, schema: str, models: list[str]
) -> None:
    async with AsyncExitStack() as stack:
        command = await opening(stack, url, schema)
        for name in models:  # the first command on a model reads its stream
            await command(name)
        pipe.send([])
        while asked := await asyncio.to_thread(pipe.recv):
            load = Load(command, models, *asked)
            await load.run()
            pipe.send(load.latencies)
