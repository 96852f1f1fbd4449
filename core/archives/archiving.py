"""Move the oldest events of a log to an archive, step by step.

Each step leaves log and archive whole. The next run continues after an interruption:

1. Write the file in a private directory, and sync it.
2. Read it back, and compare every event with the log.
3. Replay the views up to the boundary, to keep their state.
4. Keep the ids of the events. They are unique already, so that this changes nothing.
5. Give the file its name.
6. In one transaction: append ``LogArchived``, which chains file and state to the log,
   and record the archive and the state. From here on the file is what is read.
7. Check the file once more, and delete its events in batches, the oldest first.
8. Give the space back.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from herdbook.core.archives.signature import sign
from herdbook.core.clock import Clock
from herdbook.core.history.position_at import position_at
from herdbook.core.log.storage import Storage
from herdbook.core.proof.anchor import ORIGIN
from herdbook.core.proof.keys import check_key
from herdbook.core.proof.merkle_tree import EventTree
from herdbook.core.transfer.private_directory import private_directory
from herdbook.core.views import at_archive
from herdbook.events import rfc9162
from herdbook.events.archive_file import (
    BLOCK,
    Archive,
    ArchiveWriter,
    is_whole,
    read_block,
)
from herdbook.events.errors import (
    CallerError,
    CorruptLogError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from herdbook.events.facts import LogArchived
from herdbook.events.recorded import GENESIS, Cause, NewEvent, StoredEvent
from herdbook.events.sqlite.backup import place
from herdbook.events.sqlite.instances import living
from herdbook.events.sqlite.log_file import create_private, log_file_path
from herdbook.events.store import ArchivedStore
from herdbook.events.streams import node_stream

AT_ONCE = 10_000
"""Events whose ids are kept, or which are deleted, in one transaction: other writers
wait for about 0.1 s."""

MOST_REWRITTEN = 200_000_000
"""Bytes of a log that are rewritten to give its space back. Meanwhile no process can
append, for about 1 s; appends of other processes wait for at most 5 s."""

LEASE = "archive"
"""Held by the process that archives a log, so that there is one at a time."""

Progress = Callable[[int, int], None]
"""Called with the number of events that are written, and of all of them."""


class Archived(msgspec.Struct, frozen=True, kw_only=True):
    """An archive that was made, or would be made.

    Attributes:
        log: The log.
        file: The file.
        first: Position of its first event.
        last: Position of its last event.
        events: Number of its events; 0 if there are too few.
        available: Number of events before the time that are not archived.
        size_bytes: Size of the file; 0 if it was not made.
        sha256: SHA-256 of the file; empty if it was not made.
        kept_size: Why the log's file keeps its size, in words; empty if it shrank, or
            if nothing was archived.
    """

    log: Path
    file: Path
    first: int
    last: int
    events: int
    available: int
    size_bytes: int = 0
    sha256: str = ""
    kept_size: str = ""


async def plan(
    storage: Storage, before: datetime | int, log: Path, directory: Path | None = None
) -> Archived:
    """Return which events an archive would have.

    Args:
        storage: The log.
        before: Only events that were recorded before this time, or events before this
            position; in whole blocks.
        log: The file of the log.
        directory: Where the file would be; by default next to the log.

    Raises:
        CallerError: The log cannot have archives.
        StoreError: The log cannot be read.
    """
    store = archived_store(storage)
    archives = await store.archives()
    first = archives[-1].last + 1 if archives else 1
    if isinstance(before, int):
        found = before - 1
    else:
        found = await position_at(storage.store, before - timedelta(microseconds=1))
    end = min(found, (await storage.store.head()).position - 1)
    last = end // BLOCK * BLOCK
    real = log_file_path(log)
    name = f"{real.stem}-archive-{first}-{last}.jsonl.gz"
    return Archived(
        log=log,
        file=(directory or real.parent) / name,
        first=first,
        last=last,
        events=max(last - first + 1, 0),
        available=max(end - first + 1, 0),
    )


async def archive(
    storage: Storage,
    planned: Archived,
    clock: Clock,
    *,
    node: str | None,
    actor: str,
    key: Path | None = None,
    progress: Progress | None = None,
) -> Archived:
    """Move events to an archive; other processes may use the log meanwhile.

    Args:
        storage: The log.
        planned: What ``plan`` returned.
        clock: The time.
        node: The event that announces the archive goes to the stream of this node; by
            default to that of the first one.
        actor: Who asked for it.
        key: File of a private key that signs the archive.
        progress: Called after each block.

    Raises:
        CallerError: There are too few events, another process is archiving the log, or
            the file exists.
        CorruptLogError: The log is damaged, or the file was not written correctly;
            nothing was removed.
        StoreError: The log or the file cannot be written; nothing is lost, and the
            same call completes the archive.
    """
    store = archived_store(storage)
    if not planned.events:
        raise CallerError(
            "the log",
            f"has only {planned.available:,} events that can be archived",
            f"An archive needs at least {BLOCK:,} events. Choose a later time",
        )
    await _hold(storage)
    if key is not None:
        check_key(key)
    async with private_directory(planned.file.parent) as directory:
        written = directory / planned.file.name
        made, versions = await _write(storage, planned, written, progress)
        await _check_name(planned.file, made)
        await _compare(storage, made, written)
        there, views = await at_archive(storage.store, made.last)
        tree = await EventTree.read(storage, made.last)
        fact = LogArchived(
            first=made.first,
            last=made.last,
            hash=made.hash,
            root=(await tree.root()).hex(),
            origin=f"{ORIGIN}{made.origin}",
            file=made.file,
            sha256=made.sha256,
            views={f"{view.name}/{view.version}": view.checksum for view in views},
        )
        if key is not None:
            fact = msgspec.structs.replace(fact, signature=sign(fact, key))
        for after in range(made.first - 1, made.last, AT_ONCE):
            until = min(after + AT_ONCE, made.last)
            await store.keep_ids(after=after, until=until)
        if is_new := await _check_name(planned.file, made):
            await asyncio.to_thread(place, written, planned.file)
    nodes = (each.name for each in there.status.nodes())
    event = NewEvent(
        fact=fact, occurred_at=clock.now(), actor=actor, cause=Cause.COMMAND
    )
    stream = node_stream(node or next(nodes, "local"))
    try:
        await store.seal(
            made, stream=stream, event=event, versions=versions, views=views
        )
    except StoreError:
        if is_new and made not in await store.archives():
            await asyncio.to_thread(planned.file.unlink)
        raise
    await finish(storage)
    return msgspec.structs.replace(
        planned,
        size_bytes=made.size,
        sha256=made.sha256,
        kept_size=await _shrink(storage, planned.log),
    )


async def finish(storage: Storage) -> int:
    """Delete the events of archives that an interrupted run has left in the log.

    Returns:
        How many were deleted.

    Raises:
        CallerError: Another process is archiving the log.
        ArchiveMissingError: An archive is not there; nothing was deleted.
        CorruptLogError: It was changed; nothing was deleted.
    """
    store = archived_store(storage)
    await _hold(storage)
    if not await store.has_archived():
        return 0
    for each in (await store.archives())[-1:]:
        path = store.path_of(each)
        if not await asyncio.to_thread(is_whole, path, each):
            raise CorruptLogError(
                f"archive {path}",
                "was changed",
                "Replace it with a copy of the same archive. Nothing was deleted",
            )
    deleted = 0
    while count := await store.delete_archived(AT_ONCE):
        deleted += count
    return deleted


def archived_store(storage: Storage) -> ArchivedStore:
    """Return the store of a log that can have archives.

    Raises:
        CallerError: The log cannot have archives.
    """
    store = storage.store
    if not isinstance(store, ArchivedStore):
        raise CallerError(
            "the log",
            "is not in a SQLite file, and cannot have archives",
            "To copy its old events: herdbook export FILE --until WHEN",
        )
    return store


async def _hold(storage: Storage) -> None:
    if not await storage.instances.hold(LEASE):
        raise CallerError(
            "the log", "is being archived by another process", "Wait until it ends"
        )


async def _write(
    storage: Storage, planned: Archived, written: Path, progress: Progress | None
) -> tuple[Archive, dict[str, int]]:
    """Write the file; return its description, and the last version of each stream."""
    origin, previous = await _begin(storage, planned.first)
    reading = storage.store.read_stored(after=planned.last - 1, limit=1)
    (end,) = [event async for event in reading]
    roots, versions = bytearray(), dict[str, int]()
    with _translated(planned.file):
        create_private(written)
        with written.open("wb") as target:
            writer = ArchiveWriter(
                target,
                origin=origin,
                first=planned.first,
                previous=previous,
                last=planned.last,
                hash_=end.hash,
            )
            async for block in _blocks(storage, planned.first, planned.last):
                await asyncio.to_thread(writer.write, block)
                leaves = [rfc9162.leaf_hash(bytes.fromhex(e.hash)) for e in block]
                roots += rfc9162.root_of(leaves)
                for each in block:
                    known = versions.get(each.stream, 0)
                    versions[each.stream] = max(known, each.version)
                if progress:
                    progress(block[-1].position - planned.first + 1, planned.events)
    made = Archive(
        first=planned.first,
        last=planned.last,
        previous=previous,
        hash=end.hash,
        origin=origin,
        recorded_at=end.recorded_at,
        file=planned.file.name,
        directory=str(planned.file.parent.absolute()),
        size=writer.size,
        sha256=writer.sha256,
        blocks=bytes(writer.blocks),
        roots=bytes(roots),
    )
    return made, versions


async def _begin(storage: Storage, first: int) -> tuple[str, str]:
    """Return the id of the first event of the log, and the hash before an archive."""
    archives = await archived_store(storage).archives()
    if archives:  # whose files are not needed
        return archives[-1].origin, archives[-1].hash
    (begin,) = [event async for event in storage.store.read_stored(limit=1)]
    assert first == begin.position
    return begin.event_id, GENESIS


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreFullError(
                str(file),
                "cannot be written: the disk is full",
                "Free some disk space, or choose another directory with --to. Nothing "
                "was removed from the log",
            ) from error
        raise StoreUnavailableError(
            str(file),
            f"cannot be written: {error.strerror or error}",
            "Use --to to choose a directory that you can write to. Nothing was removed "
            "from the log",
        ) from error


async def _check_name(file: Path, made: Archive) -> bool:
    """Return whether the name of the file is free.

    It is not if an interrupted run has left the same file, which is used then.

    Raises:
        CallerError: Another file has the name.
    """
    if not await asyncio.to_thread(file.exists):
        return True
    if await asyncio.to_thread(is_whole, file, made):
        return False
    raise CallerError(
        str(file),
        "already exists and is a different file",
        "Move it away, or choose another directory with --to",
    )


async def _blocks(
    storage: Storage, first: int, last: int
) -> AsyncIterator[list[StoredEvent]]:
    for start in range(first - 1, last, BLOCK):
        reading = storage.store.read_stored(after=start, limit=BLOCK)
        yield [event async for event in reading]


async def _compare(storage: Storage, made: Archive, written: Path) -> None:
    """Read the file back, and compare every event with the log."""
    block = 0
    async for events in _blocks(storage, made.first, made.last):
        try:
            same = await asyncio.to_thread(read_block, written, made, block) == events
        except CorruptLogError:
            same = False
        if not same:
            raise CorruptLogError(
                f"archive {made.file}",
                "was not written correctly",
                "Check the disk. Nothing was removed from the log",
            )
        block += 1


async def _shrink(storage: Storage, log: Path) -> str:
    """Shrink the log file; return why it keeps its size, empty if it shrinks."""
    store = archived_store(storage)
    try:
        _, used = await store.free_bytes()
        if used > MOST_REWRITTEN and len(living(log_file_path(log, "-instances"))) > 1:
            return "another process uses the file and could not append while it shrinks"
        await store.shrink()
    except StoreFullError:
        return "the disk has too little space to rewrite it"
    except StoreError as error:
        return f"{error.subject} {error.state}"
    return ""
