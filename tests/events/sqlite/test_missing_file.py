"""A file that disappears while it is open: no acknowledged event is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from herdbook.events.errors import StoreUnavailableError
from herdbook.events.snapshots import StoredView
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY
from herdbook.events.testing.base import event

STREAM = "model/n/m"
VIEW = StoredView(name="v", version=1, position=1, hash="a" * 64, data=b"x")


def delete(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def replace(path: Path) -> None:
    other = path.with_name("other.db")
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    other.replace(path)


@pytest.mark.parametrize("goes", [delete, move, replace])
async def test_append_and_read_fail_once_the_file_is_gone(
    tmp_path: Path, goes: Callable[[Path], None]
) -> None:
    path = tmp_path / "herd.db"
    async with await SQLiteEventStore.open(path) as store:
        await store.append(STREAM, [event()], ANY)
        goes(path)

        with pytest.raises(StoreUnavailableError, match="moved, deleted or replaced"):
            await store.append(STREAM, [event()], ANY)
        with pytest.raises(StoreUnavailableError):
            await store.save_view(VIEW)
        with pytest.raises(StoreUnavailableError):
            await store.head()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every directory")
async def test_directory_without_permission_is_not_called_a_missing_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "closed" / "herd.db"
    path.parent.mkdir()
    async with await SQLiteEventStore.open(path) as store:
        path.parent.chmod(0)
        with pytest.raises(StoreUnavailableError, match="permission denied"):
            await store.append(STREAM, [event()], ANY)
        path.parent.chmod(0o700)


async def test_subscription_to_a_log_that_goes_away_fails(tmp_path: Path) -> None:
    path = tmp_path / "herd.db"
    async with (
        await SQLiteEventStore.open(path) as store,
        aclosing(store.subscribe(0)) as events,
    ):
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        path.unlink()

        with pytest.raises(StoreUnavailableError):
            async with asyncio.timeout(10):
                await waiting


async def test_file_that_is_put_back_is_used_again(tmp_path: Path) -> None:
    path, away = tmp_path / "herd.db", tmp_path / "away.db"
    async with await SQLiteEventStore.open(path) as store:
        await store.append(STREAM, [event()], ANY)
        path.rename(away)
        with pytest.raises(StoreUnavailableError):
            await store.append(STREAM, [event()], ANY)
        away.rename(path)

        (recorded,) = await store.append(STREAM, [event()], ANY)

        assert recorded.position == 2


async def test_copy_in_its_place_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "herd.db"
    async with await SQLiteEventStore.open(path) as store:
        await store.append(STREAM, [event()], ANY)
        shutil.copy(path, tmp_path / "copy.db")
        tmp_path.joinpath("copy.db").replace(path)

        with pytest.raises(StoreUnavailableError):
            await store.append(STREAM, [event()], ANY)


async def test_log_that_is_put_back_is_followed_again(tmp_path: Path) -> None:
    path, away = tmp_path / "herd.db", tmp_path / "away.db"
    async with (
        await SQLiteEventStore.open(path) as store,
        await SQLiteEventStore.open(path) as other,
    ):
        path.rename(away)
        async with aclosing(store.subscribe(0)) as events:
            with pytest.raises(StoreUnavailableError):
                await anext(events)
        assert isinstance(store.failures()["log_watcher"], StoreUnavailableError)
        away.rename(path)

        async with aclosing(store.subscribe(0)) as events:
            waiting = asyncio.ensure_future(anext(events))
            await other.append(STREAM, [event()], ANY)
            async with asyncio.timeout(10):
                assert (await waiting).position == 1
        assert store.failures()["log_watcher"] is None
