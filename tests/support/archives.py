"""A log with enough events for two archives, and a copy of it with one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from herdbook.core import Storage, SystemClock
from herdbook.core.archives import archiving
from herdbook.core.history.past import Past
from herdbook.core.history.position_at import position_at
from herdbook.core.proof.proof import make_anchor
from herdbook.events import facts
from herdbook.events.archive_file import BLOCK
from herdbook.events.recorded import Cause, NewEvent
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LENGTH = 2 * BLOCK + 302


def new_event(number: int) -> NewEvent:
    return NewEvent(
        fact=facts.ConfigurationChanged(note=f"note {number}"),
        occurred_at=BEGIN + timedelta(minutes=number),
        actor="cli:test",
        cause=Cause.COMMAND,
        event_id=f"event-{number}",
    )


async def fill(path: Path, count: int = LENGTH, *, start: int = 0) -> None:
    """Append events to several models, in groups of 50 minutes."""
    now = BEGIN
    async with await SQLiteEventStore.open(path, clock=lambda: now) as store:
        for number in range(start, start + count, 50):
            now = BEGIN + timedelta(minutes=number)
            async with asyncio.TaskGroup() as group:
                for each in range(number, min(number + 50, start + count), 5):
                    events = [new_event(n) for n in range(each, each + 5)]
                    group.create_task(store.append(stream_of(each), events, ANY))


def stream_of(number: int) -> str:
    return f"model/local/m{number // 5 % 7}:latest"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Storage]:
    async with Storage.open(path, SystemClock()) as storage:
        yield storage


async def archive_all(
    path: Path, *, minutes: int = LENGTH, key: Path | None = None
) -> archiving.Archived:
    """Archive what was recorded before a minute."""
    async with opened(path) as storage:
        before = BEGIN + timedelta(minutes=minutes)
        planned = await archiving.plan(storage, before, path)
        return await archiving.archive(
            storage, planned, SystemClock(), node="local", actor="cli:test", key=key
        )


async def answers(storage: Storage, *, after: int = 0) -> list[object]:
    """Return what every way to read the log answers, up to the original end."""
    store = storage.store
    times = [after + 5, 1500, BLOCK * 2, BLOCK * 2 + 77, LENGTH - 9]
    past = Past(storage)
    streams = [f"model/local/m{number}:latest" for number in range(7)]
    reading = store.read_all(
        after=after, stream_prefix="model/local/m3", limit=5 if after else 290
    )
    return [
        [e async for e in store.read_all(after=after, limit=LENGTH - after)],
        [e async for e in store.read_stored(after=after, limit=LENGTH - after)],
        [await store.stream_version(stream) for stream in streams],
        []
        if after
        else [[e async for e in store.read_stream(stream)] for stream in streams],
        [event async for event in reading],
        [
            await position_at(store, BEGIN + timedelta(minutes=n))
            for n in times
            if n > after
        ],
        [(await past.views_at(n)).status.dump() for n in times if n >= after],
        (await make_anchor(storage, SystemClock(), position=LENGTH)).root,
    ]
