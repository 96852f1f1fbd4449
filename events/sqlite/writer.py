"""The one writer of a SQLite log: a queue, a task, and groups of appends.

Appends that wait are committed together, each decided on its own. A group is
planned on what the writer remembers of the log and written with one statement,
which writes nothing if the log has moved on meanwhile. Then, and whenever an
append is to be refused, the group is decided again under the write lock, where
nothing can move. A caller is answered after the commit, never before it.
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
from herdbook.events.errors import (
    ConflictError,
    CorruptLogError,
    OutcomeUnknownError,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
)
from herdbook.events.group import Draft, Plan, find_originals, plan_group
from herdbook.events.raw_text import shown
from herdbook.events.recorded import RecordedEvent
from herdbook.events.sqlite.errors import BrokenOffError
from herdbook.events.store import Head, StoredView
from herdbook.events.subscription import Commits

LARGEST_GROUP = 256
"""Appends that are committed together at most."""

ROOM = 1024
"""Appends that may wait; further callers wait for room."""

REMEMBERED_STREAMS = 10_000
"""Streams of which the writer remembers the version."""

Row: TypeAlias = tuple[Any, ...]
"""A row as SQLite gives it; the schema is STRICT, so its types are known."""

Answer: TypeAlias = tuple[RecordedEvent, ...]


class Session(Protocol):
    """A connection that runs queries by name."""

    async def run(self, query: str, /, **parameters: object) -> Sequence[Row]:
        """Run a query and return its rows.

        Raises:
            StoreError: SQLite could not do it.
        """
        ...

    async def rollback(self) -> None:
        """End the transaction, if there is one, and keep nothing of it."""
        ...


async def read_head(session: Session) -> Head:
    """Return the end of the log.

    Raises:
        CorruptLogError: There is no head row, or it is damaged.
    """
    for position, hash_ in await session.run("head"):
        if type(position) is int and isinstance(hash_, str | bytes):
            return Head(position, shown(hash_))  # a damaged hash fits no event
        raise CorruptLogError(
            "the log", "has a head row that is damaged", "Run: herdbook verify"
        )
    raise CorruptLogError("the log", "has no head row", "Run: herdbook verify")


async def find_recorded(
    session: Session, ids: Iterable[str]
) -> dict[str, RecordedEvent]:
    """Return what is recorded under these ids, by id."""
    rows = await session.run("events_by_id", ids=_json(list(ids)))
    events = [codec.read_row(*row) for row in rows]
    return {event.event_id: event for event in events}


class _Request(NamedTuple):
    """What a caller waits for.

    Attributes:
        work: What is to be written.
        future: The answer; cancelled with the caller.
        decided: Done when it is written or refused; never cancelled.
    """

    work: Draft | StoredView
    future: asyncio.Future[Answer]
    decided: asyncio.Future[None]

    def answer(self, outcome: Answer | Exception) -> None:
        """Tell the caller, if it still waits, and whoever waits for its end."""
        if not self.decided.done():
            self.decided.set_result(None)
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Writer:
    """Writes appends and views, in a task of its own that nobody cancels.

    Args:
        session: The connection that writes; nobody else uses it.
        look_again: Finds recorded events by id through a fresh connection.
        still_there: Raises ``StoreUnavailableError`` if the file is gone, or
            somebody writes it who does not share our write-ahead log.
        clock: Tells when an event is recorded, UTC.
        commits: Where commits are announced.
    """

    def __init__(
        self,
        session: Session,
        *,
        look_again: Callable[[Sequence[str]], Awaitable[dict[str, RecordedEvent]]],
        still_there: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime],
        commits: Commits,
    ) -> None:
        self._session = session
        self._look_again = look_again
        self._still_there = still_there
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
        self._task.add_done_callback(self._answer_all)

    @property
    def failure(self) -> StoreError | None:
        """Why nothing can be written any more; None while it can."""
        if not self._task.done() or self._is_closing:
            return None
        error = None if self._task.cancelled() else self._task.exception()
        return StoreUnavailableError(
            "the log",
            f"can no longer be written: its writer ended ({error or 'cancelled'!r})",
            "Open it again",
        )

    async def write(self, work: Draft | StoredView) -> Answer:
        """Have an append or a view written; the answer to a view is empty.

        A caller that is cancelled while it waits withdraws; one that is cancelled
        later learns of it when it is decided, so that the log says what happened.

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

        One that it has not taken is withdrawn, since its future is cancelled.
        """
        if any(waiting is request for waiting in self._waiting):
            return
        # The end of the loop ends the task too: nothing is decided any more.
        ends: set[asyncio.Future[Any]] = {request.decided, self._task}
        while not any(end.done() for end in ends):
            with suppress(asyncio.CancelledError):  # the caller raises the first
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Write what was accepted, answer everybody, and end the task."""
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
                self._forget()
                _leave_undecided(self._taken, repr(error))
            self._taken = []
            if not self._waiting and not self._is_closing:
                self._awake.clear()

    def _answer_all(self, _: asyncio.Task[None]) -> None:
        """Let nobody wait for a writer that has ended, however that came about."""
        failure = self.failure or StoreClosedError("the log", "is closed")
        _leave_undecided(self._taken, failure.state)
        while self._waiting:
            self._waiting.popleft().answer(failure)

    def _take(self) -> list[_Request]:
        """Take what waits, but for what was withdrawn."""
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
            await self._still_there()
            plan = await self._record(drafts)
        except BrokenOffError as error:
            return await self._resolve(drafts, error)
        except Exception as error:  # noqa: BLE001 - the callers get it, and the
            return [error] * len(drafts)  # task that serves all others lives on
        self._commits.announce(plan.head.position)
        return plan.outcomes

    async def _save(self, view: StoredView) -> Answer | StoreError:
        try:
            await self._still_there()
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
        """Decide and write under the write lock, forgetting what was remembered."""
        self._forget()
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
                "the log", "does not fit its head", "Run: herdbook verify"
            )
        return plan

    def _forget(self) -> None:
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
            moment=self._clock(),
        )

    async def _insert(self, plan: Plan) -> bool:
        """Write the events of a plan; return False if the log has moved on."""
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
        self, drafts: Sequence[Draft], broken_off: BrokenOffError
    ) -> list[Answer | StoreError]:
        """Find out what was kept of a group whose writing was broken off."""
        self._forget()
        ids = [event_id for draft in drafts for event_id in draft.ids]
        try:
            recorded = await self._look_again(ids)
        except StoreError:  # what broke the writing off keeps us from reading too
            recorded = {}
        return [_resolved(draft, recorded, broken_off) for draft in drafts]


def _leave_undecided(requests: Iterable[_Request], reason: str) -> None:
    """Answer requests of which nobody knows whether they were written."""
    for request in requests:
        work = request.work
        if isinstance(work, Draft):
            ids = work.ids
            request.answer(
                OutcomeUnknownError(work.stream, event_ids=ids, reason=reason)
            )
        else:
            request.answer(
                StoreUnavailableError(f"view {work.name}", f"was not kept: {reason}")
            )


def _resolved(
    draft: Draft, recorded: dict[str, RecordedEvent], broken_off: BrokenOffError
) -> Answer | StoreError:
    try:
        originals = find_originals(draft, recorded)
    except ConflictError as error:
        return error
    return originals or OutcomeUnknownError(
        draft.stream, event_ids=draft.ids, reason=broken_off.state
    )


def _json(values: Iterable[object]) -> str:
    return msgspec.json.encode(values).decode()
