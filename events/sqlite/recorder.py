"""Record groups of appends in a SQLite log.

A group is planned from the cached head and versions and written in one transaction,
which writes nothing if another process has appended meanwhile. In that case, and
before any append is refused, the group is planned again under the write lock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeAlias

import msgspec

from herdbook.events import codec
from herdbook.events.codec import column_text
from herdbook.events.errors import ConflictError, CorruptLogError
from herdbook.events.recorded import RecordedEvent, StoredEvent
from herdbook.events.shared.chain import head_moved
from herdbook.events.shared.group import Draft, Plan, plan_group
from herdbook.events.store import Head

REMEMBERED_STREAMS = 10_000
"""Number of streams whose version is cached."""

Row: TypeAlias = tuple[Any, ...]
"""A row of SQLite; the schema is STRICT, so its types are known."""


class QueryRunner(Protocol):
    """A connection that runs queries by name."""

    async def run(self, query: str, /, **parameters: object) -> Sequence[Row]:
        """Run a query and return its rows.

        Raises:
            StoreError: SQLite failed.
        """
        ...

    async def run_many(self, query: str, rows: Sequence[Row], /) -> None:
        """Run a query for each row of parameters, for all of them or for none.

        It has a transaction of its own, unless there is one already.

        Raises:
            StoreError: SQLite failed.
        """
        ...

    async def rollback(self) -> None:
        """Roll back the transaction, if there is one."""
        ...


async def read_head(session: QueryRunner) -> Head:
    """Return the end of the log.

    Raises:
        CorruptLogError: The head row is missing or damaged.
    """
    for position, hash_ in await session.run("head"):
        if type(position) is int and isinstance(hash_, str | bytes):
            return Head(position, column_text(hash_))  # a damaged hash matches no event
        raise CorruptLogError(
            "the log", "has a damaged head row", "Run: herdbook verify"
        )
    raise CorruptLogError("the log", "has no head row", "Run: herdbook verify")


async def find_recorded(
    session: QueryRunner, ids: Iterable[str]
) -> dict[str, RecordedEvent]:
    """Return the recorded events with the given ids, by id."""
    rows = await session.run("events_by_id", ids=_json(list(ids)))
    events = [codec.read_row(*row) for row in rows]
    return {event.event_id: event for event in events}


class SQLiteRecorder:
    """Decides and writes groups of appends; used by one ``Writer`` alone.

    Args:
        session: The connection for writes, used by the recorder alone.
        find_afresh: Finds recorded events by id through a new connection.
        check_file: Raises ``StoreUnavailableError`` if the file is gone, or if a
            process writes to it that does not share the write-ahead log.
        clock: Returns the current time, UTC, for ``recorded_at``.
    """

    def __init__(
        self,
        session: QueryRunner,
        *,
        find_afresh: Callable[[Sequence[str]], Awaitable[dict[str, RecordedEvent]]],
        check_file: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime],
    ) -> None:
        self._session = session
        self._find_on_new_connection = find_afresh
        self._check_file = check_file
        self._clock = clock
        self._head: Head | None = None
        self._versions: dict[str, int] = {}

    async def record(self, drafts: Sequence[Draft]) -> Plan:
        """Write a group of appends; see ``Recorder.record``."""
        await self._check_file()
        plan = await self._plan(drafts, {})
        if plan.refuses or not await self._insert(plan):
            plan = await self._record_locked(drafts)
        self._head = plan.head
        self._versions |= plan.versions
        if len(self._versions) > REMEMBERED_STREAMS:
            self._versions.clear()
        return plan

    async def change_views(self, query: str, /, **parameters: object) -> None:
        """Change snapshots of views with a query.

        Raises:
            StoreError: They were not changed.
        """
        await self._check_file()
        await self._session.run(query, **parameters)

    async def seal(
        self,
        draft: Draft,
        archive: Mapping[str, object],
        versions: Mapping[str, int],
        views: Sequence[Mapping[str, object]],
    ) -> Plan:
        """Record an archive, its event and the state at its end, all or none.

        Raises:
            ConflictError: Another process has archived these events.
            StoreError: Nothing was recorded.
        """
        await self._check_file()
        self.forget()
        streams = _json(list(versions.items()))
        try:
            await self._session.run("begin")
            plan = await self._record_alone([draft])
            await self._session.run("add_archive", **archive)
            await self._session.run("archive_streams", streams=streams)
            for view in views:
                await self._session.run("keep_boundary_view", **view)
            await self._session.run("commit")
        except BaseException:
            await self._session.rollback()
            raise
        self._head = plan.head
        return plan

    async def change_archived(self, query: str, /, **parameters: object) -> int:
        """Change the rows of archived events with a query; return how many."""
        await self._check_file()
        return len(await self._session.run(query, **parameters))

    async def record_stored(self, events: Sequence[StoredEvent], after: Head) -> None:
        """Write events exactly as they are, if the log ends at ``after``.

        Raises:
            ConflictError: The log has another end, or an id or a version is taken.
            StoreError: They were not written.
        """
        await self._check_file()
        self.forget()
        if await read_head(self._session) != after:
            raise head_moved(after)
        await self._write(events, after)

    async def find(self, ids: Sequence[str]) -> dict[str, RecordedEvent]:
        """Find recorded events by id; see ``Recorder.find``."""
        return await self._find_on_new_connection(ids)

    def forget(self) -> None:
        """Clear the cached head and versions."""
        self._head = None
        self._versions.clear()

    async def _record_locked(self, drafts: Sequence[Draft]) -> Plan:
        """Clear the cache, then plan and write under the write lock."""
        self.forget()
        try:
            await self._session.run("begin")
            plan = await self._record_alone(drafts)
            await self._session.run("commit")
        except BaseException:
            await self._session.rollback()
            raise
        return plan

    async def _record_alone(self, drafts: Sequence[Draft]) -> Plan:
        ids = [event_id for draft in drafts for event_id in draft.ids]
        plan = await self._plan(drafts, await find_recorded(self._session, ids))
        if not await self._insert(plan):
            raise CorruptLogError(
                "the log", "does not match its head row", "Run: herdbook verify"
            )
        return plan

    async def _plan(
        self, drafts: Sequence[Draft], recorded: dict[str, RecordedEvent]
    ) -> Plan:
        head = self._head or await read_head(self._session)
        streams = {draft.stream for draft in drafts}
        if unknown := streams - self._versions.keys():
            rows = await self._session.run("stream_versions", streams=_json(unknown))
            self._versions |= dict(rows)
        return plan_group(
            drafts,
            head=head,
            versions={stream: self._versions[stream] for stream in streams},
            recorded=recorded,
            now=self._clock(),
        )

    async def _insert(self, plan: Plan) -> bool:
        """Write the events of a plan; return False if the log has changed meanwhile."""
        if not plan.events:
            return True
        try:
            await self._write(plan.events, plan.begin)
        except ConflictError:
            return False
        return True

    async def _write(self, events: Sequence[StoredEvent], after: Head) -> None:
        """Write events, all or none.

        Raises:
            ConflictError: The log does not end at ``after``, or an id or a version is
                taken.
            StoreError: They were not written.
        """
        rows, previous = [], after.hash
        for event in events:
            columns = msgspec.structs.astuple(event)
            rows.append((*columns[:-1], previous, event.hash))
            previous = event.hash
        await self._session.run_many("insert_event", rows)


def _json(values: Iterable[object]) -> str:
    return msgspec.json.encode(values).decode()
