"""The live event stream: one subscription to the log, shared by many readers.

Each reader gets each event once and in order. It first reads pages of the log up to the
position of the subscription, and only then gets new events, so that it misses none and
gets none twice. The queue of a reader is limited: a reader that is too slow is
disconnected with a reason, and can resume from the last position that it has seen.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from enum import StrEnum
from typing import Final

import msgspec

from herdbook.core import (
    Clock,
    Fleet,
    HistoryFilter,
    ModelManager,
    RecordedEvent,
    RunningOperation,
)
from herdbook.core.concurrency.supervisor import BackgroundTask, TaskStatus, all_running

PROGRESS_EVERY_S: Final = 0.5
"""Minimum time between two progress messages of one model, in seconds."""

PAGE: Final = 500
"""Events that a reader reads from the log at once while it catches up."""


class Reason(StrEnum):
    """Why a stream ends."""

    TOO_SLOW = "too_slow"
    STOPPING = "stopping"
    LOG_FAILED = "log_failed"
    REVOKED = "revoked"


class EndOfStream(msgspec.Struct, frozen=True):
    """The last message of a stream."""

    reason: Reason


class Heartbeat(msgspec.Struct, frozen=True):
    """A sign of life when there was no event for a while.

    Attributes:
        position: The position up to which the log was read for this reader.
    """

    position: int


Message = RecordedEvent | RunningOperation | Heartbeat | EndOfStream


class StreamFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selects events; all of them by default.

    Attributes:
        stream_prefix: The start of the stream names.
        chosen: The other criteria.
    """

    stream_prefix: str = ""
    chosen: HistoryFilter = HistoryFilter()

    def matches(self, event: RecordedEvent) -> bool:
        """Return whether the filter selects an event."""
        return event.stream.startswith(self.stream_prefix) and self.chosen.matches(
            event
        )


class _Reader:
    """The queue of one reader, with a maximum length."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[RecordedEvent | RunningOperation] = deque()
        self._woken = asyncio.Event()
        self.ended: Reason | None = None

    def put(self, message: RecordedEvent | RunningOperation) -> None:
        """Queue a message; if the queue is full, end the reader instead."""
        if self.ended is not None:
            return
        if len(self._waiting) >= self._most:
            self.end(Reason.TOO_SLOW)
            return
        self._waiting.append(message)
        self._woken.set()

    def end(self, reason: Reason) -> None:
        """End the reader and drop its queue; the log still has the events."""
        self.ended = reason
        self._waiting.clear()
        self._woken.set()

    async def next(self, within_s: float) -> RecordedEvent | RunningOperation | None:
        """Return the next message, or None after a timeout or at the end."""
        while not self._waiting:
            if self.ended is not None:
                return None
            self._woken.clear()
            try:
                async with asyncio.timeout(within_s):
                    await self._woken.wait()
            except TimeoutError:
                return None
        return self._waiting.popleft()


class Live:
    """Follows the log on behalf of all readers.

    Attributes:
        position: Position of the last event that was passed to the readers.
        readers: Number of readers.
    """

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        *,
        reader_events: int,
        heartbeat_s: float,
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._reader_events = reader_events
        self._heartbeat_s = heartbeat_s
        self._readers: set[_Reader] = set()
        self._ended: Reason | None = None
        self._following = BackgroundTask("live_stream", self._follow, clock=clock)
        self._progress = BackgroundTask("progress", self._publish_progress, clock=clock)
        self.position = 0

    @property
    def _manager(self) -> ModelManager:
        """A manager to read the log with, whatever nodes there are."""
        return self._fleet.home

    @property
    def readers(self) -> int:
        """Number of connected readers."""
        return len(self._readers)

    @property
    def failed(self) -> bool:
        """Whether the log cannot be read at present."""
        return self._ended is Reason.LOG_FAILED

    def background_tasks(self) -> list[TaskStatus]:
        """Return the status of each background task."""
        return [self._following.status, self._progress.status]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the log while the block runs."""
        self.position = (await self._manager.now()).position
        async with all_running(self._following, self._progress):
            try:
                yield
            finally:
                self.close(Reason.STOPPING)

    def close(self, reason: Reason) -> None:
        """End all readers with a reason, and accept no more.

        After ``LOG_FAILED``, readers are accepted again once the log can be read.
        """
        if self._ended is not Reason.STOPPING:
            self._ended = reason
        for reader in self._readers:
            reader.end(reason)

    async def _follow(self, task: BackgroundTask) -> None:
        """Follow the log from the current position of the readers."""
        try:
            if (await self._manager.head()).position <= self.position:
                self._accept(task)
            async with aclosing(self._manager.events(after=self.position)) as events:
                async for event in events:
                    self._accept(task)
                    self.position = event.position
                    self._publish(event)
                    # A whole page arrives at once: let the readers empty their queues.
                    await asyncio.sleep(0)
            self.close(Reason.STOPPING)
        except Exception:
            self.close(Reason.LOG_FAILED)
            raise

    def _accept(self, task: BackgroundTask) -> None:
        """Accept readers again after a failure: the log can be read."""
        if self._ended is Reason.LOG_FAILED:
            self._ended = None
        task.succeeded()

    async def _publish_progress(self, task: BackgroundTask) -> None:
        """Publish the progress of running operations when it has changed."""
        published: dict[tuple[str, str], RunningOperation] = {}
        while True:
            await self._clock.sleep(PROGRESS_EVERY_S)
            managers = self._fleet.managers()
            running = [one for each in managers for one in each.under_way()]
            now = {(one.node, one.name): one for one in running}
            for key, one in now.items():
                if one != published.get(key):
                    self._publish(one)
            published = now
            task.succeeded()

    def _publish(self, message: RecordedEvent | RunningOperation) -> None:
        for reader in self._readers:
            reader.put(message)

    async def read(
        self, after: int, wanted: StreamFilter
    ) -> AsyncGenerator[Message, None]:
        """Yield the events of the log after a position, then new ones.

        The last message is an ``EndOfStream``. No lock is held between two messages,
        so the reader sets the pace within its limits.

        Args:
            after: The last position that the reader has seen.
            wanted: Selects the events; progress is sent in any case.
        """
        position = after
        while self._ended is None and self.position > position:
            goal = self.position
            while position < goal:
                page = await self._manager.read_log(
                    after=position,
                    before=goal + 1,
                    limit=PAGE,
                    stream_prefix=wanted.stream_prefix,
                    chosen=wanted.chosen,
                )
                for event in page.events:
                    yield event
                position = goal if page.next is None else page.next
                if not page.events and position < goal:
                    yield Heartbeat(position)  # many events that are not selected
        # There is no await between the comparison above and the registration of the
        # reader, so no event is missed.
        async with aclosing(self._new_messages(position, wanted)) as messages:
            async for message in messages:
                yield message

    async def _new_messages(
        self, position: int, wanted: StreamFilter
    ) -> AsyncGenerator[Message, None]:
        """Yield new messages until the reader ends."""
        reader = _Reader(self._reader_events)
        if self._ended is not None:
            reader.end(self._ended)
        self._readers.add(reader)
        try:
            while reader.ended is None:
                message = await reader.next(self._heartbeat_s)
                if isinstance(message, RunningOperation):
                    yield message
                elif message is None:
                    if reader.ended is None:
                        yield Heartbeat(max(position, self.position))
                elif message.position > position and wanted.matches(message):
                    yield message
            yield EndOfStream(reader.ended)
        finally:
            self._readers.discard(reader)
