"""Subscriptions: read the log to its end, then follow it, each event once.

``Commits`` has the last known position of the log. A store announces its own
commits, and ``watch`` announces those of other processes. A subscription reads a
page whenever the log has grown, so it never skips or delays an event, and a slow
subscriber does not slow down others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from herdbook.events.errors import (
    CorruptLogError,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
)
from herdbook.events.recorded import RecordedEvent
from herdbook.events.store import Head

MIN_POLL_S = 0.005
"""Shortest interval between polls for commits of other processes, seconds."""

MAX_POLL_S = 0.05
"""Longest interval between polls, after some time without commits, seconds."""


class Commits:
    """The last known position of the log, and whether it can still grow.

    Attributes:
        failure: Why commits of other processes are not announced; None if they are.
    """

    def __init__(self) -> None:
        self.failure: StoreError | None = None
        self._position = 0
        self._ended = False
        self._moved = asyncio.Event()

    def announce(self, position: int) -> None:
        """Announce that the log has reached a position."""
        if position > self._position:
            self._position = position
            self._wake()

    def end(self) -> None:
        """End all subscriptions, since the log is closed."""
        self._ended = True
        self._wake()

    def fail(self, failure: StoreError) -> None:
        """Fail all subscriptions, since commits of other processes are missed."""
        self.failure = failure
        self._wake()

    def recover(self) -> None:
        """Clear the failure: commits of other processes are announced again."""
        self.failure = None

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def wait_beyond(self, position: int) -> bool:
        """Wait until the log has events after a position; False if it is closed.

        Raises:
            StoreError: Commits of other processes cannot be followed.
        """
        while not (self._ended or self.failure) and self._position <= position:
            await self._moved.wait()
        if self.failure:
            raise self.failure
        return not self._ended


async def follow(
    page: Callable[[int], Awaitable[Sequence[RecordedEvent]]],
    commits: Commits,
    after: int,
) -> AsyncGenerator[RecordedEvent, None]:
    """Yield every event after a position, while the log is open.

    Args:
        page: Reads some or all of the events after a position.
        commits: Announces new events.
        after: Start after this position.

    Raises:
        CorruptLogError: The log ends before its head.
    """
    while await commits.wait_beyond(after):
        try:
            events = await page(after)
        except StoreClosedError:
            return
        if not events:
            raise CorruptLogError(
                "the log", f"ends at #{after}, before its head", "Run: herdbook verify"
            )
        for event in events:
            yield event
        after = events[-1].position


async def watch(
    data_version: Callable[[], Awaitable[int]],
    head: Callable[[], Awaitable[Head]],
    commits: Commits,
) -> None:
    """Announce commits of other processes, until cancelled or the store fails.

    A failure ends all subscriptions; the next subscription starts the watch again.

    Args:
        data_version: Returns a number that changes with every commit.
        head: Returns the end of the log.
        commits: Receives the announcements.
    """
    seen: int | None = None
    pause = MIN_POLL_S
    try:
        while True:
            version = await data_version()
            if version == seen:
                pause = min(pause * 1.5, MAX_POLL_S)
            else:
                seen, pause = version, MIN_POLL_S
                commits.announce((await head()).position)
            await asyncio.sleep(pause)
    except StoreError as error:
        commits.fail(error)
    except Exception as error:  # noqa: BLE001 - else subscribers never wake
        commits.fail(StoreUnavailableError("the log", f"cannot be followed: {error!r}"))
