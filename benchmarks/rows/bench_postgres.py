"""Commands on a PostgreSQL server: one instance, and four on the same log.

As in ``bench_command``, ours is ``await manager.mark_used(name)``. All run in this
process against one server, which syncs each commit. Each instance has models of its
own, so that the peer's cache stays correct; it has as many threads as connections.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg

from benchmarks.dataset import first_facts, names, open_manager
from benchmarks.measure import Row, at_least, interleave, percentile
from benchmarks.peer import PeerManager, tuned_peer_on_postgres
from benchmarks.rows.bench_command import Command, Load
from benchmarks.sizes import Sizes
from herdbook.core import ModelManager
from herdbook.events.recorded import Cause
from tests.support.postgres.server import PostgresServer, new_directory

INSTANCES = (1, 4)

PEER = "eventsourcing, tuned"

THREADS = 5
"""Size of the peer's pool of connections, by default."""

GOALS = {100: at_least(3)}
"""Goals compared with the peer, by number of callers."""

DISK = "/var/tmp"
"""Where the server keeps its files; /tmp may be in memory."""

SETTINGS = ("fsync=on", "synchronous_commit=on", "max_connections=200")


async def run(_: Path, sizes: Sizes) -> list[Row]:
    """Measure commands by one caller and by many."""
    rows: list[Row] = []
    async with _server() as url:
        for instances in INSTANCES:
            async with AsyncExitStack() as stack:
                ours = await _herdbook(stack, url, instances, sizes.models)
                theirs = await _peer(stack, url, instances, sizes.models)
                for callers, each in sizes.commands:
                    if callers >= instances:
                        rows += await _compare(ours, theirs, callers, each, sizes)
    return rows


@asynccontextmanager
async def _server() -> AsyncIterator[str]:
    directory = new_directory(DISK)
    server = PostgresServer(directory, SETTINGS)
    try:
        await asyncio.to_thread(server.create)
        await asyncio.to_thread(server.start)
        yield server.url
    finally:
        server.stop()
        shutil.rmtree(directory)


async def _herdbook(
    stack: AsyncExitStack, url: str, instances: int, models: int
) -> list[Command]:
    address = f"{url}?schema=herdbook_{instances}"
    managers: list[ModelManager] = [
        await stack.enter_async_context(open_manager(address)) for _ in range(instances)
    ]
    for name in names(models):
        await managers[0]._repository.record(  # noqa: SLF001 - no server is needed
            name, first_facts(name), cause=Cause.OBSERVED
        )
    return [manager.mark_used for manager in managers]


async def _peer(
    stack: AsyncExitStack, url: str, instances: int, models: int
) -> list[Command]:
    loop = asyncio.get_running_loop()
    commands: list[Command] = []
    schema = f"peer_{instances}"
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(f"CREATE SCHEMA {schema}".encode())
    for number in range(instances):
        peer = tuned_peer_on_postgres(url, schema)
        stack.callback(peer.close)
        threads = stack.enter_context(ThreadPoolExecutor(THREADS))
        if number == 0:
            for name in names(models):
                peer.discover(name)

        def use(
            name: str, threads: ThreadPoolExecutor = threads, peer: PeerManager = peer
        ) -> Awaitable[object]:
            return loop.run_in_executor(threads, peer.use, name)

        commands.append(use)
    return commands


async def _compare(
    ours: Sequence[Command],
    theirs: Sequence[Command],
    callers: int,
    each: int,
    sizes: Sizes,
) -> list[Row]:
    models = names(sizes.models)
    loads = [
        Load(_shared(commands, models), models, callers, each)
        for commands in (ours, theirs)
    ]
    own, peer = await interleave(sizes.rounds, *(load.run for load in loads))
    what = f"PostgreSQL, {len(ours)} instance{'s' * (len(ours) > 1)}, " + (
        "alone" if callers == 1 else f"{callers} callers"
    )
    late, peer_late = (percentile(load.latencies, 99) * 1e3 for load in loads)
    return [
        Row(
            what=f"command, {what}",
            unit="µs",
            ours=own * 1e6,
            beside=PEER,
            theirs=peer * 1e6,
            goal=GOALS.get(callers),
        ),
        Row(
            what=f"command, {what}, p99",
            unit="ms",
            ours=late,
            beside=PEER,
            theirs=peer_late,
        ),
    ]


def _shared(commands: Sequence[Command], models: list[str]) -> Command:
    """Return a command that each model sends to its own instance."""
    of_model = {name: commands[n % len(commands)] for n, name in enumerate(models)}

    def command(name: str) -> Awaitable[object]:
        return of_model[name](name)

    return command
