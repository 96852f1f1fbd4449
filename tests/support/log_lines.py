"""Logs with some events, and their exports as lines."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.odd_log import append_raw

from herdbook.core import Storage, SystemClock
from herdbook.core.transfer.contents import Selection
from herdbook.core.transfer.export import export
from herdbook.events.facts import Fact, ModelDiscovered, ModelUsed
from herdbook.events.recorded import Cause, NewEvent, StoredEvent
from herdbook.events.sqlite.store import SQLiteEventStore

STREAMS = 4
"""Streams over which the events are spread."""


def new_event(fact: Fact) -> NewEvent:
    return NewEvent(
        fact=fact,
        occurred_at=datetime.now(UTC),
        actor="test:zoë",
        cause=Cause.COMMAND,
    )


async def append(
    log: Path | SQLiteEventStore, count: int, *, start: int = 0, note: str = "test"
) -> None:
    """Append events: each stream begins with a discovery, followed by uses."""
    if isinstance(log, Path):
        async with await SQLiteEventStore.open(log) as store:
            await append(store, count, start=start, note=note)
        return
    for number in range(start, start + count):
        version = number // STREAMS
        fact: Fact = ModelUsed(purpose=note)
        if version == 0:
            fact = ModelDiscovered(digest="a" * 64, size_bytes=1, remote_host=None)
        await log.append(
            f"model/local/m{number % STREAMS}:latest", [new_event(fact)], version
        )


def changed(log: Path, columns: dict[str, Any]) -> int:
    """Append an event with odd columns and the right hash; return its position."""
    rest = {name: value for name, value in columns.items() if name != "data"}
    data = columns.get("data", "{}")
    return append_raw(log, "model/local/odd:latest", "ModelUsed", data, **rest)


async def export_of(log: Path, selection: Selection | None = None) -> bytes:
    target = io.BytesIO()
    clock = SystemClock()
    async with Storage.open(log, clock) as storage:
        await export(storage, target, clock, selection=selection or Selection())
    return target.getvalue()


def lines_of(data: bytes) -> list[dict[str, Any]]:
    """Return the lines of an export."""
    return [json.loads(line) for line in data.splitlines()]


def rows_of(log: Path) -> list[tuple[Any, ...]]:
    """Return every column of every event, read without Herdbook."""
    names = ", ".join(StoredEvent.__struct_fields__)
    with closing(sqlite3.connect(log)) as connection:
        return connection.execute(
            f"SELECT {names} FROM events ORDER BY position"
        ).fetchall()
