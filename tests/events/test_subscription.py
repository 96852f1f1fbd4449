"""Following a log: announcements and failures."""

from __future__ import annotations

import asyncio

import pytest

from herdbook.events.errors import StoreClosedError, StoreUnavailableError
from herdbook.events.recorded import RecordedEvent
from herdbook.events.store import Head
from herdbook.events.subscription import Commits, follow, watch

LOST = StoreUnavailableError("herd.db", "is gone")


async def test_commits_are_announced_once_and_never_backwards() -> None:
    commits = Commits()
    commits.announce(3)
    commits.announce(2)
    assert await commits.wait_beyond(2)
    waiting = asyncio.create_task(commits.wait_beyond(3))
    commits.announce(3)
    await asyncio.sleep(0)
    assert not waiting.done()
    commits.announce(4)
    assert await waiting


async def test_all_waiting_subscribers_get_the_end() -> None:
    commits = Commits()
    waiting = [asyncio.create_task(commits.wait_beyond(n)) for n in range(3)]
    await asyncio.sleep(0)
    commits.end()
    assert await asyncio.gather(*waiting) == [False] * 3


async def test_others_are_watched_until_the_store_fails() -> None:
    commits = Commits()
    versions = iter([1, 1, 2])

    async def data_version() -> int:
        for version in versions:
            return version
        raise LOST

    async def head() -> Head:
        return Head(7)

    await watch(data_version, head, commits)
    with pytest.raises(StoreUnavailableError):
        await commits.wait_beyond(0)


async def test_subscription_ends_if_the_store_closes_while_it_reads() -> None:
    commits = Commits()
    commits.announce(1)

    async def page(_: int) -> list[RecordedEvent]:
        raise StoreClosedError("herd.db", "is closed")

    assert [event async for event in follow(page, commits, 0)] == []


async def test_failure_of_any_kind_reaches_who_follows_until_it_is_over() -> None:
    commits = Commits()
    waiting = asyncio.create_task(commits.wait_beyond(0))

    async def data_version() -> int:
        raise ZeroDivisionError

    async def head() -> Head:
        return Head(7)

    await watch(data_version, head, commits)
    with pytest.raises(StoreUnavailableError, match="ZeroDivisionError"):
        await waiting

    commits.recover()
    commits.announce(1)
    assert await commits.wait_beyond(0)
