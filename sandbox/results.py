"""Wait for what happens once, and for lines that come one by one.

Invariant: the world never waits; only the tasks that serve connections do. So the world
depends on its clock alone, not on its readers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from herdbook.sandbox.request_bodies import Json

T = TypeVar("T")


class PendingResult(Generic[T]):
    """The result of work in progress; the first value that is set counts."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()
        self._values: list[T] = []
        self._error: Exception | None = None

    @property
    def settled(self) -> bool:
        """Whether it is known."""
        return self._ended.is_set()

    def settle(self, value: T) -> None:
        """Set the result."""
        self._values.append(value)
        self._ended.set()

    def fail(self, error: Exception) -> None:
        """Set the error instead of a result."""
        if not self.settled:
            self._error = error
            self._ended.set()

    async def wait(self) -> T:
        """Wait for the result.

        Raises:
            Exception: what it failed with.
        """
        await self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._values[0]


class Outbox:
    """A queue of lines for a reader.

    The writer can be called when the queue is empty, so that a slow reader gets fewer
    lines, not outdated ones.
    """

    def __init__(self) -> None:
        self._lines: deque[Json] = deque()
        self._news = asyncio.Event()
        self._closed = False
        self._when_read: Callable[[], None] | None = None

    def put(self, line: Json) -> None:
        """Write a line."""
        self._lines.append(line)
        self._news.set()

    def close(self) -> None:
        """Write no more."""
        self._closed = True
        self.forget_reader()
        self._news.set()

    def when_read(self, call: Callable[[], None]) -> None:
        """Call once when the last line has been taken."""
        self._when_read = call

    def forget_reader(self) -> None:
        """Cancel the call of ``when_read``."""
        self._when_read = None

    async def read(self) -> AsyncIterator[Json]:
        """Take the lines until there will be no more."""
        while True:
            while self._lines:
                yield self._take()
            if self._closed:
                return
            self._news.clear()
            await self._news.wait()

    def _take(self) -> Json:
        line = self._lines.popleft()
        if not self._lines and self._when_read is not None:
            call, self._when_read = self._when_read, None
            call()
        return line
