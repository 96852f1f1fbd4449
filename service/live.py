"""The log as it grows, for many readers at once, each event once and in order.

One subscription follows the log, whoever has appended. A reader first reads pages of
the log itself, until it has all that the subscription has told; only then does it
get what comes, so nothing is missed and nothing told twice. What waits for a reader
is bounded: one that falls behind is told so and sent away, and goes on later from
the last position that it has seen.
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
    HistoryFilter,
    ModelManager,
    RecordedEvent,
    RunningOperation,
)
from herdbook.core.concurrency.supervisor import BackgroundTask, TaskStatus, all_running

PROGRESS_EVERY_S: Final = 0.5
"""Seconds between two messages about the progress of one model."""

PAGE: Final = 500
"""Events that a reader reads from the log at once while it catches up."""


class Reason(StrEnum):
    """Why a stream ends."""

    TOO_SLOW = "too_slow"
    STOPPING = "stopping"
    LOG_FAILED = "log_failed"


class EndOfStream(msgspec.Struct, frozen=True):
    """The last message of a stream."""

    reason: Reason


class Heartbeat(msgspec.Struct, frozen=True):
    """Nothing has happened for a while; the stream is alive.

    Attributes:
        position: How far the log was read for this reader.
    """

    position: int


Message = RecordedEvent | RunningOperation | Heartbeat | EndOfStream


class StreamFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events a reader wants; all of them by default.

    Attributes:
        stream_prefix: What a stream's name begins with.
        chosen: The rest of the filter.
    """

    stream_prefix: str = ""
    chosen: HistoryFilter = HistoryFilter()

    def matches(self, event: RecordedEvent) -> bool:
        """Return whether an event is wanted."""
        return event.stream.startswith(self.stream_prefix) and self.chosen.matches(
            event
        )


class _Reader:
    """What waits for one reader: at most so many messages."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[RecordedEvent | RunningOperation] = deque()
        self._woken = asyncio.Event()
        self.ended: Reason | None = None

    def put(self, message: RecordedEvent | RunningOperation) -> None:
        """Let a message wait; one too many ends the reader."""
        if self.ended is not None:
            return
        if len(self._waiting) >= self._most:
            self.end(Reason.TOO_SLOW)
            return
        self._waiting.append(message)
        self._woken.set()

    def end(self, reason: Reason) -> None:
        """Send it away; what waits for it is forgotten, the log has it."""
        self.ended = reason
        self._waiting.clear()
        self._woken.set()

    async def next(self, within_s: float) -> RecordedEvent | RunningOperation | None:
        """Return the next message; None after that time without any, or at the end."""
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
    """Follows the log for all readers.

    Attributes:
        position: The last event that the readers were told.
        readers: How many there are.
    """

    def __init__(
        self,
        manager: ModelManager,
        clock: Clock,
        *,
        reader_events: int,
        heartbeat_s: float,
    ) -> None:
        self._manager = manager
        self._clock = clock
        self._reader_events = reader_events
        self._heartbeat_s = heartbeat_s
        self._readers: set[_Reader] = set()
        self._ended: Reason | None = None
        self._following = BackgroundTask("live_stream", self._follow, clock=clock)
        self._progress = BackgroundTask("progress", self._tell_progress, clock=clock)
        self.position = 0

    @property
    def readers(self) -> int:
        """How many readers there are."""
        return len(self._readers)

    @property
    def failed(self) -> bool:
        """Whether it does not follow now, since the log could not be read."""
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
        """Send all readers away, with the reason; none is accepted any more.

        After ``LOG_FAILED`` they are accepted again once the log is followed again.
        """
        if self._ended is not Reason.STOPPING:
            self._ended = reason
        for reader in self._readers:
            reader.end(reason)

    async def _follow(self, task: BackgroundTask) -> None:
        """Follow the log from where the readers are."""
        try:
            if (await self._manager.head()).position <= self.position:
                self._accept(task)
            async with aclosing(self._manager.events(after=self.position)) as events:
                async for event in events:
                    self._accept(task)
                    self.position = event.position
                    self._tell(event)
                    # A whole page comes at once: let readers take what waits.
                    await asyncio.sleep(0)
            self.close(Reason.STOPPING)
        except Exception:
            self.close(Reason.LOG_FAILED)
            raise

    def _accept(self, task: BackgroundTask) -> None:
        """Accept readers again: the log can be followed."""
        if self._ended is Reason.LOG_FAILED:
            self._ended = None
        task.worked()

    async def _tell_progress(self, task: BackgroundTask) -> None:
        """Tell how far work is, as often as somebody can see it."""
        told: dict[str, RunningOperation] = {}
        while True:
            await self._clock.sleep(PROGRESS_EVERY_S)
            now = {one.name: one for one in self._manager.under_way()}
            for name, one in now.items():
                if one != told.get(name):
                    self._tell(one)
            told = now
            task.worked()

    def _tell(self, message: RecordedEvent | RunningOperation) -> None:
        for reader in self._readers:
            reader.put(message)

    async def read(
        self, after: int, wanted: StreamFilter
    ) -> AsyncGenerator[Message, None]:
        """Yield what the log has behind a position, then what comes.

        It ends with a goodbye. Between two messages nothing is held: the one who
        reads sets the pace, within bounds.

        Args:
            after: The last position that the reader has seen.
            wanted: Which events it wants; progress is told to all.
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
                    yield Heartbeat(position)  # a long way without anything wanted
        # Nothing waits between the comparison above and here: nothing is missed.
        async with aclosing(self._come(position, wanted)) as messages:
            async for message in messages:
                yield message

    async def _come(
        self, position: int, wanted: StreamFilter
    ) -> AsyncGenerator[Message, None]:
        """Yield what comes behind a position, to its end."""
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
