"""A log of the first schema is migrated, upcast and still valid."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from herdbook.events.facts import ModelUnloaded, UnloadReason
from herdbook.events.snapshots import StoredView
from herdbook.events.sqlite.schema import MIGRATIONS, NEWEST
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY
from herdbook.events.testing.base import event, log_of
from herdbook.events.verify import verify

FIXTURE = Path(__file__).parents[2] / "fixtures" / "schema-1.db"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the old log; opening migrates it."""
    return Path(shutil.copy(FIXTURE, tmp_path / "herd.db"))


def schema_of(path: Path) -> dict[str, object]:
    connection = sqlite3.connect(path)
    query = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
    found: dict[str, object] = dict(connection.execute(query).fetchall())
    found["user_version"] = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return found


def test_fixture_is_of_schema_1() -> None:
    connection = sqlite3.connect(f"{FIXTURE.as_uri()}?immutable=1", uri=True)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    kept = connection.execute("SELECT data FROM events WHERE position = 9").fetchone()
    connection.close()
    assert kept == ('{"cause":"evicted:qwen2.5:7b"}',)


async def test_migrated_log_is_like_a_new_one(old: Path, tmp_path: Path) -> None:
    for path in (old, tmp_path / "new.db"):
        await (await SQLiteEventStore.open(path)).close()
    assert schema_of(old) == schema_of(tmp_path / "new.db")
    assert schema_of(old)["user_version"] == NEWEST


async def test_migration_does_not_change_events(old: Path, tmp_path: Path) -> None:
    def rows(path: Path) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(path)
        found = connection.execute("SELECT * FROM events, head").fetchall()
        connection.close()
        return found

    before = rows(old)
    await (await SQLiteEventStore.open(old)).close()
    assert rows(old) == before


async def test_migrated_log_is_sound_and_accepts_appends(old: Path) -> None:
    view = StoredView(name="v", version=1, position=10, hash="a" * 64, data=b"x")
    async with await SQLiteEventStore.open(old) as store:
        await store.append("model/local/llama3.1:latest", [event()], 8)
        await store.save_view(view)
        verification = await verify(store)
        assert verification.findings == ()
        assert verification.events == 11


async def test_old_data_are_read_in_their_newest_form(old: Path) -> None:
    async with await SQLiteEventStore.open(old) as store:
        found = [e for e in await log_of(store) if e.type == "ModelUnloaded"]
    assert [e.data for e in found] == [
        ModelUnloaded(reason=UnloadReason.EXPIRED),
        ModelUnloaded(reason=UnloadReason.EVICTED, evicted_by="qwen2.5:7b"),
    ]
    assert {e.schema for e in found} == {1}


async def test_many_migrate_at_once(old: Path) -> None:
    stores = await asyncio.gather(*(SQLiteEventStore.open(old) for _ in range(5)))
    for store in stores:
        await store.append("model/n/m", [event()], ANY)
        await store.close()
    assert schema_of(old)["user_version"] == NEWEST


@pytest.mark.parametrize("statements", [1, len(MIGRATIONS[1])])
async def test_interrupted_migration_changes_nothing(
    old: Path, statements: int
) -> None:
    connection = sqlite3.connect(old, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    for statement in MIGRATIONS[1][:statements]:
        connection.execute(statement)
    connection.close()  # as a process that dies before COMMIT
    assert schema_of(old)["user_version"] == 1
    async with await SQLiteEventStore.open(old) as store:
        assert not (await verify(store)).findings


@pytest.mark.parametrize("schema", range(1, NEWEST))
async def test_logs_of_every_older_schema_open(
    old: Path, tmp_path: Path, schema: int
) -> None:
    connection = sqlite3.connect(old, isolation_level=None)
    for migration in MIGRATIONS[1:schema]:
        for statement in migration:
            connection.execute(statement)
    connection.close()
    assert schema_of(old)["user_version"] == schema
    view = StoredView(name="v", version=1, position=10, hash="a" * 64, data=b"x")
    async with await SQLiteEventStore.open(old) as store:
        await store.keep_view(view)
        assert await store.load_kept_view("v", version=1, position=10) == view
        assert not (await verify(store)).findings
    await (await SQLiteEventStore.open(tmp_path / "new.db")).close()
    assert schema_of(old) == schema_of(tmp_path / "new.db")
