"""Open the store of a log: an SQLite file, or memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from herdbook.core.clock import Clock
from herdbook.core.concurrency.supervisor import TaskStatus, task_status
from herdbook.core.logging import Logger
from herdbook.events.instances import FileInstances, MemoryInstances, UnknownInstances
from herdbook.events.memory import MemoryEventStore
from herdbook.events.sqlite.log_file import log_file_path
from herdbook.events.sqlite.read_only import is_read_only, open_for_reading
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import EventStore, Instances, SnapshotStore

_log = Logger("herdbook.storage")

ACCEPT_LOSS = "Restore a backup, or accept the loss: herdbook verify --accept"
"""The remedy for a log that ends before its saved head."""

_READ_ONLY = "the server is not asked, and nothing is recorded"

MEMORY = ":memory:"
"""The name of a log that is only in memory."""


class Storage(NamedTuple):
    """A log, the snapshots of its views, and the instances that use it.

    Attributes:
        tasks: Returns the status of each task of the log itself.
        read_only: Whether the log cannot be written, and was opened for reading.
    """

    store: EventStore
    snapshots: SnapshotStore
    instances: Instances
    tasks: Callable[[], list[TaskStatus]] = list
    read_only: bool = False

    @staticmethod
    @asynccontextmanager
    async def open(
        log: str | Path,
        clock: Clock,
        *,
        accept_loss: bool = False,
        reading: bool = False,
    ) -> AsyncIterator[Storage]:
        """Open a log; close it when the block ends.

        Args:
            log: The file, or ``MEMORY``.
            clock: The clock for the times of events.
            accept_loss: Accept that recorded events are missing; see
                ``SQLiteEventStore.open``.
            reading: Open a log that cannot be written too, for reading alone.

        Raises:
            StoreError: The log cannot be opened.
        """
        if str(log) == MEMORY:
            async with MemoryEventStore(clock=clock.now) as memory:
                with MemoryInstances() as instances:
                    yield Storage(memory, memory, instances)
            return
        path = Path(log)
        if reading and is_read_only(path):
            _log.warning("log cannot be written", log=str(path), effect=_READ_ONLY)
            async with open_for_reading(path, clock=clock.now) as store:
                _warn_of_loss(store, path)
                yield Storage(store, store, UnknownInstances(path), read_only=True)
            return
        opening = SQLiteEventStore.open(path, clock=clock.now, accept_loss=accept_loss)
        async with await opening as store:
            _warn_of_loss(store, path)
            with FileInstances(log_file_path(path, "-instances")) as instances:
                yield Storage(store, store, instances, partial(_tasks, store))


def _warn_of_loss(store: SQLiteEventStore, path: Path) -> None:
    if store.missing:
        _log.warning(
            "recorded events are missing",
            log=str(path),
            found=store.missing,
            remedy=ACCEPT_LOSS,
        )


def _tasks(store: SQLiteEventStore) -> list[TaskStatus]:
    return [task_status(name, error) for name, error in store.failures().items()]
