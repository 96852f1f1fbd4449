"""An event store in a SQLite file: durable, shared by processes and append-only.

One task writes (``events/shared/writer.py``), through a connection of its own. Reads
use another connection, page by page, so that no read holds a transaction open. Every
error of SQLite is translated (``errors.py``).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

import msgspec

from herdbook.events import codec
from herdbook.events.archive_file import Archive, ArchiveMissingError
from herdbook.events.codec import column_text
from herdbook.events.errors import (
    CorruptLogError,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
)
from herdbook.events.instances import Fence
from herdbook.events.memory import utc_now
from herdbook.events.recorded import NewEvent, RecordedEvent, StoredEvent
from herdbook.events.shared.cancellation import end, finish
from herdbook.events.shared.chain import check_chain
from herdbook.events.shared.group import draft_append
from herdbook.events.shared.pages import PAGE, Pages
from herdbook.events.shared.writer import ViewChange, Writer
from herdbook.events.snapshots import KeptView, StoredView
from herdbook.events.sqlite.archived import ArchivedSession
from herdbook.events.sqlite.connection import (
    check_file,
    check_is_log,
    check_wal_in_thread,
    connected,
    head_of_file,
)
from herdbook.events.sqlite.kept_head import HeadKeeper, KeptHead, contradiction
from herdbook.events.sqlite.log_file import (
    Access,
    OpenFile,
    create_private,
    log_exists,
    log_file_path,
)
from herdbook.events.sqlite.recorder import (
    Row,
    SQLiteRecorder,
    find_recorded,
    read_head,
)
from herdbook.events.sqlite.session import (
    check_library,
    prepare,
)
from herdbook.events.sqlite.use_mark import UseMark, has_wal
from herdbook.events.store import ANY, ExpectedVersion, Head, check_read
from herdbook.events.subscription import Commits, follow, watch


class SQLiteEventStore:
    """A log in a SQLite file, with snapshots of views; use ``open`` to create one."""

    def __init__(
        self,
        path: Path,
        *,
        writing: ArchivedSession,
        reading: ArchivedSession,
        connections: AsyncExitStack,
        clock: Callable[[], datetime],
        access: Access = Access.WRITE,
        archive_directory: Path | None = None,
    ) -> None:
        self._path = path
        self._archive_directory = archive_directory or path.parent
        self._access = access
        self._file = OpenFile(path)
        self._kept = KeptHead(path)
        self._keeper = HeadKeeper(self._kept, self._when_idle)
        self._mark = UseMark(path, writing)
        self._missing = ""
        self._reading = reading
        self._connections = connections
        self._commits = Commits()
        self._recorder = SQLiteRecorder(
            writing,
            find_afresh=self._find_on_new_connection,
            check_file=self._before_write,
            clock=clock,
        )
        self._writer = Writer(self._recorder, self._committed)
        self._watching: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], datetime] = utc_now,
        accept_loss: bool = False,
        access: Access = Access.WRITE,
        archive_directory: Path | None = None,
    ) -> Self:
        """Open the log in a file; create it if it does not exist.

        A log that ends before its saved head can be opened; see ``missing``.

        Args:
            path: Path of the file, in an existing directory.
            clock: Returns the current time, UTC, for ``recorded_at``.
            accept_loss: Accept that recorded events are missing: commits after damage
                in the write-ahead log are dropped, and the saved head becomes the
                present end of the log.
            access: What the store may do; ``open_for_reading`` chooses it.
            archive_directory: The directory in which archives are looked for; by
                default that of the file.

        Raises:
            StoreUnavailableError: The path is a directory, or the file is locked, not
                readable and writable, or has several names.
            NotALogError: The file is not a Herdbook log; it was not changed.
            NewerSchemaError: A newer version wrote the log; it was not changed.
            CorruptLogError: The log is damaged. If its write-ahead log is damaged, or
                the log is missing next to it, nothing was changed.
        """
        opening = asyncio.create_task(
            cls._open(Path(path), clock, accept_loss, access, archive_directory)
        )
        try:
            return await finish(opening)
        except asyncio.CancelledError:
            await opening.result().close()
            raise

    @classmethod
    async def _open(
        cls,
        path: Path,
        clock: Callable[[], datetime],
        accept_loss: bool,
        access: Access,
        archive_directory: Path | None,
    ) -> Self:
        check_library(sqlite3.sqlite_version_info)
        exists = log_exists(path, writable=access is not Access.IMMUTABLE)
        path = log_file_path(path)
        had_wal = has_wal(path)
        if exists:
            await check_is_log(path)
            if not accept_loss:
                await check_wal_in_thread(path)
        else:
            create_private(path)
        async with AsyncExitStack() as stack:
            connect = partial(connected, path, access.value, archive_directory)
            writing = await stack.enter_async_context(connect())
            if access is Access.IMMUTABLE:
                reading = writing
            else:
                await prepare(writing)
                reading = await stack.enter_async_context(connect())
                await reading.set_up()
            await reading.run("query_only")
            store = cls(
                path,
                writing=writing,
                reading=reading,
                connections=stack.pop_all(),
                clock=clock,
                access=access,
                archive_directory=archive_directory,
            )
        try:
            await store._find_missing(accept_loss, had_wal)
        except BaseException:
            await store.close()
            raise
        return store

    async def append(
        self,
        stream: str,
        events: Sequence[NewEvent],
        expected_version: ExpectedVersion,
        *,
        fence: Fence | None = None,
    ) -> tuple[RecordedEvent, ...]:
        """Append events to a stream, all or none; see ``EventStore.append``."""
        self._check_writable()
        self._file.check_process()  # the recorder checks the file, once for a group
        draft = draft_append(stream, events, expected_version, fence)
        return await self._writer.write(draft)

    async def append_stored(
        self, events: Sequence[StoredEvent], *, after: Head
    ) -> None:
        """Append events unchanged; see ``ImportingStore.append_stored``."""
        self._check_writable()
        self._file.check()
        head = check_chain(events, after)
        write = partial(self._recorder.record_stored, events, after)
        await self._writer.write(ViewChange("the import", write))
        self._committed(head)

    def _committed(self, head: Head) -> None:
        self._commits.announce(head.position)
        if not self._missing:
            self._keeper.note(head)

    def read_stream(
        self, stream: str, *, after_version: int = 0, limit: int | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Read a stream in order; see ``EventStore.read_stream``."""
        check_read(after_version, limit, stream)
        query = Pages("stream", after_version, limit, key=2)
        return query.read(self._reading, codec.read_rows, stream=stream)

    def read_all(
        self,
        *,
        after: int = 0,
        limit: int | None = None,
        stream_prefix: str = "",
        types: Collection[str] | None = None,
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Read the log in order of position; see ``EventStore.read_all``."""
        check_read(after, limit, stream_prefix, *(types or ()))
        if not stream_prefix and types is None:
            return Pages("log", after, limit).read(self._reading, codec.read_rows)
        wanted = None if types is None else msgspec.json.encode(list(types)).decode()
        return Pages("filtered_log", after, limit).read(
            self._reading, codec.read_rows, prefix=stream_prefix, types=wanted
        )

    def read_stored(
        self, *, after: int = 0, limit: int | None = None
    ) -> AsyncGenerator[StoredEvent, None]:
        """Read the log undecoded; see ``EventStore.read_stored``."""
        check_read(after, limit)
        return Pages("log", after, limit).read(self._reading, _stored_events)

    async def stream_version(self, stream: str) -> int:
        """Return the version of a stream; 0 if the stream has no events."""
        check_read(0, None, stream)
        version: int = (await self._reading.run("stream_version", stream=stream))[0][0]
        return version

    async def head(self) -> Head:
        """Return the end of the log, from its head row."""
        self._file.check()
        if self._access is Access.IMMUTABLE:
            self._file.check_unchanged()
        return await read_head(self._reading)

    def failures(self) -> dict[str, StoreError | None]:
        """Return the background tasks by name, each with its failure or None."""
        return {
            "log_writer": self._writer.failure,
            "log_watcher": self._commits.failure,
            "kept_head": self._keeper.failure,
        }

    @property
    def missing(self) -> str:
        """Which events are missing, in words; empty if none are known to be."""
        return self._missing

    async def _find_missing(self, accept_loss: bool, had_wal: bool) -> None:
        keep = self._access is not Access.IMMUTABLE
        try:
            copied = await self._mark.missing(had_wal=had_wal, keep=keep)
            found = await self._contradiction() or copied
        except CorruptLogError:  # verify reports it
            return
        if found and accept_loss:
            await self._keeper.replace(await read_head(self._reading))
            if copied:
                await self._mark.accept()
        else:
            self._missing = found

    async def _contradiction(self) -> str:
        """Describe how the log contradicts its saved head; empty if it does not."""
        kept = self._kept.read()  # before the log, to which other processes may append
        if kept is None:
            return ""
        rows = await self._reading.run("hash_at", position=kept.position)
        there = await self._hash_at(kept)
        return contradiction(kept, there, rows[0][1])

    async def _hash_at(self, head: Head) -> str | None:
        """Return the hash of the event at the position of a head, if there is one."""
        rows = await self._reading.run("hash_at", position=head.position)
        hash_: str | None = rows[0][0]
        if hash_ is None and 0 < head.position <= await self._reading.boundary():
            try:
                event = await self._reading.event(head.position)
            except (ArchiveMissingError, CorruptLogError):  # verify reports it
                return head.hash
            hash_ = event.hash if event else None
        return hash_

    async def _before_write(self) -> None:
        await self._check_shared_file()
        if not self._missing:
            await self._mark.set()

    async def _check_shared_file(self) -> None:
        """Check that no process writes to the file with another write-ahead log.

        Only checkpoints change the main file. After each change, the file must end
        with an event of this log.

        Raises:
            StoreUnavailableError: It does not, or the file is gone.
        """
        if (stamp := self._file.stamp(self._file.check())) is None:
            return
        head = await head_of_file(self._path)
        if head and not await self._contains_head(head):  # perhaps read during a write
            head = await head_of_file(self._path)
        if head is None:
            return
        if not await self._contains_head(head):
            raise StoreUnavailableError(
                str(self._path),
                f"was written by a process that does not use the same -wal: event "
                f"#{head.position} in the file is not in this log",
                "Stop all processes that use the file, by whatever path, then run: "
                "herdbook verify",
            )
        self._file.mark_checked(stamp)

    async def _contains_head(self, head: Head) -> bool:
        """Return whether a head of the main file is one of this log."""
        return (
            head.position == 0
            or head
            == await read_head(self._reading)  # verify checks whether it is right
            or head.hash == await self._hash_at(head)
        )

    async def _when_idle(self) -> None:
        """Move the write-ahead log into the file, unless a reader blocks that.

        A copy of the file alone then has all events, and a crash cannot tear a commit.
        """
        with suppress(StoreError):
            if not self._missing:
                await self._writer.write(ViewChange("the mark", self._mark.remove))
            await self._reading.run("checkpoint")

    def subscribe(self, after: int) -> AsyncGenerator[RecordedEvent, None]:
        """Read after a position, then follow; see ``EventStore.subscribe``."""
        check_read(after, None)
        if self._closing:
            raise StoreClosedError(str(self._path), "is closed", "Open it again")
        if not self._watching or self._watching.done():
            self._commits.recover()
            self._watching = asyncio.create_task(
                watch(self._data_version, self.head, self._commits),
                name="herdbook watch",
            )
        return follow(self._events_after, self._commits, after)

    async def _events_after(self, position: int) -> list[RecordedEvent]:
        rows = await self._reading.run("log", after=position, limit=PAGE)
        return list(codec.read_rows(rows))

    async def _data_version(self) -> int:
        self._file.check()
        version: int = (await self._reading.run("data_version"))[0][0]
        return version

    async def load_view(self, name: str) -> StoredView | None:
        """Return the snapshot of a view, if there is one."""
        check_read(0, None, name)
        rows = await self._reading.run("load_view", name=name)
        return _stored_view(rows[0]) if rows else None

    async def save_view(self, view: StoredView) -> None:
        """Replace the snapshot of a view."""
        self._check_writable()
        check_read(view.position, None, view.name)
        self._file.check()
        await self._change_views("save_view", view.name, **_columns(view))

    async def keep_view(self, view: StoredView) -> None:
        """Keep a snapshot at its position; see ``KeptViewStore.keep_view``."""
        check_read(view.position, None, view.name)
        self._file.check()
        await self._change_views("keep_view", view.name, **_columns(view))

    async def kept_views(self, name: str) -> list[KeptView]:
        """Return the kept snapshots of a view; see ``KeptViewStore.kept_views``."""
        check_read(0, None, name)
        rows = await self._reading.run("kept_views", name=name)
        return [KeptView(*row) for row in rows]

    async def load_kept_view(
        self, name: str, *, version: int, position: int
    ) -> StoredView | None:
        """Return a kept snapshot, if there is one."""
        check_read(position, None, name)
        rows = await self._reading.run(
            "load_kept_view", name=name, version=version, position=position
        )
        return _stored_view(rows[0]) if rows else None

    async def drop_views(
        self, name: str, *, version: int, positions: Collection[int]
    ) -> None:
        """Delete kept snapshots; see ``KeptViewStore.drop_views``."""
        check_read(0, None, name)
        self._file.check()
        at = msgspec.json.encode(list(positions)).decode()
        await self._change_views(
            "drop_views", name, name=name, version=version, positions=at
        )

    async def _change_views(
        self, query: str, view: str, /, **parameters: object
    ) -> None:
        """Change snapshots of a view between two groups of appends."""
        write = partial(self._recorder.change_views, query, **parameters)
        await self._writer.write(ViewChange(f"view {view}", write))

    async def archives(self) -> list[Archive]:
        """Return the archives; see ``ArchivedStore.archives``."""
        return await self._reading.archives()

    def path_of(self, archive: Archive) -> Path:
        """Return where an archive is; see ``ArchivedStore.path_of``."""
        return self._reading.path_of(archive)

    async def boundary_views(self, position: int | None = None) -> list[StoredView]:
        """Return the views at a boundary; see ``ArchivedStore.boundary_views``."""
        last = (1 << 63) - 1 if position is None else position
        rows = await self._reading.run("boundary_views", position=last)
        return [view for row in rows if (view := _stored_view(row))]

    async def archived_versions(self) -> dict[str, int]:
        """Return the versions of the streams at the boundary."""
        rows = await self._reading.run("archived_streams")
        return {column_text(stream): version for stream, version in rows}

    async def keep_ids(self, *, after: int, until: int) -> None:
        """Keep the ids of some events; see ``ArchivedStore.keep_ids``."""
        await self._change_archived("keep_ids", after=after, until=until)

    async def seal(
        self,
        archive: Archive,
        *,
        stream: str,
        event: NewEvent,
        versions: Mapping[str, int],
        views: Sequence[StoredView],
    ) -> None:
        """Record an archive; see ``ArchivedStore.seal``."""
        self._check_writable()
        self._file.check()
        draft = draft_append(stream, [event], ANY)
        row, columns = msgspec.structs.asdict(archive), [_columns(v) for v in views]

        async def write() -> None:
            plan = await self._recorder.seal(draft, row, versions, columns)
            self._committed(plan.head)

        await self._writer.write(ViewChange("the archive", write))

    async def has_archived(self) -> bool:
        """Return whether events are left to delete; see ``ArchivedStore``."""
        return bool((await self._reading.run("has_archived"))[0][0])

    async def delete_archived(self, limit: int) -> int:
        """Delete archived events; see ``ArchivedStore.delete_archived``."""
        return await self._change_archived("delete_archived", limit=limit)

    async def _change_archived(self, query: str, /, **parameters: object) -> int:
        self._check_writable()
        self._file.check()
        changed: list[int] = []

        async def write() -> None:
            changed.append(await self._recorder.change_archived(query, **parameters))

        await self._writer.write(ViewChange("the archive", write))
        return sum(changed)

    async def free_bytes(self) -> tuple[int, int]:
        """Return the unused and the used bytes of the file."""
        (free,), (pages,), (size,) = [
            (await self._reading.run(name))[0]
            for name in ("freelist_count", "page_count", "page_size")
        ]
        return free * size, (pages - free) * size

    async def shrink(self) -> None:
        """Give free space back; see ``ArchivedStore.shrink``."""
        self._check_writable()
        await self._change_views("vacuum", "the archive")
        await self._change_views("truncate_wal", "the archive")

    async def check_file(self) -> list[str]:
        """Return the problems of the file itself, in words; empty for a sound file.

        Runs SQLite's check of every page and index, compares the tables, indexes and
        triggers with the migrations, and compares the log with its saved head.
        """
        missing = [self._missing] if self._missing else []
        return [*missing, *await check_file(self._path, self._access.value)]

    def _check_writable(self) -> None:
        if self._access is not Access.WRITE:
            raise StoreUnavailableError(
                str(self._path),
                "was opened for reading, because it cannot be written",
                "Give permission to write the file and its directory",
            )

    async def _find_on_new_connection(
        self, ids: Sequence[str]
    ) -> dict[str, RecordedEvent]:
        connecting = connected(self._path, self._access.value, self._archive_directory)
        async with connecting as session:
            return await find_recorded(session, ids)

    async def close(self) -> None:
        """Commit accepted appends and release all resources; safe to call twice.

        Closing the last connection to a log moves the write-ahead log into the file.
        In a fork of the process that opened the log, this does nothing.
        """
        if self._file.is_fork:
            return
        if not self._closing:
            self._closing = asyncio.create_task(self._close())
        await finish(self._closing)

    async def _close(self) -> None:
        async with self._connections:
            await self._writer.close()
            head = await self._head_to_keep()
            await self._keeper.close(head)
            if head is not None:
                with suppress(StoreError):  # a later close removes it
                    await self._mark.remove()
            self._commits.end()
            if self._watching:
                await end(self._watching)
        if head is not None:
            with suppress(StoreError):
                await self._mark.remove_after_close()

    async def _head_to_keep(self) -> Head | None:
        if self._missing or self._access is not Access.WRITE:
            return None
        try:
            return await self.head()
        except StoreError:  # gone or damaged: leave the saved head unchanged
            return None

    async def __aenter__(self) -> Self:
        """Return the store itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the store."""
        await self.close()


def _stored_events(rows: Sequence[Row]) -> Iterable[StoredEvent]:
    """Return the events of a page; a damaged page may have columns of other types."""
    try:
        return msgspec.convert(rows, list[StoredEvent])
    except msgspec.ValidationError:
        return _events_before_damage(rows)


def _events_before_damage(rows: Iterable[Row]) -> Iterator[StoredEvent]:
    for row in rows:
        if tuple(map(type, row)) not in codec.COLUMN_TYPES:
            raise CorruptLogError(
                f"event #{row[0]}",
                f"has a damaged column ({codec.not_utf_8(row) or 'of another type'})",
                "The other events are not affected",
            )
        yield StoredEvent(*row)


def _stored_view(row: Row) -> StoredView | None:
    name, version, position, hash_, data, checksum = row
    if checksum is None:  # saved by a version without checksums
        return None
    view = StoredView(
        name=name, version=version, position=position, hash=hash_, data=data
    )
    if not isinstance(data, bytes) or view.checksum != checksum:
        raise CorruptLogError(
            f"snapshot of {name} at #{position}",
            "is damaged",
            "It is ignored, and the next snapshot replaces it",
        )
    return view


def _columns(view: StoredView) -> dict[str, object]:
    return msgspec.structs.asdict(view) | {"checksum": view.checksum}
