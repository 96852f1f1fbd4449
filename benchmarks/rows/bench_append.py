"""The log itself: appending, reading and opening, compared with bare SQLite.

The floor is the module ``sqlite3`` on the same table, with its indexes and triggers,
and the same durability: one INSERT, one commit, without a chain, version checks or a
thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from benchmarks.measure import (
    Median,
    Row,
    Run,
    at_least,
    at_most_more,
    interleave,
    print_progress,
    table,
)
from herdbook.events import codec
from herdbook.events.facts import ModelUsed
from herdbook.events.recorded import (
    GENESIS,
    Cause,
    NewEvent,
    canonical_bytes,
    chained_hash,
    new_id,
)
from herdbook.events.sqlite.schema import CONNECTION, MIGRATIONS, QUERIES
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY

TURNS = 1000
"""Appends that are measured alone, alternating with the floor."""

CALLERS = 100
"""Concurrent callers."""


def used(number: int) -> NewEvent:
    """Return a new event of the usual size."""
    return NewEvent(
        fact=ModelUsed(purpose=f"benchmark {number}"),
        occurred_at=datetime.now(UTC),
        actor="library:benchmark",
        cause=Cause.COMMAND,
    )


class Raw:
    """Bare ``sqlite3``: one INSERT, one commit."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript(CONNECTION)
        for statement in MIGRATIONS[0]:
            self._connection.execute(statement)
        self._numbers = count(1)
        self._versions: Counter[str] = Counter()
        self.close = self._connection.close

    async def append(self) -> None:
        """Append one event."""
        number = next(self._numbers)
        stream = f"model/local/m{number % CALLERS}"
        self._versions[stream] += 1
        now = datetime.now(UTC).isoformat()
        self._connection.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(number, stream, self._versions[stream], new_id()),
                *("ModelUsed", 1, f'{{"purpose":"benchmark {number}"}}'),
                *(now, now, "library:benchmark", "command", None, None, GENESIS),
            ),
        )


async def alone(store: SQLiteEventStore, raw: Raw) -> tuple[Median, Median]:
    """Return the medians of one append and one INSERT, alternating, in µs."""
    ours, theirs = [], []
    for number in range(TURNS):
        begin = time.perf_counter()
        await store.append(f"model/local/m{number % CALLERS}", [used(number)], ANY)
        between = time.perf_counter()
        await raw.append()
        ours.append(between - begin)
        theirs.append(time.perf_counter() - between)
    return Median.of(ours) * 1e6, Median.of(theirs) * 1e6


def together(store: SQLiteEventStore) -> Run:
    """Return a run of many callers: microseconds per append, on average."""

    async def call(caller: int) -> None:
        for number in range(10):
            await store.append(f"model/local/m{caller}", [used(number)], ANY)

    async def run() -> float:
        begin = time.perf_counter()
        await asyncio.gather(*(call(caller) for caller in range(CALLERS)))
        return (time.perf_counter() - begin) / CALLERS / 10 * 1e6

    return run


async def fill(path: Path, events: int) -> None:
    """Create a log of a number of events, in a hundred streams."""
    async with await SQLiteEventStore.open(path) as store:
        for number in range(0, events, 500):
            new = [used(number + each) for each in range(500)]
            await store.append(f"model/local/m{number // 500 % 100}", new, ANY)


def reads(
    store: SQLiteEventStore, path: Path, events: int
) -> tuple[Run, Run, Run, Callable[[], None]]:
    """Return runs that read a log: events, events with their chain, bare rows."""
    connection = sqlite3.connect(path)

    def per_event(begin: float) -> float:
        return (time.perf_counter() - begin) / events * 1e6

    async def read() -> float:
        begin = time.perf_counter()
        async for _ in store.read_all():
            pass
        return per_event(begin)

    async def read_and_verify() -> float:
        begin = time.perf_counter()
        previous = GENESIS
        async for stored in store.read_stored():
            assert stored.hash == chained_hash(previous, canonical_bytes(stored))
            previous = stored.hash
            codec.read(stored)
        return per_event(begin)

    async def select() -> float:
        begin = time.perf_counter()
        parameters = {"after": 0, "limit": events}
        for _ in connection.execute(QUERIES["log"], parameters):
            pass
        return per_event(begin)

    return read, read_and_verify, select, connection.close


def opens(path: Path) -> Run:
    """Return a run that opens and closes a log: milliseconds."""

    async def run() -> float:
        begin = time.perf_counter()
        store = await SQLiteEventStore.open(path)
        opened = (time.perf_counter() - begin) * 1e3
        await store.close()
        return opened

    return run


async def run(directory: Path, *, events: int = 100_000, rounds: int = 9) -> list[Row]:
    """Measure, and return a row for each subject.

    Args:
        directory: Where the logs are created; on the disk of interest.
        events: Length of the log that is read.
        rounds: Number of measurements; the median counts.
    """
    return [
        *await _appends(directory, rounds),
        *await _reads(directory, events, rounds),
    ]


async def _appends(directory: Path, rounds: int) -> list[Row]:
    print_progress("appending")
    async with AsyncExitStack() as stack:
        raw = stack.enter_context(closing(Raw(directory / "raw.db")))
        store = await stack.enter_async_context(
            await SQLiteEventStore.open(directory / "appended.db")
        )
        one, floor = await alone(store, raw)
        (many,) = await interleave(rounds, together(store))
    beside = "sqlite3, one INSERT per commit"
    return [
        Row(
            what="one durable append, alone",
            unit="µs",
            ours=one,
            beside=beside,
            theirs=floor,
            goal=at_least(0.6),
        ),
        Row(
            what=f"one durable append, {CALLERS} callers at once",
            unit="µs",
            ours=many,
            beside=beside,
            theirs=floor,
            goal=at_least(1),
        ),
    ]


async def _reads(directory: Path, events: int, rounds: int) -> list[Row]:
    path = directory / "read.db"
    print_progress(f"reading {events} events")
    await fill(path, events)
    async with await SQLiteEventStore.open(path) as store:
        *runs, close = reads(store, path, events)
        plain, verified, floor = await interleave(min(rounds, 3), *runs)
        close()
    await fill(directory / "small.db", 500)
    big, small = await interleave(rounds, opens(path), opens(directory / "small.db"))
    rows = "SELECT of the same columns"
    return [
        Row(what="read an event", unit="µs", ours=plain, beside=rows, theirs=floor),
        Row(
            what="read an event and verify its hash",
            unit="µs",
            ours=verified,
            beside=rows,
            theirs=floor,
        ),
        Row(
            what=f"open a log of {events} events",
            unit="ms",
            ours=big,
            beside="open one of 500",
            theirs=small,
            goal=at_most_more(50),
        ),
    ]


def main() -> None:
    """Measure in a temporary directory, and print the table."""
    with tempfile.TemporaryDirectory() as directory:
        print(table(asyncio.run(run(Path(directory)))))


if __name__ == "__main__":
    main()
