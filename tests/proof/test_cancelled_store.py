"""Every coroutine of the SQLite store, cancelled at every turn of the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from proof.oracle import assert_sound, herdbook_tasks
from proof.stepping import TIMEOUT_S, cancelled_at_every_turn, run

from herdbook.events.shared.writer import ROOM
from herdbook.events.snapshots import StoredView
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY
from herdbook.events.testing.base import event, log_of

STREAM = "model/n/m"
BACKGROUND = {"herdbook writer", "herdbook watch", "herdbook kept head"}

Do = Callable[[SQLiteEventStore], Coroutine[Any, Any, object]]


async def append(store: SQLiteEventStore) -> None:
    await store.append(STREAM, [event("a"), event("b")], ANY)


async def append_many(store: SQLiteEventStore) -> None:
    await asyncio.gather(*(append(store) for _ in range(20)))


async def read_all(store: SQLiteEventStore) -> None:
    async for _ in store.read_all():
        pass


async def read_stream(store: SQLiteEventStore) -> None:
    async for _ in store.read_stream(STREAM):
        pass


async def read_stored(store: SQLiteEventStore) -> None:
    async for _ in store.read_stored():
        pass


async def follow(store: SQLiteEventStore) -> None:
    async with aclosing(store.subscribe(0)) as events:
        await anext(events)


async def wait_for_event(store: SQLiteEventStore) -> None:
    """Wait for an event that has not been recorded yet."""
    head = await store.head()
    async with aclosing(store.subscribe(head.position)) as events:
        hearing = asyncio.ensure_future(anext(events))
        try:
            await append(store)
            await hearing
        finally:
            hearing.cancel()
            await asyncio.wait({hearing})


async def save(store: SQLiteEventStore) -> None:
    view = StoredView(name="v", version=1, position=1, hash="a" * 64, data=b"x")
    await store.save_view(view)


READS: dict[str, Do] = {
    "read_all": read_all,
    "read_stream": read_stream,
    "read_stored": read_stored,
    "subscribe": follow,
    "head": SQLiteEventStore.head,
    "stream_version": lambda store: store.stream_version(STREAM),
    "load_view": lambda store: store.load_view("v"),
    "save_view": save,
    "check_file": SQLiteEventStore.check_file,
}
WRITES: dict[str, Do] = {
    "append": append,
    "append_many": append_many,
    "wait_for_event": wait_for_event,
}


async def sweep(
    do: Do, path: Path, again: int, check: Callable[..., Awaitable[None]]
) -> None:
    """Cancel at every turn; the store then works as before."""
    async with await SQLiteEventStore.open(path) as store:
        await append(store)
        before = await log_of(store)
        async for task in cancelled_at_every_turn(lambda: do(store), again=again):
            if not task.cancelled():
                task.result()
            left = {t for t in herdbook_tasks() if t.get_name() not in BACKGROUND}
            assert left == set(), left
            log = await log_of(store)
            await check(before, log)
            (mine,) = await store.append(STREAM, [event("mine")], len(log))
            before = [*log, mine]
        assert await log_of(store) == before
        assert store._writer._room._value == ROOM
        await assert_sound(store)


async def nothing_new(before: list[object], log: list[object]) -> None:
    assert log == before


async def complete_appends_only(before: list[object], log: list[object]) -> None:
    """Assert that new events are complete appends, from before the cancellation."""
    assert log[: len(before)] == before
    assert (len(log) - len(before)) % 2 == 0


@pytest.mark.parametrize("name", READS)
def test_cancelled_read_changes_nothing(name: str, tmp_path: Path) -> None:
    run(sweep(READS[name], tmp_path / "herd.db", 0, nothing_new))


@pytest.mark.parametrize("again", [0, 1000])
@pytest.mark.parametrize("name", WRITES)
def test_cancelled_append_is_complete_or_absent(
    name: str, again: int, tmp_path: Path
) -> None:
    run(sweep(WRITES[name], tmp_path / "herd.db", again, complete_appends_only))


async def open_and_close(path: Path) -> None:
    store = await SQLiteEventStore.open(path)
    try:
        await append(store)
    finally:
        await store.close()


async def sweep_open_and_close(path: Path, again: int) -> None:
    """Cancel opening and closing at every turn: no task, thread or lock is left."""
    threads = set(threading.enumerate())
    async for task in cancelled_at_every_turn(
        lambda: open_and_close(path), again=again
    ):
        if not task.cancelled():
            task.result()
        assert herdbook_tasks() == set()
    for thread in set(threading.enumerate()) - threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    async with await SQLiteEventStore.open(path) as store:
        assert len(await log_of(store)) % 2 == 0
        await assert_sound(store)


@pytest.mark.parametrize("again", [0, 1000])
def test_cancelled_open_and_close_of_a_store_leave_nothing_behind(
    again: int, tmp_path: Path
) -> None:
    run(sweep_open_and_close(tmp_path / "herd.db", again))
