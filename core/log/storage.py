"""Open the store of a log: an SQLite file, a PostgreSQL database, or memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from herdbook.core.clock import Clock
from herdbook.core.concurrency.supervisor import TaskStatus, task_status
from herdbook.core.log.location import MEMORY, LogLocation, log_location
from herdbook.core.logging import Logger
from herdbook.events.errors import MissingExtraError
from herdbook.events.instances import Instances
from herdbook.events.memory import MemoryEventStore, MemoryInstances
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.snapshots import SnapshotStore
from herdbook.events.sqlite import log_file
from herdbook.events.sqlite.instances import FileInstances, UnknownInstances
from herdbook.events.sqlite.log_file import log_file_path
from herdbook.events.sqlite.read_only import is_read_only, open_for_reading
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import EventStore

_log = Logger("herdbook.storage")

ACCEPT_LOSS = "Restore a backup, or accept the loss: herdbook verify --accept"
"""The remedy for a log that ends before its saved head."""

_READ_ONLY = "the server is not asked, and nothing is recorded"


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
        log: str | LogLocation,
        clock: Clock,
        *,
        accept_loss: bool = False,
        reading: bool = False,
        archive_directory: Path | None = None,
    ) -> AsyncIterator[Storage]:
        """Open a log; close it when the block ends.

        Args:
            log: The file, the address of the database, or ``MEMORY``.
            clock: The clock for the times of events.
            accept_loss: Accept that recorded events are missing; see
                ``SQLiteEventStore.open``.
            reading: Open a log that cannot be written too, for reading alone.
            archive_directory: The directory in which archives are looked for; by
                default that of the file.

        Raises:
            StoreError: The log cannot be opened.
            CallerError: The address of the database is not valid.
            MissingExtraError: The driver of the database is not installed.
        """
        if str(log) == MEMORY:
            async with MemoryEventStore(clock=clock.now) as memory:
                with MemoryInstances() as instances:
                    yield Storage(memory, memory, instances)
            return
        path = log_location(log)
        if isinstance(path, PostgresAddress):
            async with _open_postgres(path, clock) as storage:
                yield storage
            return
        if reading and is_read_only(path):
            _log.warning("log_not_writable", log=str(path), effect=_READ_ONLY)
            async with open_for_reading(path, clock=clock.now) as store:
                _warn_of_loss(store, path)
                yield Storage(store, store, UnknownInstances(path), read_only=True)
            return
        opening = SQLiteEventStore.open(
            path,
            clock=clock.now,
            accept_loss=accept_loss,
            archive_directory=archive_directory,
        )
        async with await opening as store:
            _warn_of_loss(store, path)
            with FileInstances(log_file_path(path, "-instances")) as instances:
                yield Storage(store, store, instances, partial(_tasks, store))


async def log_exists(log: LogLocation) -> bool:
    """Return whether there is a log; create none.

    Raises:
        StoreError: The log cannot be read, or only its ``-wal`` file is left.
        MissingExtraError: The driver of the database is not installed.
    """
    if isinstance(log, PostgresAddress):
        with from_postgres_extra():
            # Imported late: the driver is an extra.
            from herdbook.events.postgres import condition  # noqa: PLC0415
        return await condition.log_exists(log)
    return log_file.log_exists(log, writable=False) or log.exists()


@asynccontextmanager
async def _open_postgres(
    address: PostgresAddress, clock: Clock
) -> AsyncIterator[Storage]:
    with from_postgres_extra():
        # Imported late: the driver is an extra.
        from herdbook.events.postgres.instances import PostgresInstances  # noqa: PLC0415
        from herdbook.events.postgres.store import PostgresEventStore  # noqa: PLC0415
    async with (
        await PostgresEventStore.open(address, clock=clock.now) as store,
        PostgresInstances.open(address) as instances,
    ):

        def tasks() -> list[TaskStatus]:
            failures = store.failures() | {"presence": instances.problem()}
            return [task_status(name, error) for name, error in failures.items()]

        yield Storage(store, store, instances, tasks)


@contextmanager
def from_postgres_extra() -> Iterator[None]:
    """Import the driver of PostgreSQL in the block.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        yield
    except ImportError as error:  # also raised where there is no libpq
        raise MissingExtraError(
            "the PostgreSQL driver",
            f"is not installed ({error.name or error})",
            "Install it: pip install 'herdbook[postgres]'",
        ) from error


def _warn_of_loss(store: SQLiteEventStore, path: Path) -> None:
    if store.missing:
        _log.warning(
            "recorded_events_missing",
            log=str(path),
            found=store.missing,
            remedy=ACCEPT_LOSS,
        )


def _tasks(store: SQLiteEventStore) -> list[TaskStatus]:
    return [task_status(name, error) for name, error in store.failures().items()]
