"""Following the log: what is there, then what is committed, each event once.

``Commits`` knows how far the log is known to reach. Whoever commits announces
it; ``watch`` announces what other processes commit. A subscription reads a page
whenever the log reaches beyond what it has seen, so it neither skips an event
nor holds one back, and a reader that is slow costs nobody anything.
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

QUICKEST_S = 0.005
"""Seconds between two looks for commits of other processes while there are some."""

SLOWEST_S = 0.05
"""Seconds between two such looks after a while without any."""


class Commits:
    """How far the log is known to reach, and whether it will grow at all.

    Attributes:
        failure: Why commits of others are not announced; None while they are.
    """

    def __init__(self) -> None:
        self.failure: StoreError | None = None
        self._position = 0
        self._ended = False
        self._moved = asyncio.Event()

    def announce(self, position: int) -> None:
        """Say that the log reaches to this position."""
        if position > self._position:
            self._position = position
            self._wake()

    def end(self) -> None:
        """Say that no more commits will be announced: the log is closed."""
        self._ended = True
        self._wake()

    def fail(self, failure: StoreError) -> None:
        """Say that commits of others are missed from now on, and why."""
        self.failure = failure
        self._wake()

    def recover(self) -> None:
        """Say that they are announced again: whoever waits from now on is served."""
        self.failure = None

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def beyond(self, position: int) -> bool:
        """Wait until the log reaches beyond a position; False when it has ended.

        Raises:
            StoreError: It can no longer be told how far the log reaches.
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
    """Give every event behind a position, as long as the log is open.

    Args:
        page: Reads the events that follow a position, some or all of them.
        commits: Says when there are some.
        after: Begin behind this position.

    Raises:
        CorruptLogError: The log ends before its head.
    """
    while await commits.beyond(after):
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
    """Announce what others commit, until cancelled or the store fails.

    A failure reaches everybody who follows the log; whoever follows it again starts
    this again.

    Args:
        data_version: Returns a number that changes with every commit.
        head: Returns the end of the log.
        commits: Where it is announced.
    """
    seen: int | None = None
    pause = QUICKEST_S
    try:
        while True:
            version = await data_version()
            if version == seen:
                pause = min(pause * 1.5, SLOWEST_S)
            else:
                seen, pause = version, QUICKEST_S
                commits.announce((await head()).position)
            await asyncio.sleep(pause)
    except StoreError as error:
        commits.fail(error)
    except Exception as error:  # noqa: BLE001 - followers must not wait for nothing
        commits.fail(StoreUnavailableError("the log", f"cannot be followed: {error!r}"))
