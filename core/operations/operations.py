"""Long work, one operation per model: followed by many, ended exactly once.

An operation is a task that its manager owns. Whoever follows it gets the newest
progress, never a backlog; when the last follower leaves, the work is cancelled,
as the server itself does when a connection closes. Closing the manager interrupts
what is under way. How an operation ends is recorded before it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from herdbook.core.errors import OperationEndedError
from herdbook.core.operations.pull_progress import PullProgress
from herdbook.events.lifecycle import Activity

T = TypeVar("T")


class Ending(StrEnum):
    """Why a running operation is to end early."""

    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class RunningOperation(msgspec.Struct, frozen=True, kw_only=True):
    """What can be told of an operation at one moment.

    Attributes:
        name: The model.
        activity: Pull, update or load.
        actor: Who asked for it.
        since: When it was asked for, UTC.
        progress: The newest progress of a pull or an update, if there is any yet.
        waiting: Whether it is a pull or an update that waits for its turn: the log
            knows of it when its turn comes.
    """

    name: str
    activity: Activity
    actor: str
    since: datetime
    progress: PullProgress | None = None
    waiting: bool = False


class Operation:
    """Work under way on one model.

    Attributes:
        name: The model.
        activity: Pull, update or load.
        actor: Who asked for it.
        since: When it was asked for, UTC.
        waiting: Whether it waits for its turn.
        progress: The newest progress, if there is any yet.
        ending: Why it was told to end early, if it was.
        ended_by: Who told it to; None where nobody did, as when its last follower
            left.
    """

    def __init__(
        self, name: str, activity: Activity, *, actor: str, since: datetime
    ) -> None:
        self.name = name
        self.activity = activity
        self.actor = actor
        self.since = since
        self.waiting = False
        self.progress: PullProgress | None = None
        self.ending: Ending | None = None
        self.ended_by: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._followers = 0

    def start(self, work: Callable[[Operation], Coroutine[Any, Any, None]]) -> None:
        """Begin; the task keeps the actor and the operation's id of its starter."""
        self._task = asyncio.create_task(
            work(self), name=f"herdbook {self.activity} {self.name}"
        )
        self._task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # seen here, told to each follower
        self._changed.set()

    @property
    def running(self) -> bool:
        """Whether it still goes on."""
        return self._task is not None and not self._task.done()

    def snapshot(self) -> RunningOperation:
        """Return what can be told of it now."""
        return RunningOperation(
            name=self.name,
            activity=self.activity,
            actor=self.actor,
            since=self.since,
            progress=self.progress,
            waiting=self.waiting,
        )

    def publish(self, progress: PullProgress) -> None:
        """Tell the followers how far it is."""
        self.progress = progress
        self._changed.set()
        self._changed = asyncio.Event()

    def cancel(
        self, ending: Ending = Ending.CANCELLED, *, by: str | None = None
    ) -> None:
        """Tell it to end; it records that before it is over.

        Args:
            ending: Why; the first who tells decides.
            by: Who asked for it, and is recorded; by default who started it.
        """
        if self._task is not None and self.running and self.ending is None:
            self.ending, self.ended_by = ending, by
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until it is over, however it ends."""
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def follow(self) -> AsyncGenerator[PullProgress, None]:
        """Yield the newest progress until it is over.

        Raises:
            HerdbookError: As it ended; ``OperationEndedError`` if it was told to.
        """
        self._followers += 1
        try:
            told = None
            while self.running:
                changed = self._changed
                if self.progress is not None and self.progress is not told:
                    told = self.progress
                    yield told
                else:
                    await changed.wait()
            if self.progress is not None and self.progress is not told:
                yield self.progress
        finally:
            self._followers -= 1
            if not self._followers and self.running:
                self.cancel()
                await self.ended()
        self.result()

    async def wait(self) -> None:
        """Wait until it is over, as ``follow`` does."""
        async for _ in self.follow():
            pass

    def result(self) -> None:
        """Raise what it ended with, if that was no success."""
        assert self._task is not None
        if self._task.cancelled():
            raise OperationEndedError(
                self.name,
                f"{self.activity} was {self.ending or Ending.CANCELLED}",
                "The server keeps what it has; start it again to go on from there"
                if self.activity is not Activity.LOAD
                else "",
            )
        failure = self._task.exception()
        if failure is not None:
            raise failure


class Operations:
    """The operations of one manager; it owns their tasks."""

    def __init__(self) -> None:
        self._running: dict[str, Operation] = {}

    def get(self, name: str) -> Operation | None:
        """Return the operation under way on a model, if there is one."""
        operation = self._running.get(name)
        return operation if operation is not None and operation.running else None

    async def joinable(self, name: str) -> Operation | None:
        """Return the operation to join on a model; one told to end is waited for."""
        while (operation := self.get(name)) is not None and operation.ending:
            await operation.ended()
        return operation

    def all(self) -> list[Operation]:
        """Return the operations under way."""
        return [operation for operation in self._running.values() if operation.running]

    def start(
        self,
        name: str,
        activity: Activity,
        work: Callable[[Operation], Coroutine[Any, Any, None]],
        *,
        actor: str,
        since: datetime,
    ) -> Operation:
        """Begin an operation on a model that has none under way."""
        assert self.get(name) is None, "one operation per model"
        operation = Operation(name, activity, actor=actor, since=since)
        self._running[name] = operation
        operation.start(work)
        return operation

    async def close(self) -> None:
        """Interrupt what is under way, and wait until that is recorded.

        What is begun meanwhile is interrupted as well.
        """
        while running := self.all():
            for operation in running:
                operation.cancel(Ending.INTERRUPTED)
            for operation in running:
                await operation.ended()
        self._running.clear()
