"""Which store a log is kept in, chosen once: the composition of the storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from herdbook.core.clock import Clock
from herdbook.events.instances import FileInstances, MemoryInstances
from herdbook.events.memory import MemoryEventStore
from herdbook.events.sqlite import SQLiteEventStore
from herdbook.events.store import EventStore, Instances, ViewStore

MEMORY = ":memory:"
"""The log that is kept nowhere."""


class Storage(NamedTuple):
    """A log, the snapshots of its views, and who is at work on it."""

    store: EventStore
    snapshots: ViewStore
    instances: Instances

    @staticmethod
    @asynccontextmanager
    async def open(log: str | Path, clock: Clock) -> AsyncIterator[Storage]:
        """Open a log's file; close all of it at the end.

        Raises:
            StoreError: It cannot be opened.
        """
        if str(log) == MEMORY:
            async with MemoryEventStore(clock=clock.now) as memory:
                with MemoryInstances() as instances:
                    yield Storage(memory, memory, instances)
            return
        path = Path(log)
        async with await SQLiteEventStore.open(path, clock=clock.now) as store:
            with FileInstances(path.with_name(f"{path.name}-instances")) as instances:
                yield Storage(store, store, instances)
