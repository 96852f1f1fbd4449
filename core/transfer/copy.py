"""Copy a log into another store, and continue a copy that was interrupted.

Ids, positions, versions, times and hashes stay as they are. Events are recorded in
batches, each after its hashes were checked. After a crash the target has some of the
events, which are a valid log, and the same copy records the others. So it also brings
a target up to date with a log that is in use.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from herdbook.core.clock import Clock
from herdbook.core.log.location import LogLocation
from herdbook.core.log.storage import Storage
from herdbook.core.transfer.import_events import ForkError, Imported, Progress
from herdbook.events.errors import (
    CallerError,
    CorruptLogError,
    InterruptedWriteError,
)
from herdbook.events.recorded import GENESIS, StoredEvent
from herdbook.events.sqlite.log_file import log_file_path
from herdbook.events.store import EventStore, Head, ImportingStore

LARGEST_BATCH = 500
"""Maximum number of events per commit."""

LARGEST_BATCH_CHARACTERS = 4_000_000
"""Maximum size of their data; an event has at most a quarter of that."""

ATTEMPTS = 5
"""Number of attempts to record a batch when the connection is lost."""


async def copy(
    source: LogLocation,
    target: LogLocation,
    clock: Clock,
    *,
    progress: Progress | None = None,
) -> Imported:
    """Record the events of a log that another one does not have yet.

    Other processes may use the source meanwhile; its last event is the one that was
    last when the copy began.

    Args:
        source: The log, which must exist.
        target: The other log, which is created if it does not exist.
        clock: The clock of the stores.
        progress: Called after each batch.

    Raises:
        CallerError: Both are the same log, or an event of the source was changed; the
            events before its batch are recorded.
        ForkError: The target has a different history; nothing was recorded.
        ConflictError: Another process appended to the target meanwhile.
        StoreError: A log cannot be read or written; copy again to continue.
    """
    if _place(source) == _place(target):
        raise CallerError(str(target), "is the log itself", "Choose another log")
    async with (
        Storage.open(source, clock, reading=True) as read,
        Storage.open(target, clock) as written,
    ):
        assert isinstance(written.store, ImportingStore)  # as all stores with a place
        end = await read.store.head()
        head = await written.store.head()
        await _check_history(read.store, written.store, end, str(target))
        present = head.position
        async for batch in _batches(read.store, head.position, end.position):
            head = await _record(written.store, batch, head)
            if progress:
                progress(head.position, end.position)
        if head.position < end.position:
            raise CorruptLogError(
                str(source), f"ends at #{head.position}, before its head", "Verify it"
            )
    return Imported(
        added=head.position - present,
        present=present,
        position=head.position,
        hash=head.hash,
    )


def _place(log: LogLocation) -> object:
    return log_file_path(log) if isinstance(log, Path) else log


async def _check_history(
    source: EventStore, target: EventStore, end: Head, subject: str
) -> None:
    """Check that the target has the events of the source, as far as both go.

    The hash of an event covers all events before it, so one comparison decides, and
    halving finds the first difference.

    Raises:
        ForkError: It has other events.
    """
    common = min(end.position, (await target.head()).position)
    if await _hash_at(source, common) == await _hash_at(target, common):
        return
    same, different = 0, common
    while different - same > 1:
        middle = (same + different) // 2
        if await _hash_at(source, middle) == await _hash_at(target, middle):
            same = middle
        else:
            different = middle
    raise ForkError(
        subject,
        position=different,
        difference="the event there is a different one",
        remedy="Nothing was recorded. Copy it to another log",
    )


async def _hash_at(store: EventStore, position: int) -> str:
    """Return the hash of an event; empty if it is missing."""
    if position == 0:
        return GENESIS
    async for event in store.read_stored(after=position - 1, limit=1):
        return event.hash if event.position == position else ""
    return ""


async def _batches(
    store: EventStore, after: int, until: int
) -> AsyncIterator[list[StoredEvent]]:
    batch: list[StoredEvent] = []
    characters = 0
    async for event in store.read_stored(after=after, limit=max(until - after, 0)):
        batch.append(event)
        characters += len(event.data)
        if len(batch) == LARGEST_BATCH or characters >= LARGEST_BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


async def _record(store: EventStore, batch: list[StoredEvent], after: Head) -> Head:
    """Record a batch; after a lost connection, find out whether it is recorded."""
    assert isinstance(store, ImportingStore)
    head = Head(batch[-1].position, batch[-1].hash)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await store.append_stored(batch, after=after)
        except InterruptedWriteError:
            if await store.head() == head:
                return head
            if attempt == ATTEMPTS:
                raise
        else:
            return head
    raise AssertionError("the last attempt returns or raises")
