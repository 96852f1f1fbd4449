"""Copies between stores: unchanged, resumed, refused for a different history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from herdbook.core.clock import SystemClock
from herdbook.core.log.location import LogLocation
from herdbook.core.log.storage import Storage
from herdbook.core.transfer import copy as module
from herdbook.core.transfer.copy import copy
from herdbook.core.transfer.import_events import ForkError
from herdbook.events.errors import CallerError, InterruptedWriteError
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.store import PostgresEventStore
from herdbook.events.recorded import StoredEvent
from herdbook.events.store import ANY, EventStore, Head
from herdbook.events.testing.base import assert_sound, event

CLOCK = SystemClock()


@asynccontextmanager
async def opened(log: LogLocation) -> AsyncIterator[EventStore]:
    async with Storage.open(log, CLOCK) as storage:
        yield storage.store


async def write(log: LogLocation, count: int, note: str = "") -> None:
    async with opened(log) as store:
        for number in range(count):
            await store.append(f"model/n/{number % 7}", [event(note)], ANY)


async def events_of(log: LogLocation) -> list[StoredEvent]:
    async with opened(log) as store:
        await assert_sound(store)
        return [event async for event in store.read_stored()]


async def test_log_moves_to_a_database_and_back(
    tmp_path: Path, address: PostgresAddress
) -> None:
    source, back = tmp_path / "herd.db", tmp_path / "back.db"
    await write(source, 1_203, 'ünïcödé \U0001f600 \\ " \u2028')

    there = await copy(source, address, CLOCK)
    again = await copy(address, back, CLOCK)

    assert (there.added, there.present, there.position) == (1_203, 0, 1_203)
    assert again.hash == there.hash
    events = await events_of(source)
    assert await events_of(address) == events
    assert await events_of(back) == events


async def test_copy_continues_and_adds_newer_events(
    tmp_path: Path, address: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "herd.db"
    await write(source, 30)
    monkeypatch.setattr(module, "LARGEST_BATCH", 10)

    def stop(done: int, total: int) -> None:
        assert total == 30
        if done == 20:
            raise KeyboardInterrupt  # as a kill between two commits

    with pytest.raises(KeyboardInterrupt):
        await copy(source, address, CLOCK, progress=stop)
    assert (await copy(source, address, CLOCK)).present == 20
    await write(source, 5)
    last = await copy(source, address, CLOCK)
    unchanged = await copy(source, address, CLOCK)

    assert (last.added, last.present) == (5, 30)
    assert (unchanged.added, unchanged.present) == (0, 35)
    assert await events_of(address) == await events_of(source)


@pytest.mark.parametrize("common", [0, 1, 9])
async def test_different_history_is_refused_with_its_position(
    common: int, tmp_path: Path, address: PostgresAddress
) -> None:
    source = tmp_path / "herd.db"
    await write(source, common)
    if common:
        await copy(source, address, CLOCK)
    await write(source, 6, "here")
    await write(address, 4, "there")
    before = await events_of(address)

    with pytest.raises(ForkError, match="different history") as caught:
        await copy(source, address, CLOCK)

    assert caught.value.position == common + 1
    assert await events_of(address) == before


async def test_target_that_is_ahead_is_unchanged(
    tmp_path: Path, address: PostgresAddress
) -> None:
    source = tmp_path / "herd.db"
    await write(source, 3)
    await copy(source, address, CLOCK)
    await write(address, 2)

    done = await copy(source, address, CLOCK)

    assert (done.added, done.position) == (0, 5)


async def test_changed_event_is_not_copied(
    tmp_path: Path, address: PostgresAddress
) -> None:
    import sqlite3  # noqa: PLC0415 - to change a log against its rules

    source = tmp_path / "herd.db"
    await write(source, 5)
    connection = sqlite3.connect(source)
    connection.execute("DROP TRIGGER events_are_not_changed")
    connection.execute("UPDATE events SET actor = 'cli:mallory' WHERE position = 3")
    connection.commit()
    connection.close()

    with pytest.raises(CallerError, match="#3 was changed"):
        await copy(source, address, CLOCK)

    assert await events_of(address) == []


async def test_log_is_not_copied_onto_itself(
    tmp_path: Path, address: PostgresAddress
) -> None:
    source = tmp_path / "herd.db"
    await write(source, 1)
    (tmp_path / "folder").mkdir()

    for log, same in (
        (source, tmp_path / "folder" / ".." / "herd.db"),
        (address, address),
    ):
        with pytest.raises(CallerError, match="is the log itself"):
            await copy(log, same, CLOCK)


@pytest.mark.parametrize("is_recorded", [True, False])
async def test_lost_connection_is_resolved_by_the_head(
    is_recorded: bool,
    tmp_path: Path,
    address: PostgresAddress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = tmp_path / "herd.db"
    await write(source, 25)
    monkeypatch.setattr(module, "LARGEST_BATCH", 10)
    whole = PostgresEventStore.append_stored
    lost: list[int] = []

    async def append_stored(
        store: PostgresEventStore, events: Sequence[StoredEvent], *, after: Head
    ) -> None:
        first_time = events[0].position not in lost
        lost.append(events[0].position)
        if is_recorded or not first_time:
            await whole(store, events, after=after)
        if first_time:
            raise InterruptedWriteError("the log", "lost the connection")

    monkeypatch.setattr(PostgresEventStore, "append_stored", append_stored)
    done = await copy(source, address, CLOCK)

    assert done.added == 25
    assert len(lost) == (3 if is_recorded else 6)
    assert await events_of(address) == await events_of(source)


async def test_log_in_use_is_copied_up_to_the_start(
    tmp_path: Path, address: PostgresAddress
) -> None:
    source = tmp_path / "herd.db"
    await write(source, 200)

    async def use(stop: Callable[[], bool]) -> None:
        async with opened(source) as store:
            while not stop():
                await store.append("model/n/busy", [event()], ANY)

    done: list[int] = []
    using = asyncio.create_task(use(lambda: bool(done)))
    copied = await copy(source, address, CLOCK)
    done.append(copied.position)
    await using

    events = await events_of(address)
    assert len(events) == copied.position
    assert events == (await events_of(source))[: len(events)]
