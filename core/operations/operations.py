"""Running operations: at most one per model, shared by all who follow it.

An operation is a task of the manager. Followers receive the newest progress, never a
backlog. When the last follower leaves, the operation is cancelled, as Ollama does when
a connection closes. Closing the manager interrupts all operations. The end of an
operation is recorded before it counts as ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from herdbook.core.errors import OperationEndedError
from herdbook.core.operations.pull_progress import PullProgress
from herdbook.events.lifecycle import LOADS, Activity

_RESUME: Final = "The server keeps the downloaded part. Pull again to resume"


def resume_remedy(activity: Activity) -> str:
    """Return the remedy of an operation that ended early; empty for a load."""
    return "" if activity in LOADS else _RESUME


class Ending(StrEnum):
    """Reason to end a running operation early."""

    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class RunningOperation(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of a running operation.

    Attributes:
        name: The model.
        node: Name of its node.
        activity: Pull, update, load or reload.
        actor: Who requested it.
        since: When it was requested, UTC.
        progress: Newest progress of a pull or an update; None before the first.
        waiting: Whether a pull waits because too many pulls are running here, or a load
            for another command on its model. The log has such a pull as started.
    """

    name: str
    activity: Activity
    actor: str
    since: datetime
    progress: PullProgress | None = None
    waiting: bool = False
    node: str = ""


class Operation:
    """An operation on one model.

    Attributes:
        name: The model.
        activity: Pull, update, load or reload. A load of a loaded model becomes a
            reload when it is recorded as one.
        actor: Who requested it.
        since: When it was requested, UTC.
        waiting: Whether it waits because too many pulls are running, or for another
            command on the model.
        progress: The newest progress; None before the first.
        ending: Why it ends early; None otherwise.
        ended_by: The actor who cancelled it; None if no actor did, as when the last
            follower left.
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
        """Start the task; it inherits actor and correlation id from the caller."""
        self._task = asyncio.create_task(
            work(self), name=f"herdbook {self.activity} {self.name}"
        )
        self._task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # retrieved here, raised in each follower
        self._changed.set()

    @property
    def running(self) -> bool:
        """Whether the task has not ended."""
        return self._task is not None and not self._task.done()

    @property
    def was_cancelled(self) -> bool:
        """Whether it has ended early, before it could succeed or fail."""
        return self._task is not None and self._task.cancelled()

    def snapshot(self) -> RunningOperation:
        """Return its current status."""
        return RunningOperation(
            name=self.name,
            activity=self.activity,
            actor=self.actor,
            since=self.since,
            progress=self.progress,
            waiting=self.waiting,
        )

    def publish(self, progress: PullProgress) -> None:
        """Send progress to the followers."""
        self.progress = progress
        self._changed.set()
        self._changed = asyncio.Event()

    def cancel(
        self, ending: Ending = Ending.CANCELLED, *, by: str | None = None
    ) -> None:
        """Cancel the task, which records its end before it ends.

        Args:
            ending: The reason; the first call decides.
            by: The actor to record; by default who started it.
        """
        if self._task is not None and self.running and self.ending is None:
            self.ending, self.ended_by = ending, by
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until the task has ended, with any result."""
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def follow(self) -> AsyncGenerator[PullProgress, None]:
        """Yield the newest progress until the operation ends.

        Raises:
            OperationEndedError: It was cancelled or interrupted.
            HerdbookError: It failed.
        """
        self._followers += 1
        try:
            seen = None
            while self.running:
                changed = self._changed
                if self.progress is not None and self.progress is not seen:
                    seen = self.progress
                    yield seen
                else:
                    await changed.wait()
            if self.progress is not None and self.progress is not seen:
                yield self.progress
        finally:
            self._followers -= 1
            if not self._followers and self.running:
                self.cancel()
                await self.ended()
        self.result()

    async def wait(self) -> None:
        """Follow the operation until it ends, and ignore its progress."""
        async for _ in self.follow():
            pass

    def result(self) -> None:
        """Raise the exception that it ended with, if any."""
        assert self._task is not None
        if self._task.cancelled():
            raise OperationEndedError(
                f"the {self.activity} of {self.name}",
                f"was {self.ending or Ending.CANCELLED}",
                resume_remedy(self.activity),
            )
        failure = self._task.exception()
        if failure is not None:
            raise failure


class Operations:
    """The operations of one manager, by model."""

    def __init__(self) -> None:
        self._running: dict[str, Operation] = {}

    def get(self, name: str) -> Operation | None:
        """Return the running operation on a model, if any."""
        operation = self._running.get(name)
        return operation if operation is not None and operation.running else None

    async def joinable(self, name: str) -> Operation | None:
        """Return the operation to join on a model; wait for one that is ending."""
        while (operation := self.get(name)) is not None and operation.ending:
            await operation.ended()
        return operation

    def all(self) -> list[Operation]:
        """Return the running operations."""
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
        """Start an operation on a model that has none running."""
        assert self.get(name) is None, "one operation per model"
        operation = Operation(name, activity, actor=actor, since=since)
        self._running[name] = operation
        operation.start(work)
        return operation

    async def close(self) -> None:
        """Interrupt all operations and wait until that is recorded.

        Operations that start meanwhile are interrupted as well.
        """
        while running := self.all():
            for operation in running:
                operation.cancel(Ending.INTERRUPTED)
            for operation in running:
                await operation.ended()
        self._running.clear()
