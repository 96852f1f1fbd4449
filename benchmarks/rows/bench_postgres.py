"""Commands on a PostgreSQL server: one instance, and four on the same log.

As in ``bench_command``, ours is ``await manager.mark_used(name)``. Each instance is a
process with models of its own, so that the peer's cache stays correct. The server syncs
each commit.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import psycopg

from benchmarks.dataset import first_facts, names, open_manager
from benchmarks.instances import Instances, herdbook, peer
from benchmarks.measure import Row, at_least, interleave, percentile
from benchmarks.peer import tuned_peer_on_postgres
from benchmarks.sizes import Sizes
from herdbook.events.recorded import Cause
from tests.support.postgres.server import PostgresServer, new_directory

INSTANCES = (1, 4)

PEER = "eventsourcing, tuned"

GOALS = {100: at_least(3)}
"""Goals compared with the peer, by number of callers."""

DISK = "/var/tmp"
"""Where the server keeps its files; /tmp may be in memory."""

SETTINGS = ("fsync=on", "synchronous_commit=on", "max_connections=200")


async def run(_: Path, sizes: Sizes) -> list[Row]:
    """Measure commands by one caller and by many."""
    rows: list[Row] = []
    models = names(sizes.models)
    async with _server() as url:
        for count in INSTANCES:
            ours, theirs = f"herdbook_{count}", f"peer_{count}"
            await _discover(url, ours, theirs, models)
            async with (
                Instances.running(herdbook, url, ours, count, models) as own,
                Instances.running(peer, url, theirs, count, models) as others,
            ):
                for callers, each in sizes.commands:
                    if callers >= count:
                        rows += await _compare(own, others, count, callers, each, sizes)
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


async def _discover(url: str, ours: str, theirs: str, models: list[str]) -> None:
    """Record the models in a schema for each of the two."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(f"CREATE SCHEMA {theirs}".encode())
    other = tuned_peer_on_postgres(url, theirs, creates=True)
    async with open_manager(f"{url}?schema={ours}") as manager:
        for name in models:
            await manager._repository.record(  # noqa: SLF001 - no server is needed
                name, first_facts(name), cause=Cause.OBSERVED
            )
            other.discover(name)
    other.close()


async def _compare(
    ours: Instances,
    theirs: Instances,
    count: int,
    callers: int,
    each: int,
    sizes: Sizes,
) -> list[Row]:
    for instances in (ours, theirs):
        instances.latencies.clear()
    runs = (partial(one.run, callers, each) for one in (ours, theirs))
    own, other = await interleave(sizes.rounds, *runs)
    what = f"PostgreSQL, {count} instance{'s' * (count > 1)}, " + (
        "alone" if callers == 1 else f"{callers} callers"
    )
    late, other_late = (percentile(one.latencies, 99) * 1e3 for one in (ours, theirs))
    return [
        Row(
            what=f"command, {what}",
            unit="µs",
            ours=own * 1e6,
            beside=PEER,
            theirs=other * 1e6,
            goal=GOALS.get(callers),
        ),
        Row(
            what=f"command, {what}, p99",
            unit="ms",
            ours=late,
            beside=PEER,
            theirs=other_late,
        ),
    ]
