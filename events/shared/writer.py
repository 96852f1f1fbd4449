"""The writer of a log: a queue and a task that commits groups of appends.

Waiting appends are committed together, but each is decided on its own. A
``Recorder`` decides and writes a group. Callers get their result after the commit,
never before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeAlias

from herdbook.events.errors import (
    ConflictError,
    InterruptedWriteError,
    OutcomeUnknownError,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
)
from herdbook.events.recorded import RecordedEvent
from herdbook.events.shared.group import Draft, Plan, find_originals
from herdbook.events.store import Head

LARGEST_GROUP = 256
"""Maximum number of appends per commit."""

ROOM = 1024
"""Capacity of the queue; further callers wait for a free slot."""

Answer: TypeAlias = tuple[RecordedEvent, ...]


class Recorder(Protocol):
    """Decides and writes groups of appends to a log."""

    async def record(self, drafts: Sequence[Draft]) -> Plan:
        """Decide a group of appends, and write its events in one transaction.

        Raises:
            InterruptedWriteError: The events may or may not be written.
            StoreError: Nothing was written.
        """
        ...

    async def find(self, ids: Sequence[str]) -> dict[str, RecordedEvent]:
        """Find recorded events by id, after an interrupted write.

        Raises:
            StoreError: The log cannot be read.
        """
        ...

    def forget(self) -> None:
        """Forget what is cached about the log, since a write failed."""
        ...


class ViewChange(NamedTuple):
    """A change of snapshots of views, or another write that is decided already.

    Attributes:
        subject: What is changed, for errors.
        write: Writes it, between two groups of appends; raises ``StoreError``.
    """

    subject: str
    write: Callable[[], Awaitable[None]]


class _Request(NamedTuple):
    """A waiting append or change of snapshots.

    Attributes:
        work: The append or the change.
        future: Result for the caller; cancelled with the caller.
    """

    work: Draft | ViewChange
    future: asyncio.Future[Answer]

    def answer(self, outcome: Answer | Exception) -> None:
        """Set the result, unless the caller was cancelled."""
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Writer:
    """Writes in its own task, which callers cannot cancel: appends, and snapshots.

    Args:
        recorder: Decides and writes groups; used by the writer alone.
        committed: Called with the end of the log after each group.
    """

    def __init__(self, recorder: Recorder, committed: Callable[[Head], None]) -> None:
        self._recorder = recorder
        self._committed = committed
        self._room = asyncio.Semaphore(ROOM)
        self._waiting: deque[_Request] = deque()
        self._taken: list[_Request] = []
        self._decided: asyncio.Future[None] | None = None
        self._awake = asyncio.Event()
        self._is_closing = False
        self._task = asyncio.create_task(self._run(), name="herdbook writer")
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

    async def write(self, work: Draft | ViewChange) -> Answer:
        """Write an append or another change; the latter has an empty result.

        A caller that is cancelled while its work is in the queue withdraws the work.
        Later, the cancellation is raised once the work is decided, so that the
        log then shows whether the events are recorded.

        Raises:
            StoreError: As ``EventStore.append`` and the methods of ``SnapshotStore``.
        """
        async with self._room:
            if self._is_closing:
                raise StoreClosedError("the log", "is closed", "Open it again")
            if failure := self.failure:
                raise failure
            request = _Request(work, asyncio.get_running_loop().create_future())
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
        while any(taken is request for taken in self._taken):
            # When the event loop ends, so does the task, without a decision.
            if self._decided is None or self._task.done():
                return
            ends: set[asyncio.Future[Any]] = {self._decided, self._task}
            with suppress(asyncio.CancelledError):  # the caller raises the first
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Write accepted requests, answer all callers, and end the task."""
        self._is_closing = True
        self._awake.set()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._waiting or not self._is_closing:
            await self._awake.wait()
            self._taken = self._take_group()
            self._decided = asyncio.get_running_loop().create_future()
            try:
                await self._write(self._taken)
            except Exception as error:  # noqa: BLE001 - the writer serves all others
                self._recorder.forget()
                _leave_undecided(self._taken, repr(error))
            self._taken = []
            self._decided.set_result(None)
            if not self._waiting and not self._is_closing:
                self._awake.clear()

    def _answer_remaining(self, _: asyncio.Task[None]) -> None:
        """Answer all waiting requests after the task has ended for any reason."""
        failure = self.failure or StoreClosedError("the log", "is closed")
        _leave_undecided(self._taken, failure.state)
        while self._waiting:
            self._waiting.popleft().answer(failure)

    def _take_group(self) -> list[_Request]:
        """Take requests from the queue, without those that were withdrawn."""
        taken = []
        for _ in range(min(len(self._waiting), LARGEST_GROUP)):
            request = self._waiting.popleft()
            if not request.future.done():
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
                outcome = await self._change(request.work)
            request.answer(outcome)

    async def _append(self, drafts: Sequence[Draft]) -> Sequence[Answer | Exception]:
        try:
            plan = await self._recorder.record(drafts)
        except InterruptedWriteError as error:
            return await self._resolve(drafts, error)
        except Exception as error:  # noqa: BLE001 - raised in the callers; the
            return [error] * len(drafts)  # task must continue for the others
        self._committed(plan.head)
        return plan.outcomes

    async def _change(self, change: ViewChange) -> Answer | StoreError:
        try:
            await change.write()
        except StoreError as error:
            return error
        return ()

    async def _resolve(
        self, drafts: Sequence[Draft], interrupted: InterruptedWriteError
    ) -> list[Answer | StoreError]:
        """Find out which events of an interrupted write are recorded."""
        self._recorder.forget()
        ids = [event_id for draft in drafts for event_id in draft.ids]
        try:
            recorded = await self._recorder.find(ids)
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
                StoreUnavailableError(work.subject, f"was not saved: {reason}")
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
