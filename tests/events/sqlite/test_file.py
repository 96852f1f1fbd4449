"""The file of a SQLite log: created, recognized, refused, left unchanged."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support.odd_log import write_invalid_utf8

from herdbook.events.errors import (
    CorruptLogError,
    NewerSchemaError,
    NotALogError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from herdbook.events.facts import UnreadableFact
from herdbook.events.sqlite.connection import connected
from herdbook.events.sqlite.recorder import SQLiteRecorder
from herdbook.events.sqlite.schema import APPLICATION_ID, NEWEST
from herdbook.events.sqlite.session import Session, check_library, migrate
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY
from herdbook.events.testing.base import assert_sound, event, log_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "herd.db"


@pytest.fixture
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a log with three events, past the store."""

    async def fill() -> None:
        async with await SQLiteEventStore.open(path) as store:
            await store.append("model/n/m", [event(), event(), event()], ANY)

    asyncio.run(fill())
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA recursive_triggers = ON")
    yield connection
    connection.close()


def foreign(path: Path, journal_mode: str = "delete") -> None:
    """Make a database of another program."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {journal_mode}")
    connection.execute("CREATE TABLE events (position INTEGER)")
    connection.execute("INSERT INTO events VALUES (1)")
    connection.commit()
    connection.close()


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def writing(store: SQLiteEventStore) -> Session:
    recorder = store._writer._recorder
    assert isinstance(recorder, SQLiteRecorder)
    session = recorder._session
    assert isinstance(session, Session)
    return session


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def header(path: Path) -> bytes:
    return path.read_bytes()[:100]


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


async def refusal(path: Path, kind: type[StoreError]) -> StoreError:
    with pytest.raises(kind) as caught:
        await SQLiteEventStore.open(path)
    return caught.value


async def test_connections_are_durable_and_strict(path: Path) -> None:
    async with await SQLiteEventStore.open(path) as store:
        for session in (store._reading, writing(store)):
            found = {
                name: (await session.execute(f"PRAGMA {name}"))[0][0]
                for name in (
                    "journal_mode",
                    "synchronous",
                    "busy_timeout",
                    "recursive_triggers",
                    "trusted_schema",
                    "cell_size_check",
                    "mmap_size",
                    "wal_autocheckpoint",
                )
            }
            assert found == {
                "journal_mode": "wal",
                "synchronous": 2,
                "busy_timeout": 5000,
                "recursive_triggers": 1,
                "trusted_schema": 0,
                "cell_size_check": 1,
                "mmap_size": 0,
                "wal_autocheckpoint": 1000,
            }


async def test_place_without_a_write_ahead_log_is_refused() -> None:
    async with connected(None) as session:  # one in memory has none
        with pytest.raises(StoreUnavailableError):
            await session.set_up()


async def test_migration_that_fails_leaves_no_transaction(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE views (name TEXT)")
    connection.close()
    async with connected(path) as session:
        for _ in range(2):
            with pytest.raises(CorruptLogError):
                await migrate(session)
        assert (await session.run("user_version"))[0] == (0,)


def test_library_that_is_too_old_is_refused() -> None:
    check_library((3, 38, 0))
    with pytest.raises(StoreUnavailableError) as caught:
        check_library((3, 37, 2))
    expected = "SQLite 3.37.2 is too old. Use 3.38 or newer"
    assert str(caught.value) == expected


async def test_reading_connection_cannot_write(path: Path) -> None:
    async with await SQLiteEventStore.open(path) as store:
        with pytest.raises(StoreUnavailableError):
            await store._reading.execute("UPDATE head SET position = 1")


async def test_header_of_a_new_file_has_the_application_id(path: Path) -> None:
    async with await SQLiteEventStore.open(path):
        # Without the write-ahead log, in which everything else still is.
        assert int.from_bytes(header(path)[68:72]) == APPLICATION_ID


@pytest.mark.parametrize("name", ["h?e#r%20d.db", "pferd ü.db", ":memory:", "-x'\".db"])
async def test_any_file_name_is_accepted_unchanged(tmp_path: Path, name: str) -> None:
    async with await SQLiteEventStore.open(tmp_path / name) as store:
        await store.append("model/n/m", [event()], ANY)
    assert names(tmp_path) == [name, f"{name}-head"]


async def test_empty_file_becomes_a_log(path: Path) -> None:
    write(path, b"")
    async with await SQLiteEventStore.open(path) as store:
        await store.append("model/n/m", [event()], ANY)


async def test_many_open_a_new_file_at_once(path: Path) -> None:
    stores = await asyncio.gather(*(SQLiteEventStore.open(path) for _ in range(8)))
    for store in stores:
        await store.append("model/n/m", [event()], ANY)
    await assert_sound(stores[0])
    for store in stores:
        await store.close()


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
async def test_database_of_another_program_is_left_alone(
    path: Path, tmp_path: Path, journal_mode: str
) -> None:
    foreign(path, journal_mode)
    before = contents(tmp_path)
    await refusal(path, NotALogError)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("content", [b"x", b"Dear diary,\n" * 1000, bytes(8192)])
async def test_file_that_is_not_a_database_is_left_alone(
    path: Path, tmp_path: Path, content: bytes
) -> None:
    write(path, content)
    await refusal(path, NotALogError)
    assert contents(tmp_path) == {path.name: content}


async def test_directory_is_not_a_log(tmp_path: Path) -> None:
    error = await refusal(tmp_path, StoreUnavailableError)
    assert error.state == "is a directory"


async def test_directory_must_be_there(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    error = await refusal(missing / "herd.db", StoreUnavailableError)
    assert error.remedy == f"Create {missing} first"
    assert not missing.exists()


def test_newer_schema_is_left_alone(raw: sqlite3.Connection, path: Path) -> None:
    raw.execute(f"PRAGMA user_version = {NEWEST + 1}")
    raw.close()
    before = path.read_bytes()
    error = asyncio.run(refusal(path, NewerSchemaError))
    assert f"has schema {NEWEST + 1}" in str(error)
    assert path.read_bytes() == before


UNPRIVILEGED = """
import asyncio, os, sys
from herdbook.events.errors import StoreUnavailableError
from herdbook.events.sqlite.store import SQLiteEventStore
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    asyncio.run(SQLiteEventStore.open(sys.argv[1]))
except StoreUnavailableError as error:
    print(error.state, "|", error.remedy)
"""


@pytest.mark.parametrize("protected", ["herd.db", "."])
def test_file_without_permission_is_refused(
    raw: sqlite3.Connection, tmp_path: Path, protected: str
) -> None:
    raw.close()
    for directory in (*tmp_path.parents, tmp_path):
        if directory.owner() == tmp_path.owner() and directory.name:
            directory.chmod(0o777 if directory == tmp_path else 0o755)
    (tmp_path / "herd.db").chmod(0o666)
    place = tmp_path / protected
    place.chmod(0o555 if place.is_dir() else 0o444)
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, str(tmp_path / "herd.db")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("cannot be read and written | Give permission")
    assert str(place.resolve()) in done.stdout


def test_damaged_file_is_called_damaged(raw: sqlite3.Connection, path: Path) -> None:
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))

    async def read() -> None:
        async with await SQLiteEventStore.open(path) as store:
            await log_of(store)

    with pytest.raises(CorruptLogError):
        asyncio.run(read())


async def test_texts_that_are_not_utf_8_cost_only_themselves(path: Path) -> None:
    async with await SQLiteEventStore.open(path) as store:
        await store.append("model/n/m", [event(), event(), event()], ANY)
    write_invalid_utf8(path, "events", "data", "position = 2")

    async with await SQLiteEventStore.open(path) as store:
        # At once, so that the second statement fails before the first is repeated.
        logs = await asyncio.gather(log_of(store), log_of(store))
        await store.append("model/n/m", [event()], ANY)
        with closing(sqlite3.connect(path)) as connection:
            checkpoint = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert checkpoint.fetchall() == [(0, 0, 0)]  # no reader blocks it
    for log in logs:
        unreadable = [type(each.data) is UnreadableFact for each in log]
        assert unreadable == [False, True, False]


def test_log_without_its_tables_is_damaged(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {NEWEST}")
    connection.close()

    async def read() -> None:
        async with await SQLiteEventStore.open(path) as store:
            await store.head()

    with pytest.raises(CorruptLogError):
        asyncio.run(read())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor = 'nobody' WHERE position = 2",
        "UPDATE events SET position = 9 WHERE position = 3",
        "DELETE FROM events WHERE position = 3",
        "DELETE FROM head",
        "INSERT INTO head VALUES (2, 0, '')",
        "UPDATE head SET position = 2",
        "UPDATE head SET id = 2, position = 4",
        *(
            f"INSERT {how} INTO events SELECT {place}, event_id, type, schema, data,"
            " occurred_at, recorded_at, 'nobody', cause, NULL, NULL, hash"
            " FROM events WHERE position = 3"
            for how in ("", "OR REPLACE", "OR IGNORE")
            for place in (
                "3, stream, 3",
                "4, stream, 4",
                "4, stream, 3",
                "5, stream || 'x', 1",
                "4, stream || 'x', 2",
            )
        ),
    ],
)
def test_events_are_not_changed_past_the_store(
    raw: sqlite3.Connection, statement: str
) -> None:
    before = list(raw.iterdump())
    try:
        raw.execute(statement)
    except sqlite3.IntegrityError:
        pass
    else:
        assert "OR IGNORE" in statement  # which skips what it may not write
    assert list(raw.iterdump()) == before


async def test_locked_log_is_unavailable_until_it_is_free(path: Path) -> None:
    async with await SQLiteEventStore.open(path) as store:
        await writing(store).execute("PRAGMA busy_timeout = 0")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        new = [event()]
        for _ in range(2):
            with pytest.raises(StoreUnavailableError) as caught:
                await store.append("model/n/m", new, 0)
            assert caught.value.state == "is locked by another process"
        other.execute("ROLLBACK")
        other.close()
        assert (await store.append("model/n/m", new, 0))[0].position == 1


async def test_full_disk_records_nothing_until_space_is_free(path: Path) -> None:
    async with await SQLiteEventStore.open(path) as store:
        session = writing(store)
        (pages,) = (await session.execute("PRAGMA page_count"))[0]
        await session.execute(f"PRAGMA max_page_count = {pages}")
        new = [event("x" * 50_000)]
        with pytest.raises(StoreFullError):
            await store.append("model/n/m", new, 0)
        await session.execute("PRAGMA max_page_count = 100000")
        assert (await store.append("model/n/m", new, 0))[0].position == 1
        await assert_sound(store)


async def test_closing_releases_everything(path: Path, tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    store = await SQLiteEventStore.open(path)
    await store.append("model/n/m", [event()], ANY)
    events = store.subscribe(0)
    await anext(events)
    await asyncio.gather(store.close(), store.close())
    assert asyncio.all_tasks() == {asyncio.current_task()}
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
        assert not thread.is_alive()
    assert names(tmp_path) == [path.name, f"{path.name}-head"]  # no -wal, no -shm


async def test_cancelled_opening_releases_everything(path: Path) -> None:
    threads = set(threading.enumerate())
    for turns in range(0, 200, 7):
        opening = asyncio.create_task(SQLiteEventStore.open(path))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait({opening})
        if not opening.cancelled():
            await opening.result().close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
        assert not thread.is_alive()


async def test_cancelled_closing_is_finished(path: Path) -> None:
    store = await SQLiteEventStore.open(path)
    closing = asyncio.create_task(store.close())
    for _ in range(3):
        await asyncio.sleep(0)
        closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not path.with_name("herd.db-wal").exists()


async def test_copy_of_the_file_is_a_log(path: Path, tmp_path: Path) -> None:
    async with await SQLiteEventStore.open(path) as store:
        written = await store.append("model/n/m", [event("a"), event("b")], ANY)
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    async with await SQLiteEventStore.open(copy) as store:
        assert await log_of(store) == list(written)


async def test_events_before_a_damaged_page_can_be_read(path: Path) -> None:
    async with await SQLiteEventStore.open(path) as store:
        for number in range(30):
            note = f"note {number} {'x' * 400}"
            await store.append("model/n/m", [event(note)], ANY)
        whole = await log_of(store)
    data = bytearray(path.read_bytes())
    page = data.index(b"note 20 ") // 4096 * 4096
    data[page] = 0  # the type of the page
    path.write_bytes(data)

    found = []
    async with await SQLiteEventStore.open(path) as store:
        reading = store.read_all()
        with suppress(CorruptLogError):
            while True:
                found.append(await anext(reading))

    assert 10 < len(found) <= 20
    assert found == whole[: len(found)]
