"""Compare the archives of a log with what the log recorded about them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from herdbook.core.diagnosis import Diagnosis, Level, diagnosis
from herdbook.core.log.storage import Storage
from herdbook.events.archive_file import (
    UNREADABLE,
    Archive,
    ArchiveMissingError,
    is_whole,
)
from herdbook.events.errors import CorruptLogError
from herdbook.events.facts import LogArchived
from herdbook.events.findings import Finding, Kind
from herdbook.events.recorded import GENESIS
from herdbook.events.rfc9162 import root_of
from herdbook.events.store import ArchivedStore
from herdbook.projections.sentences import counted

_REPLACE = "Replace it with a copy of the same archive"


async def check(storage: Storage) -> list[Finding]:
    """Compare archives and the states at their ends with what the log recorded.

    An archive whose file is missing is not a finding; it is in
    ``Verification.missing``.

    Raises:
        StoreError: The log cannot be read.
    """
    store = storage.store
    if not isinstance(store, ArchivedStore):
        return []
    found: list[Finding] = []
    roots: list[bytes] = []
    before = 0, GENESIS
    for each in await store.archives():
        if (each.first - 1, each.previous) != before:
            found.append(_finding(each, "does not continue the archive before it"))
        before = each.last, each.hash
        if await _is_changed(store, each):
            found.append(_finding(each, "was changed", _REPLACE))
        roots += each.block_roots
        try:
            fact = await announcement(storage, each)
        except UNREADABLE:
            continue  # the event is in a later archive
        found += [f async for f in _differences(store, each, fact, root_of(roots))]
    return found


async def _differences(
    store: ArchivedStore, archive: Archive, fact: LogArchived | None, root: bytes
) -> AsyncIterator[Finding]:
    """Yield how an archive differs from its event."""
    if fact is None:
        yield _finding(archive, "is not mentioned in any event of the log")
        return
    recorded = fact.first, fact.last, fact.hash, fact.sha256, fact.root
    if recorded != (*_range(archive), archive.hash, archive.sha256, root.hex()):
        yield _finding(archive, "differs from the event that recorded it")
    try:
        views = await store.boundary_views(archive.last)
    except CorruptLogError as error:
        yield Finding(position=0, kind=Kind.SNAPSHOT, message=str(error))
        return
    for view in views:
        if fact.views.get(f"{view.name}/{view.version}") != view.checksum:
            message = f"the state of {view.name} at #{archive.last} was changed"
            yield Finding(position=0, kind=Kind.SNAPSHOT, message=message)


async def announcement(storage: Storage, archive: Archive) -> LogArchived | None:
    """Return the event that announced an archive; None if there is none.

    Raises:
        StoreError: The log, or the archive that has the event, cannot be read.
    """
    recorded = storage.store.read_all(after=archive.last, types={LogArchived.__name__})
    async for event in recorded:
        fact = event.data
        if isinstance(fact, LogArchived) and fact.last == archive.last:
            return fact
    return None


async def diagnose(storage: Storage) -> list[Diagnosis]:
    """Check that the file of each archive is there and unchanged, for the doctor.

    Raises:
        StoreError: The log cannot be read.
    """
    store = storage.store
    if not isinstance(store, ArchivedStore) or not (archives := await store.archives()):
        return []
    found: list[Diagnosis] = []
    for each in archives:
        try:
            path = store.path_of(each)
        except ArchiveMissingError as error:
            what = (
                f"{error.subject} is missing: events #{each.first} to #{each.last} "
                "cannot be shown"
            )
            found.append(diagnosis("archives", what, error.remedy, level=Level.WARNING))
            continue
        if await _is_changed(store, each):
            what = f"archive {path} was changed"
            found.append(diagnosis("archives", what, _REPLACE, level=Level.PROBLEM))
    count = counted(len(archives), "archive")
    text = f"{count} with the events #1 to #{archives[-1].last}, unchanged"
    return found or [diagnosis("archives", text)]


async def _is_changed(store: ArchivedStore, archive: Archive) -> bool:
    try:
        path = store.path_of(archive)
    except ArchiveMissingError:
        return False
    return not await asyncio.to_thread(is_whole, path, archive)


def _range(archive: Archive) -> tuple[int, int]:
    return archive.first, archive.last


def _finding(archive: Archive, message: str, remedy: str = "") -> Finding:
    return Finding(
        position=0,
        kind=Kind.ARCHIVE,
        message=f"the archive {archive.file} {message}",
        remedy=remedy,
    )
