"""Snapshots of the views are a cache: used if they fit, and never trusted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs
from support.manager_fixture import serve_sandbox

from herdbook.core import Cause, ManagerSettings
from herdbook.core.views import Views, restore, save
from herdbook.events.facts import ModelDiscovered, ModelUsed
from herdbook.events.memory import MemoryEventStore
from herdbook.events.recorded import NewEvent
from herdbook.events.snapshots import StoredView
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.streams import model_stream

Change = Callable[[StoredView], StoredView]
NAMES = "status", "recommendation", "statistics"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Snapshots:
    """Snapshots that something has happened to."""

    def __init__(self) -> None:
        self.snapshots: dict[str, StoredView] = {}

    async def load_view(self, name: str) -> StoredView | None:
        return self.snapshots.get(name)

    async def save_view(self, view: StoredView) -> None:
        self.snapshots[view.name] = view

    def change(self, name: str, **what: object) -> None:
        self.snapshots[name] = msgspec.structs.replace(self.snapshots[name], **what)


async def append(store: MemoryEventStore, name: str, uses: int) -> None:
    """Record a model and some uses of it."""
    discovered = ModelDiscovered(digest="a" * 64, size_bytes=1)
    for fact in [discovered, *[ModelUsed()] * uses]:
        stream = model_stream("local", name)
        event = NewEvent(
            fact=fact, occurred_at=NOW, actor="library:test", cause=Cause.COMMAND
        )
        await store.append(stream, [event], await store.stream_version(stream))


@asynccontextmanager
async def kept() -> AsyncIterator[tuple[MemoryEventStore, Snapshots]]:
    """Give a log of five events, and snapshots of its views."""
    async with MemoryEventStore() as store:
        await append(store, "a:1", uses=4)
        views, snapshots = Views(), Snapshots()
        await views.replay(store)
        await save(views, snapshots)
        yield store, snapshots


def dumps(views: Views) -> tuple[bytes, ...]:
    return tuple(
        view.dump() for view in (views.status, views.recommendation, views.statistics)
    )


async def replayed(store: MemoryEventStore) -> Views:
    views = Views()
    await views.replay(store)
    return views


async def test_restored_views_equal_the_saved_ones() -> None:
    async with kept() as (store, snapshots):
        views = await restore(store, snapshots)

        assert dumps(views) == dumps(await replayed(store))
        assert (views.position, views.saved_position) == (5, 5)
        assert views.hash == (await store.head()).hash


async def test_restored_views_apply_later_events() -> None:
    async with kept() as (store, snapshots):
        await append(store, "b:1", uses=2)

        views = await restore(store, snapshots)

        assert dumps(views) == dumps(await replayed(store))
        assert (views.position, views.saved_position) == (8, 5)


async def test_missing_snapshots_cause_no_warning() -> None:
    async with kept() as (store, _):
        with capture_logs() as logs:
            views = await restore(store, Snapshots())

        assert dumps(views) == dumps(await replayed(store))
        assert logs == []


USELESS: dict[str, dict[str, object]] = {
    "damaged": {"data": b'{"models": 7}'},
    "torn": {"data": b'{"mod'},
    "no text": {"data": b"\xff\xfe"},
    "of another form": {"version": 99},
    "of another position": {"position": 3},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", USELESS)
async def test_useless_snapshot_is_a_warning_and_a_replay(
    wrong: str, name: str
) -> None:
    async with kept() as (store, snapshots):
        snapshots.change(name, **USELESS[wrong])

        with capture_logs() as logs:
            views = await restore(store, snapshots)

        assert dumps(views) == dumps(await replayed(store))
        assert [log["event"] for log in logs] == ["snapshot_unusable"]
        assert logs[0]["log_level"] == "warning"


@pytest.mark.parametrize(
    "elsewhere", [{"hash": "b" * 64}, {"position": 77}, {"position": 0}]
)
async def test_snapshots_of_another_log_are_not_used(
    elsewhere: dict[str, object],
) -> None:
    async with kept() as (store, snapshots):
        for name in NAMES:
            snapshots.change(name, **elsewhere)

        with capture_logs() as logs:
            views = await restore(store, snapshots)

        assert dumps(views) == dumps(await replayed(store))
        assert len(logs) == 1


@pytest.mark.parametrize("name", NAMES)
async def test_missing_snapshot_makes_the_others_useless(name: str) -> None:
    async with kept() as (store, snapshots):
        del snapshots.snapshots[name]

        with capture_logs() as logs:
            views = await restore(store, snapshots)

        assert dumps(views) == dumps(await replayed(store))
        assert len(logs) == 1


async def test_reopened_log_has_the_same_views(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server:
        async with server.open_manager(log) as manager:
            await manager.load("llava:7b")
            await manager.mark_used("plain", purpose="a test")
            before = (await manager.now()).statuses()
        async with server.open_manager(log, refresh=False) as manager:
            assert (await manager.now()).statuses() == before


async def test_manager_saves_its_views_after_many_events(tmp_path: Path) -> None:
    log, settings = tmp_path / "herd.db", ManagerSettings(snapshot_every=5)
    async with serve_sandbox() as server:
        async with server.open_manager(log, settings=settings) as manager:
            end = (await manager.now()).position
            before = (await manager.now()).statuses()
        async with await SQLiteEventStore.open(log) as store:
            snapshots = [await store.load_view(name) for name in NAMES]
        async with server.open_manager(log, refresh=False) as manager:
            after = (await manager.now()).statuses()

    assert [view.position for view in snapshots if view] == [end] * 3
    assert after == before


async def test_manager_does_not_save_views_of_few_events(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server:
        async with server.open_manager(log) as manager:
            await manager.refresh()
        async with await SQLiteEventStore.open(log) as store:
            assert await store.load_view("status") is None


async def test_reopening_a_log_logs_nothing(tmp_path: Path) -> None:
    log, settings = tmp_path / "herd.db", ManagerSettings(snapshot_every=1)
    async with serve_sandbox() as server:
        async with server.open_manager(log, settings=settings):
            pass
        with capture_logs() as logs:
            async with server.open_manager(log, settings=settings):
                pass

    assert logs == []


async def test_copy_of_views_is_equal_and_independent() -> None:
    async with kept() as (store, _):
        views = await replayed(store)
        copied, before = views.copy(), dumps(views)
        assert (copied.position, copied.hash) == (views.position, views.hash)
        assert dumps(copied) == before

        await append(store, "a:1", uses=1)
        await views.replay(store)

        assert dumps(copied) == before != dumps(views)
