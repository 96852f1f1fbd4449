"""Import an export into a log, and continue an import that was interrupted.

Events are recorded in the order of their positions, in batches. After a crash the log
has some of the events, which are a valid log, and the same import records the others.
Events that the log has already are compared with those of the export.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import BinaryIO

import msgspec

from herdbook.core.log.storage import Storage
from herdbook.core.transfer.contents import Contents
from herdbook.core.transfer.export_check import ExportCheck, read_export
from herdbook.events.errors import (
    CallerError,
    CorruptLogError,
    StoreError,
    in_line,
)
from herdbook.events.recorded import StoredEvent
from herdbook.events.store import EventStore, Head, ImportingStore

Progress = Callable[[int, int], None]
"""Called with the number of events that are done, and of all of them."""


class ForkError(StoreError):
    """The log and the export have different events at one position.

    Attributes:
        position: The first position at which they differ.
    """

    code = "fork"

    def __init__(
        self,
        subject: str,
        *,
        position: int,
        difference: str,
        remedy: str = "Nothing was recorded. Import it into another log with --db",
    ) -> None:
        self.position = position
        super().__init__(
            subject,
            f"has a different history than the log from #{position} on: {difference}",
            remedy,
        )


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What an import or a copy did.

    Attributes:
        added: Events that it recorded.
        present: Events that the log had already.
        position: The last event of the log.
        hash: The hash of that event.
    """

    added: int
    present: int
    position: int
    hash: str


async def check_export(
    file: BinaryIO, check: ExportCheck, *, progress: Progress | None = None
) -> None:
    """Check a whole export, without a log.

    Raises:
        CallerError: The file is not an export, or not one of an anchor or key.
        CorruptLogError: A line was changed, or is missing.
        StoreUnavailableError: The file cannot be read.
    """
    async for _ in read_export(file, check):
        _report(check, progress)


async def import_events(
    storage: Storage,
    batches: AsyncIterator[list[StoredEvent]],
    check: ExportCheck,
    *,
    progress: Progress | None = None,
) -> Imported:
    """Record the events of an export that a log does not have yet.

    A batch is recorded after all of its events, and those before it, were checked.

    Args:
        storage: The log; it may be empty.
        batches: The events, as ``read_export`` returns them.
        check: The checks of the export.
        progress: Called now and then.

    Raises:
        ForkError: The log has a different history; nothing was recorded.
        CallerError: The file is not an export, has gaps, or begins after the end of the
            log.
        CorruptLogError: A line was changed, or is missing; the events before its batch
            are recorded.
        ConflictError: Another process appended meanwhile.
        StoreError: The log cannot be read or written; import again to continue.
    """
    store = storage.store
    if not isinstance(store, ImportingStore):
        raise CallerError("this store", "cannot import events", "Use a log in a file")
    head = await store.head()
    added = present = 0
    async for events in batches:
        if check.contents and not added + present:
            await _check_start(store, check, check.contents, head)
        old = [event for event in events if event.position <= head.position]
        new = events[len(old) :]
        if old:
            await _compare(store, check.name, old)
            present += len(old)
        if new:
            start = Head(new[0].position - 1, head.hash)
            await store.append_stored(new, after=start)
            head = Head(new[-1].position, new[-1].hash)
            added += len(new)
        _report(check, progress)
    return Imported(
        added=added, present=present, position=head.position, hash=head.hash
    )


def refuse_unfit(check: ExportCheck, head: Head) -> None:
    """Refuse an export that cannot follow the events of a log.

    Args:
        check: The checks of the export, after its first line.
        head: The end of the log.

    Raises:
        CallerError: It has only some streams or types of events, or begins after the
            end of the log.
    """
    if check.contents and check.contents.has_gaps:
        raise CallerError(
            check.name,
            "contains only some of the events between its first and its last",
            "A log needs all of them: export without --stream and --type. To check "
            "this file: add --check",
        )
    if check.contents and check.contents.after > head.position:
        end = f"ends at #{head.position}" if head.position else "has no events"
        raise CallerError(
            check.name,
            f"begins with #{check.contents.after + 1}, but the log {end}",
            f"First import an export that begins with #{head.position + 1}",
        )


async def _check_start(
    store: EventStore, check: ExportCheck, contents: Contents, head: Head
) -> None:
    """Check that the events of an export can follow those of a log."""
    refuse_unfit(check, head)
    if contents.after:
        stored = store.read_stored(after=contents.after - 1, limit=1)
        if [event.hash async for event in stored] != [contents.previous]:
            raise ForkError(
                check.name,
                position=contents.after,
                difference="they differ in that event, or in one before it",
            )


async def _compare(store: EventStore, name: str, events: Sequence[StoredEvent]) -> None:
    """Compare events of an export with those that a log has at their positions."""
    stored = store.read_stored(after=events[0].position - 1, limit=len(events))
    own = [event async for event in stored]
    for mine, theirs in zip(own, events, strict=False):
        if mine.position != theirs.position:
            break
        if mine.hash != theirs.hash:
            raise ForkError(
                name,
                position=mine.position,
                difference=f"the log has {_words(mine)}, the file {_words(theirs)}",
            )
        if mine != theirs:
            raise CorruptLogError(
                f"event #{mine.position}", "of the log was changed", "See: verify"
            )
    if len(own) != len(events) or own[-1].position != events[-1].position:
        raise CorruptLogError(
            "the log", "has gaps in its positions", "Run: herdbook verify"
        )


def _words(event: StoredEvent) -> str:
    """Describe an event: ``ModelLoaded in model/local/x, recorded 2026-…``."""
    return f"{in_line(event.type)} in {in_line(event.stream)} of {event.recorded_at}"


def _report(check: ExportCheck, progress: Progress | None) -> None:
    if progress and check.contents:
        contents = check.contents
        done = max(check.ending.position - contents.after, 0)
        progress(done, contents.until - contents.after)
