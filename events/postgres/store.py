"""An event store on a PostgreSQL server: durable, and shared by instances anywhere.

One task writes (``events/shared/writer.py``), through a connection of its own. Reads
use another connection, page by page, and a third one waits for notifications once there
is a subscription. All of them reconnect.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from datetime import datetime
from typing import Self

import msgspec

from herdbook.events import codec
from herdbook.events.errors import (
    CorruptLogError,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
)
from herdbook.events.instances import Fence
from herdbook.events.memory import utc_now
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.errors import StartingError
from herdbook.events.postgres.migration import migrate
from herdbook.events.postgres.recorder import PostgresRecorder, read_head
from herdbook.events.postgres.schema import TRIGGERS
from herdbook.events.postgres.session import Backoff, Row, Session
from herdbook.events.recorded import NewEvent, RecordedEvent, StoredEvent
from herdbook.events.shared.cancellation import end, finish
from herdbook.events.shared.chain import check_chain
from herdbook.events.shared.group import draft_append
from herdbook.events.shared.pages import PAGE, Pages
from herdbook.events.shared.writer import ViewChange, Writer
from herdbook.events.snapshots import KeptView, StoredView
from herdbook.events.store import ExpectedVersion, Head, check_read
from herdbook.events.subscription import Commits, follow

POLL_S = 1.0
"""Interval between polls for commits whose notification was lost, seconds."""

HEAD_S = 8.0
"""Time until the connection that polls counts as lost if it is not answered, seconds. A
poll reads one row, and waits for a lock no longer than ``LOCK_S``."""


class PostgresEventStore:
    """A log in a PostgreSQL database, with snapshots of views; use ``open``."""

    def __init__(
        self, address: PostgresAddress, reading: Session, clock: Callable[[], datetime]
    ) -> None:
        self._address = address
        self._reading = reading
        self._writing = Session(address)
        self._listening = Session(address, answer_s=HEAD_S)
        self._commits = Commits()
        self._recorder = PostgresRecorder(self._writing, clock=clock)
        self._writer = Writer(self._recorder, self._committed)
        self._watching: asyncio.Task[None] | None = None
        self._outage: StoreError | None = None
        self._unread: StoreError | None = None
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, address: PostgresAddress, *, clock: Callable[[], datetime] = utc_now
    ) -> Self:
        """Open the log in a database; create it if it does not exist.

        Waits for a server that is starting.

        Args:
            address: Address of the log.
            clock: Returns the current time, UTC, for ``recorded_at``.

        Raises:
            StoreUnavailableError: The server cannot be reached, refuses the user, or
                is read-only.
            NotALogError: Another program uses the schema; it was not changed.
            NewerSchemaError: A newer version wrote the log; it was not changed.
        """
        reading = Session(address)
        try:
            await _connect(reading)
            await migrate(reading, address.schema)
        except BaseException:
            reading.drop()
            raise
        return cls(address, reading, clock)

    async def append(
        self,
        stream: str,
        events: Sequence[NewEvent],
        expected_version: ExpectedVersion,
        *,
        fence: Fence | None = None,
    ) -> tuple[RecordedEvent, ...]:
        """Append events to a stream, all or none; see ``EventStore.append``."""
        return await self._writer.write(
            draft_append(stream, events, expected_version, fence)
        )

    async def append_stored(
        self, events: Sequence[StoredEvent], *, after: Head
    ) -> None:
        """Append events unchanged; see ``ImportingStore.append_stored``."""
        head = check_chain(events, after)

        async def write() -> None:
            await self._recorder.record_stored(events, after)

        await self._writer.write(ViewChange("the import", write))
        self._committed(head)

    def _committed(self, head: Head) -> None:
        self._commits.announce(head.position)

    def read_stream(
        self, stream: str, *, after_version: int = 0, limit: int | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Read a stream in order; see ``EventStore.read_stream``."""
        check_read(after_version, limit, stream)
        query = Pages("stream", after_version, limit, key=2)
        return query.read(self._reading, codec.read_rows, stream=_storable(stream))

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
            kept = None if limit is None else self._recorder.tail.between(after, limit)
            if kept is not None:
                return _given(kept)
            return Pages("log", after, limit).read(self._reading, codec.read_rows)
        return Pages("filtered_log", after, limit).read(
            self._reading,
            codec.read_rows,
            prefix=_storable(stream_prefix),
            types=None if types is None else [_storable(type_) for type_ in types],
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
        streams = [_storable(stream)]
        rows = await self._reading.run("stream_versions", streams=streams)
        version: int = rows[0][0][0]
        return version

    async def head(self) -> Head:
        """Return the end of the log, from its head row."""
        return await read_head(self._reading)

    def failures(self) -> dict[str, StoreError | None]:
        """Return the background tasks by name, each with its failure or None."""
        return {
            "log_writer": self._writer.failure,
            "log_watcher": self._commits.failure or self._outage or self._unread,
        }

    def subscribe(self, after: int) -> AsyncGenerator[RecordedEvent, None]:
        """Read after a position, then follow; see ``EventStore.subscribe``.

        While the server cannot be reached, or the log is locked, a subscription waits.
        """
        check_read(after, None)
        if self._closing:
            raise StoreClosedError(str(self._address), "is closed", "Open it again")
        if not self._watching or self._watching.done():
            self._commits.recover()
            self._watching = asyncio.create_task(self._watch(), name="herdbook watch")
        return follow(self._events_after, self._commits, after)

    async def _events_after(self, position: int) -> Sequence[RecordedEvent]:
        if kept := self._recorder.tail.beyond(position):
            return kept
        backoff = Backoff()
        try:
            while True:
                try:
                    rows = await self._reading.run("log", after=position, limit=PAGE)
                except StoreUnavailableError as error:
                    self._unread = error
                else:
                    return list(codec.read_rows(rows))
                await backoff.wait()
        finally:  # also if the subscription ends meanwhile
            self._unread = None

    async def _watch(self) -> None:
        """Announce the commits of all instances, until cancelled."""
        backoff = Backoff()
        while True:
            try:
                await self._listen()
                backoff = Backoff()
                await self._announce_commits()
            except StoreClosedError:
                return
            except CorruptLogError as error:
                self._commits.fail(error)
                return
            except StoreError as error:
                self._outage = error
            except Exception as error:  # noqa: BLE001 - else subscribers never wake
                self._commits.fail(
                    StoreUnavailableError("the log", f"cannot be followed: {error!r}")
                )
                return
            await backoff.wait()

    async def _listen(self) -> None:
        """Listen, then read the head: no commit falls between the two."""
        await self._listening.listen(f"herdbook {self._address.schema}")
        await self._announce_head()

    async def _announce_commits(self) -> None:
        while True:
            self._outage = None
            await self._listening.notified(POLL_S)
            # Not the position in the payload: any user of the database may notify,
            # and a position beyond the end would make the log appear damaged.
            await self._announce_head()

    async def _announce_head(self) -> None:
        for position, _ in await self._listening.once("head"):
            self._commits.announce(position)

    async def load_view(self, name: str) -> StoredView | None:
        """Return the snapshot of a view, if there is one."""
        check_read(0, None, name)
        rows = await self._reading.run("load_view", name=_storable(name))
        return _stored_view(rows[0]) if rows else None

    async def save_view(self, view: StoredView) -> None:
        """Replace the snapshot of a view."""
        check_read(view.position, None, view.name)
        await self._change_views("save_view", view.name, **_columns(view))

    async def keep_view(self, view: StoredView) -> None:
        """Keep a snapshot at its position; see ``KeptViewStore.keep_view``."""
        check_read(view.position, None, view.name)
        await self._change_views("keep_view", view.name, **_columns(view))

    async def kept_views(self, name: str) -> list[KeptView]:
        """Return the kept snapshots of a view; see ``KeptViewStore.kept_views``."""
        check_read(0, None, name)
        rows = await self._reading.run("kept_views", name=_storable(name))
        return [KeptView(*row) for row in rows]

    async def load_kept_view(
        self, name: str, *, version: int, position: int
    ) -> StoredView | None:
        """Return a kept snapshot, if there is one."""
        check_read(position, None, name)
        rows = await self._reading.run(
            "load_kept_view", name=_storable(name), version=version, position=position
        )
        return _stored_view(rows[0]) if rows else None

    async def drop_views(
        self, name: str, *, version: int, positions: Collection[int]
    ) -> None:
        """Delete kept snapshots; see ``KeptViewStore.drop_views``."""
        check_read(0, None, name)
        await self._change_views(
            "drop_views", name, name=name, version=version, positions=list(positions)
        )

    async def _change_views(
        self, query: str, view: str, /, **parameters: object
    ) -> None:
        """Change snapshots of a view between two groups of appends."""

        async def write() -> None:
            await self._writing.run(query, **parameters)

        await self._writer.write(ViewChange(f"view {view}", write))

    async def check_file(self) -> list[str]:
        """Return the problems of the database itself, in words."""
        enabled = {name for (name,) in await self._reading.run("triggers")}
        return [
            f"the trigger {name} is missing or disabled"
            for name in sorted(TRIGGERS - enabled)
        ]

    async def close(self) -> None:
        """Commit accepted appends and release all resources; safe to call twice."""
        if not self._closing:
            self._closing = asyncio.create_task(self._close(), name="herdbook close")
        await finish(self._closing)

    async def _close(self) -> None:
        await self._writer.close()
        self._commits.end()
        if self._watching:
            await end(self._watching)
        for session in (self._listening, self._reading, self._writing):
            await session.close()

    async def __aenter__(self) -> Self:
        """Return the store itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the store."""
        await self.close()


async def _connect(session: Session) -> None:
    """Connect for the first time; wait only for a server that is starting."""
    backoff = Backoff()
    while True:
        try:
            return await session.connect()
        except StartingError:
            if backoff.is_over:
                raise
        await backoff.wait()


async def _given(
    events: Iterable[RecordedEvent],
) -> AsyncGenerator[RecordedEvent, None]:
    for event in events:
        yield event


def _storable(text: str) -> str:
    """Return a text to compare with, for which NUL cannot be stored.

    No stored text has either character: names and types are printable.
    """
    return text.replace("\0", "\ufffe")


def _stored_events(rows: Iterable[Row]) -> Iterator[StoredEvent]:
    return (StoredEvent(*row) for row in rows)


def _stored_view(row: Row) -> StoredView:
    name, version, position, hash_, data, checksum = row
    view = StoredView(
        name=name, version=version, position=position, hash=hash_, data=data
    )
    if view.checksum != checksum:
        raise CorruptLogError(
            f"snapshot of {name} at #{position}",
            "is damaged",
            "It is ignored, and the next snapshot replaces it",
        )
    return view


def _columns(view: StoredView) -> dict[str, object]:
    return msgspec.structs.asdict(view) | {"checksum": view.checksum}
