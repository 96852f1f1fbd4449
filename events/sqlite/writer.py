"""The writer of a SQLite log: a queue and a task that commits groups of appends.

Waiting appends are committed together, but each is decided on its own. A group is
planned from the cached head and versions and written with one statement, which
writes nothing if another process has appended meanwhile. In that case, and before
any append is refused, the group is planned again under the write lock. Callers get
their result after the commit, never before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from herdbook.events import codec
from herdbook.events.codec import column_text
from herdbook.events.errors import (
    ConflictError,
    CorruptLogError,
    OutcomeUnknownError,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
)
from herdbook.events.group import Draft, Plan, find_originals, plan_group
from herdbook.events.recorded import RecordedEvent
from herdbook.events.sqlite.errors import InterruptedWriteError
from herdbook.events.store import Head, StoredView
from herdbook.events.subscription import Commits

LARGEST_GROUP = 256
"""Maximum number of appends per commit."""

ROOM = 1024
"""Capacity of the queue; further callers wait for a free slot."""

REMEMBERED_STREAMS = 10_000
"""Number of streams whose version is cached."""

Row: TypeAlias = tuple[Any, ...]
"""A row of SQLite; the schema is STRICT, so its types are known."""

Answer: TypeAlias = tuple[RecordedEvent, ...]


class QueryRunner(Protocol):
    """A connection that runs queries by name."""

    async def run(self, query: str, /, **parameters: object) -> Sequence[Row]:
        """Run a query and return its rows.

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


class _Request(NamedTuple):
    """A waiting append or snapshot.

    Attributes:
        work: The append or the snapshot.
        future: Result for the caller; cancelled with the caller.
        decided: Done when the work is written or refused; never cancelled.
    """

    work: Draft | StoredView
    future: asyncio.Future[Answer]
    decided: asyncio.Future[None]

    def answer(self, outcome: Answer | Exception) -> None:
        """Set the result, unless the caller was cancelled, and mark it as decided."""
        if not self.decided.done():
            self.decided.set_result(None)
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Writer:
    """Writes appends and snapshots in its own task, which callers cannot cancel.

    Args:
        session: The connection for writes, used by the writer alone.
        find_afresh: Finds recorded events by id through a new connection.
        check_file: Raises ``StoreUnavailableError`` if the file is gone, or if a
            process writes to it that does not share the write-ahead log.
        clock: Returns the current time, UTC, for ``recorded_at``.
        commits: Receives the position of each commit.
    """

    def __init__(
        self,
        session: QueryRunner,
        *,
        find_afresh: Callable[[Sequence[str]], Awaitable[dict[str, RecordedEvent]]],
        check_file: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime],
        commits: Commits,
    ) -> None:
        self._session = session
        self._find_afresh = find_afresh
        self._check_file = check_file
        self._clock = clock
        self._commits = commits
        self._head: Head | None = None
        self._versions: dict[str, int] = {}
        self._room = asyncio.Semaphore(ROOM)
        self._waiting: deque[_Request] = deque()
        self._taken: list[_Request] = []
        self._awake = asyncio.Event()
        self._is_closing = False
        self._task = asyncio.create_task(self._work(), name="herdbook writer")
        self._task.add_done_callback(self._answer_remaining)

    @property
    def failure(self) -> StoreError | None:
        """Error that ended the writer; None while it runs."""
        if not self._task.done() or self._is_closing:
            return None
        error = None if self._task.cancelled() else self._task.exception()
        return StoreUnavailableError(
            "the log",
            f"cannot be written: the writer task ended ({error or 'cancelled'!r})",
            "Open it again",
        )

    async def write(self, work: Draft | StoredView) -> Answer:
        """Write an append or a snapshot; the result for a snapshot is empty.

        A caller that is cancelled while its work is in the queue withdraws the work.
        Later, the cancellation is raised once the work is decided, so that the
        log then shows whether the events are recorded.

        Raises:
            StoreError: As ``EventStore.append`` and ``ViewStore.save_view``.
        """
        async with self._room:
            if self._is_closing:
                raise StoreClosedError("the log", "is closed", "Open it again")
            if failure := self.failure:
                raise failure
            loop = asyncio.get_running_loop()
            request = _Request(work, loop.create_future(), loop.create_future())
            self._waiting.append(request)
            self._awake.set()
            try:
                return await request.future
            except asyncio.CancelledError:
                await self._settle(request)
                raise

    async def _settle(self, request: _Request) -> None:
        """Wait until a request that the writer has taken is decided.

        A request in the queue needs no wait: its cancelled future withdraws it.
        """
        if any(waiting is request for waiting in self._waiting):
            return
        # When the event loop ends, so does the task, without a decision.
        ends: set[asyncio.Future[Any]] = {request.decided, self._task}
        while not any(end.done() for end in ends):
            with suppress(asyncio.CancelledError):  # the caller raises the first
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Write accepted requests, answer all callers, and end the task."""
        self._is_closing = True
        self._awake.set()
        await asyncio.wait([self._task])

    async def _work(self) -> None:
        while self._waiting or not self._is_closing:
            await self._awake.wait()
            self._taken = self._take()
            try:
                await self._write(self._taken)
            except Exception as error:  # noqa: BLE001 - the writer serves all others
                self._clear_cache()
                _leave_undecided(self._taken, repr(error))
            self._taken = []
            if not self._waiting and not self._is_closing:
                self._awake.clear()

    def _answer_remaining(self, _: asyncio.Task[None]) -> None:
        """Answer all waiting requests after the task has ended for any reason."""
        failure = self.failure or StoreClosedError("the log", "is closed")
        _leave_undecided(self._taken, failure.state)
        while self._waiting:
            self._waiting.popleft().answer(failure)

    def _take(self) -> list[_Request]:
        """Take requests from the queue, without those that were withdrawn."""
        taken = []
        for _ in range(min(len(self._waiting), LARGEST_GROUP)):
            request = self._waiting.popleft()
            if request.future.done():
                request.decided.set_result(None)
            else:
                taken.append(request)
        return taken

    async def _write(self, requests: Sequence[_Request]) -> None:
        drafts = [request.work for request in requests]
        appends = [work for work in drafts if isinstance(work, Draft)]
        outcomes = iter(await self._append(appends) if appends else ())
        for request in requests:
            if isinstance(request.work, Draft):
                outcome: Answer | Exception = next(outcomes)
            else:
                outcome = await self._save(request.work)
            request.answer(outcome)

    async def _append(self, drafts: Sequence[Draft]) -> Sequence[Answer | Exception]:
        try:
            await self._check_file()
            plan = await self._record(drafts)
        except InterruptedWriteError as error:
            return await self._resolve(drafts, error)
        except Exception as error:  # noqa: BLE001 - raised in the callers; the
            return [error] * len(drafts)  # task must continue for the others
        self._commits.announce(plan.head.position)
        return plan.outcomes

    async def _save(self, view: StoredView) -> Answer | StoreError:
        try:
            await self._check_file()
            await self._session.run(
                "save_view", **msgspec.structs.asdict(view), checksum=view.checksum
            )
        except StoreError as error:
            return error
        return ()

    async def _record(self, drafts: Sequence[Draft]) -> Plan:
        plan = await self._plan(drafts, {})
        if plan.refuses or not await self._insert(plan):
            plan = await self._record_locked(drafts)
        self._head = plan.head
        self._versions |= plan.versions
        if len(self._versions) > REMEMBERED_STREAMS:
            self._versions.clear()
        return plan

    async def _record_locked(self, drafts: Sequence[Draft]) -> Plan:
        """Clear the cache, then plan and write under the write lock."""
        self._clear_cache()
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

    def _clear_cache(self) -> None:
        self._head = None
        self._versions.clear()

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
        rows = [msgspec.structs.astuple(event) for event in plan.events]
        try:
            written = await self._session.run(
                "insert_events", events=_json(rows), previous=plan.begin.hash
            )
        except ConflictError:
            return False
        return len(written) == len(rows)

    async def _resolve(
        self, drafts: Sequence[Draft], interrupted: InterruptedWriteError
    ) -> list[Answer | StoreError]:
        """Find out which events of an interrupted write are recorded."""
        self._clear_cache()
        ids = [event_id for draft in drafts for event_id in draft.ids]
        try:
            recorded = await self._find_afresh(ids)
        except StoreError:  # the cause prevents reading too
            recorded = {}
        return [_resolved(draft, recorded, interrupted) for draft in drafts]


def _leave_undecided(requests: Iterable[_Request], reason: str) -> None:
    """Answer requests whose outcome is unknown."""
    for request in requests:
        work = request.work
        if isinstance(work, Draft):
            ids = work.ids
            request.answer(
                OutcomeUnknownError(work.stream, event_ids=ids, reason=reason)
            )
        else:
            request.answer(
                StoreUnavailableError(f"view {work.name}", f"was not saved: {reason}")
            )


def _resolved(
    draft: Draft, recorded: dict[str, RecordedEvent], interrupted: InterruptedWriteError
) -> Answer | StoreError:
    try:
        originals = find_originals(draft, recorded)
    except ConflictError as error:
        return error
    return originals or OutcomeUnknownError(
        draft.stream, event_ids=draft.ids, reason=interrupted.state
    )


def _json(values: Iterable[object]) -> str:
    return msgspec.json.encode(values).decode()
