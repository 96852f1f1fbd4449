"""Export a log, or a part of it, as lines of CloudEvents.

The log is read once, in order, and memory use does not depend on its length. Every
event is checked against the chain before it is written, so that a damaged log is never
exported as if it were whole.
"""

from __future__ import annotations

import asyncio
import errno
import gzip
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from herdbook.core.clock import Clock
from herdbook.core.log.storage import Storage
from herdbook.core.proof.anchor import Anchor
from herdbook.core.proof.merkle_tree import EventTree
from herdbook.core.proof.proof import first_id, make_anchor
from herdbook.core.transfer.cloud_events import source_of, to_line
from herdbook.core.transfer.contents import Contents, Ending, Selection, frame_line
from herdbook.core.transfer.private_directory import private_directory
from herdbook.events.errors import (
    CallerError,
    CorruptLogError,
    StoreFullError,
    StoreUnavailableError,
)
from herdbook.events.recorded import StoredEvent
from herdbook.events.shared.chain import check_link
from herdbook.events.sqlite.backup import place
from herdbook.events.sqlite.log_file import create_private
from herdbook.events.store import ArchivedStore, Head

Progress = Callable[[int, int], None]
"""Called with the number of events that are done, and of all of them."""

REPORT_EVERY = 1000
"""Events between two calls of ``Progress``."""

EVERYTHING = Selection()

COMPRESSED = ".gz"
"""The end of the name of a file that is compressed with gzip."""

_FULL = {errno.ENOSPC, errno.EDQUOT}


class Target(Protocol):
    """Where the lines go."""

    def write(self, data: bytes, /) -> object:
        """Write all of the data."""
        ...


async def export(
    storage: Storage,
    target: Target,
    clock: Clock,
    *,
    selection: Selection = EVERYTHING,
    sign: Callable[[Anchor], Anchor] | None = None,
    progress: Progress | None = None,
) -> Ending:
    """Write the events of a log as lines; others may append to it meanwhile.

    The export ends with the event that was the last one when it began.

    Args:
        storage: The log.
        target: Where the lines go.
        clock: The time of the export.
        selection: Which events; by default all.
        sign: Signs the anchor of the export. Without it, only an export of a part of
            the log has an anchor, which is not signed.
        progress: Called now and then.

    Returns:
        How the export ends.

    Raises:
        CallerError: The log has no events, or the selection is not in the log.
        CorruptLogError: An event is damaged; the lines before it are written.
        StoreError: The log cannot be read.
        OSError: The target cannot be written.
    """
    contents, source = await _contents(storage, selection)
    tree = None
    if sign or not contents.complete:
        anchor = await make_anchor(storage, clock, position=contents.position)
        contents = _anchored(contents, sign(anchor) if sign else anchor)
    if not contents.complete:
        tree = await EventTree.read(storage, contents.position)
    target.write(frame_line(contents, source=source, time=clock.now()))
    ending = Ending()
    head = Head(contents.after, contents.previous)
    total = contents.until - contents.after
    async for event in _stored(storage, contents):
        before, head = head, _checked(event, head)
        if selection.includes(event):
            path = await tree.inclusion(event.position) if tree else None
            previous = before.hash if tree else ""
            target.write(to_line(event, source, previous=previous, path=path))
            ending = Ending(
                events=ending.events + 1, position=event.position, hash=event.hash
            )
        done = event.position - contents.after
        if progress and not done % REPORT_EVERY:
            progress(done, total)
    if head.position != contents.until:
        raise _damaged(f"#{head.position + 1}", "is missing")
    target.write(frame_line(ending, source=source, time=clock.now()))
    return ending


async def export_to_file(
    storage: Storage,
    file: Path,
    clock: Clock,
    *,
    selection: Selection = EVERYTHING,
    sign: Callable[[Anchor], Anchor] | None = None,
    progress: Progress | None = None,
) -> tuple[Ending, int]:
    """Write an export to a file, which appears when it is complete, or not at all.

    A file with a name that ends with ``.gz`` is compressed.

    The other arguments and errors are those of ``export``.

    Returns:
        How the export ends, and the size of the file in bytes.

    Raises:
        StoreError: The file cannot be written.
    """
    async with private_directory(file.parent) as directory:
        made = directory / file.name
        try:
            create_private(made)
            with _opened(made, compress=file.suffix == COMPRESSED) as target:
                ending = await export(
                    storage,
                    target,
                    clock,
                    selection=selection,
                    sign=sign,
                    progress=progress,
                )
        except OSError as error:
            kind = StoreFullError if error.errno in _FULL else StoreUnavailableError
            raise kind(
                str(file),
                f"cannot be written: {error.strerror or error}",
                "Choose a directory with free space and permission to write",
            ) from error
        return ending, await asyncio.to_thread(place, made, file)


@contextmanager
def _opened(file: Path, *, compress: bool) -> Iterator[Target]:
    with file.open("wb", buffering=1 << 20) as raw:
        if not compress:
            yield raw
            return
        # Without name and time: the same events make the same bytes.
        with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
            yield packed


async def _contents(storage: Storage, selection: Selection) -> tuple[Contents, str]:
    """Return what an export will have, and the source of its events."""
    head = await storage.store.head()
    if not head.position:
        raise CallerError("the log", "has no events yet", "There is nothing to export")
    until = head.position if selection.until is None else selection.until
    # A user names the first event of the selection, not the one before it.
    for position, named in ((selection.after, selection.after + 1), (until, until)):
        if not 0 <= position <= head.position:
            raise CallerError(
                f"#{named}", "does not exist", f"The last event is #{head.position}"
            )
    if until < selection.after:
        raise CallerError(
            f"#{until}", f"is before #{selection.after + 1}", "Swap the two positions"
        )
    contents = Contents(
        complete=not selection.has_gaps
        and (selection.after, until) == (0, head.position),
        after=selection.after,
        previous=await _hash_at(storage, selection.after),
        until=until,
        streams=selection.streams,
        types=selection.types,
        position=head.position,
        hash=head.hash,
    )
    if begin := await first_id(storage):
        return contents, source_of(begin)
    raise _damaged("#1", "is missing")


async def _stored(storage: Storage, contents: Contents) -> AsyncIterator[StoredEvent]:
    """Read the events of the range."""
    limit = contents.until - contents.after
    try:
        async for event in storage.store.read_stored(after=contents.after, limit=limit):
            yield event
    except CorruptLogError as error:
        raise _damaged(error.subject, error.state) from error


async def _hash_at(storage: Storage, position: int) -> str:
    if position == 0:
        return Head().hash
    if isinstance(storage.store, ArchivedStore):  # whose files are not needed
        for archive in await storage.store.archives():
            if archive.last == position:
                return archive.hash
    async for event in storage.store.read_stored(after=position - 1, limit=1):
        return event.hash
    raise _damaged(f"#{position}", "is missing")


def _anchored(contents: Contents, anchor: Anchor) -> Contents:
    return msgspec.structs.replace(contents, anchor=anchor.text())


def _checked(event: StoredEvent, head: Head) -> Head:
    try:
        return check_link(event, head)
    except CallerError as error:
        raise _damaged(error.subject, error.state) from error


def _damaged(subject: str, state: str) -> CorruptLogError:
    return CorruptLogError(
        subject,
        f"{state}; the log is damaged",
        "To see all findings: herdbook verify. Restore a backup: herdbook restore",
    )
