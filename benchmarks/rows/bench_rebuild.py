"""Rebuilding views from the whole log, compared with reading the same columns.

The floor is ``sqlite3`` alone: every row becomes a tuple.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from contextlib import closing
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks.dataset import fill
from benchmarks.measure import Goal, Row, at_least, at_most, interleave
from benchmarks.sizes import Sizes
from herdbook.core.views import Views
from herdbook.events import codec
from herdbook.events.recorded import GENESIS, canonical_bytes, chained_hash
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.verify import verify
from herdbook.projections.status_view import StatusView

SELECT = """
SELECT
    position, stream, version, event_id, type, schema, data, occurred_at,
    recorded_at, actor, cause, correlation_id, causation_id, hash
FROM events ORDER BY position
"""


async def run(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure rebuilding the views."""
    path = folder / "rebuild.db"
    await fill(path, sizes.rebuilt, sizes.models)
    async with await SQLiteEventStore.open(path) as store:
        medians = await interleave(
            sizes.rounds,
            partial(_select, path),
            partial(_rebuild, store),
            partial(_rebuild_verified, store),
            partial(_rebuild_all, store),
            partial(_verify, store),
        )
    an_event = medians[-1] * (1e6 / sizes.rebuilt)
    floor, *ours = (median * 1e3 for median in medians)
    lines: tuple[tuple[str, Goal | None], ...] = (
        ("rebuild of the status view", at_least(0.5)),
        ("rebuild of the status view, chain verified", at_least(0.28)),
        ("rebuild of all the manager's views", None),
        ("verification of everything", None),
    )
    return [
        *(
            Row(
                what=f"{what}, {sizes.rebuilt:,}",
                unit="ms",
                ours=own,
                beside="SELECT of the same columns",
                theirs=floor,
                goal=goal,
            )
            for (what, goal), own in zip(lines, ours, strict=True)
        ),
        Row(what="verification, an event", unit="µs", ours=an_event, goal=at_most(8)),
    ]


async def _select(path: Path) -> float:
    with closing(sqlite3.connect(path)) as connection:
        started = perf_counter()
        deque(connection.execute(SELECT), maxlen=0)
        return perf_counter() - started


async def _rebuild(store: SQLiteEventStore) -> float:
    started = perf_counter()
    view = StatusView()
    async for event in store.read_all():
        view.apply(event)
    return perf_counter() - started


async def _rebuild_verified(store: SQLiteEventStore) -> float:
    started = perf_counter()
    view, previous = StatusView(), GENESIS
    async for event in store.read_stored():
        previous = chained_hash(previous, canonical_bytes(event))
        assert event.hash == previous
        view.apply(codec.read(event))
    return perf_counter() - started


async def _rebuild_all(store: SQLiteEventStore) -> float:
    started = perf_counter()
    await Views().replay(store)
    return perf_counter() - started


async def _verify(store: SQLiteEventStore) -> float:
    started = perf_counter()
    found = await verify(store)
    assert not found.findings
    return perf_counter() - started
