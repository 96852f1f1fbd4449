"""Back up a log that is in use, and restore it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from herdbook.core import CallerError, Storage, SystemClock
from herdbook.core.checks.verification import verify
from herdbook.core.transfer.backup import back_up, restore
from herdbook.events.errors import (
    CorruptLogError,
    NewerSchemaError,
    StoreUnavailableError,
)
from herdbook.events.facts import ModelDiscovered
from herdbook.events.recorded import Cause, NewEvent
from herdbook.events.sqlite import backup as files
from herdbook.events.sqlite.instances import FileInstances
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import Head

FACT = ModelDiscovered(digest="a" * 64, size_bytes=1, remote_host=None)


def new_event() -> NewEvent:
    return NewEvent(
        fact=FACT, occurred_at=datetime.now(UTC), actor="test", cause=Cause.COMMAND
    )


async def append(store: SQLiteEventStore, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        await store.append(f"model/local/m{number}:latest", [new_event()], 0)


async def log_of(path: Path, events: int) -> Head:
    async with await SQLiteEventStore.open(path) as store:
        await append(store, events)
        return await store.head()


async def head_of(path: Path) -> Head:
    async with Storage.open(path, SystemClock()) as storage:
        found = await verify(storage)
        assert found.findings == ()
        return found.head


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups" / "herd.db"


async def test_backup_has_the_events_of_a_log_in_use(log: Path, target: Path) -> None:
    async with await SQLiteEventStore.open(log) as store:
        await append(store, 20)
        head = await store.head()
        made = await back_up(log, target)

    assert (made.position, made.hash) == (head.position, head.hash)
    assert list(target.parent.iterdir()) == [target]
    assert made.size_bytes == target.stat().st_size
    assert target.stat().st_mode & 0o777 == 0o600
    assert await head_of(target) == head


async def test_backup_during_appends_has_a_prefix_of_the_log(
    log: Path, target: Path
) -> None:
    async with await SQLiteEventStore.open(log) as store:
        await append(store, 1)
        made = await back_up(log, target)
        writing = asyncio.create_task(append(store, 300, start=1))
        for number in range(5):
            before = (await store.head()).position
            made = await back_up(log, target, replace=True)
            after = (await store.head()).position
            assert before <= made.position <= after, number
        await writing
        hashes = [event.hash async for event in store.read_all()]

    assert hashes[made.position - 1] == made.hash


async def test_backup_never_replaces_a_file_without_being_asked(
    log: Path, target: Path
) -> None:
    await log_of(log, 3)
    target.write_text("something else")

    with pytest.raises(CallerError, match="already exists"):
        await back_up(log, target)
    with pytest.raises(CallerError, match="is the log itself"):
        await back_up(log, log, replace=True)

    assert target.read_text() == "something else"


@pytest.mark.parametrize("ending", ["-wal", "-shm", "-head", "-instances/backup"])
async def test_backup_never_replaces_a_file_of_the_log(log: Path, ending: str) -> None:
    async with await SQLiteEventStore.open(log) as store:
        await append(store, 3)
        link = log.with_name("link.db")
        link.symlink_to(log)
        with pytest.raises(CallerError, match="belongs to the log"):
            await back_up(link, Path(f"{log}{ending}"), replace=True)

    assert (await head_of(log)).position == 3


async def test_backup_replaces_only_files(log: Path, target: Path) -> None:
    await log_of(log, 3)
    pipe, dangling = target.with_name("pipe"), target.with_name("dangling")
    os.mkfifo(pipe)
    dangling.symlink_to(target)

    for name in (pipe, target.parent):
        with pytest.raises(CallerError, match="is not a file"):
            await back_up(log, name, replace=True)
    with pytest.raises(CallerError, match="already exists"):
        await back_up(log, dangling)

    with pytest.raises(CallerError, match="is not a file"):
        await back_up(log, Path("/"))
    with pytest.raises(CallerError, match="is not a file"):
        await restore(Path("/"), log)

    assert pipe.is_fifo()
    assert dangling.is_symlink()


async def test_backup_of_a_damaged_log_is_refused(log: Path, target: Path) -> None:
    await log_of(log, 3)
    data = log.read_bytes()
    log.write_bytes(data.replace(b'"size_bytes":1', b'"size_bytes":2', 1))

    with pytest.raises(CorruptLogError, match=r"^the copy of .*herd\.db is damaged"):
        await back_up(log, target)

    assert not any(target.parent.iterdir())


async def test_backup_that_cannot_be_copied_leaves_nothing(
    log: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log_of(log, 3)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_sync", full)
    with pytest.raises(Exception, match="No space left") as caught:
        await back_up(log, target)

    assert getattr(caught.value, "code", "") == "store_full"
    assert str(caught.value).startswith(f"{target} cannot be written")
    assert not any(target.parent.iterdir())


async def test_copy_of_a_log_in_use_without_its_wal_is_not_restored(
    log: Path, target: Path
) -> None:
    async with await SQLiteEventStore.open(log) as store:
        await append(store, 3)
        shutil.copy(log, target)
        await append(store, 3, start=3)
        whole = target.with_name("whole.db")
        await back_up(log, whole)
    other = log.with_name("other.db")

    with pytest.raises(CorruptLogError, match="without its -wal"):
        await restore(target, other)
    assert not other.exists()

    done = await restore(whole, other)
    assert done.position == 6
    assert await head_of(other) == Head(done.position, done.hash)


async def test_restored_log_is_the_one_that_was_backed_up(
    log: Path, target: Path
) -> None:
    head = await log_of(log, 5)
    await back_up(log, target)
    other = log.with_name("other.db")

    done = await restore(target, other)

    assert Head(done.position, done.hash) == head
    assert done.replaced is None
    assert await head_of(other) == head
    async with await SQLiteEventStore.open(other) as store:
        await append(store, 1, start=90)
        assert store.missing == ""


async def test_restore_keeps_the_replaced_files(log: Path, target: Path) -> None:
    old = await log_of(log, 3)
    await back_up(log, target)
    async with await SQLiteEventStore.open(log) as store:
        await append(store, 4, start=50)
        newest = await store.head()

    with pytest.raises(CallerError, match="already exists"):
        await restore(target, log)
    done = await restore(target, log, replace=True)

    assert await head_of(log) == old
    assert done.replaced is not None
    assert await head_of(done.replaced / log.name) == newest


async def test_restore_of_a_damaged_backup_changes_nothing(
    log: Path, target: Path
) -> None:
    head = await log_of(log, 3)
    await back_up(log, target)
    data = target.read_bytes()
    target.write_bytes(data.replace(b'"size_bytes":1', b'"size_bytes":2', 1))

    with pytest.raises(CorruptLogError, match="Nothing was changed"):
        await restore(target, log, replace=True)

    assert await head_of(log) == head


async def test_restore_of_a_backup_with_a_damaged_column_changes_nothing(
    log: Path, target: Path
) -> None:
    head = await log_of(target, 3)
    data = target.read_bytes()
    at = data.rindex(head.hash.encode())
    target.write_bytes(data[:at] + b"\xff" + data[at + 1 :])

    with pytest.raises(CorruptLogError, match="damaged"):
        await restore(target, log)

    assert not log.exists()


async def test_restore_of_an_empty_file_changes_nothing(
    log: Path, target: Path
) -> None:
    head = await log_of(log, 3)
    target.touch()

    with pytest.raises(CorruptLogError, match="is empty, not a backup"):
        await restore(target, log, replace=True)

    assert await head_of(log) == head


async def test_restore_of_a_newer_backup_names_the_backup(
    log: Path, target: Path
) -> None:
    await log_of(target, 3)
    with closing(sqlite3.connect(target)) as db:
        db.execute("PRAGMA user_version = 99")

    with pytest.raises(NewerSchemaError, match="has schema 99") as caught:
        await restore(target, log)

    assert caught.value.subject == str(target)
    assert not log.exists()


async def test_restore_of_another_database_is_refused(log: Path, target: Path) -> None:
    with sqlite3.connect(target) as other:
        other.execute("CREATE TABLE t (a)")
    other.close()

    with pytest.raises(CorruptLogError):
        await restore(target, log)

    assert not log.exists()


async def test_restore_refuses_a_log_in_use(log: Path, target: Path) -> None:
    await log_of(log, 3)
    await back_up(log, target)
    with (
        FileInstances(log.with_name(f"{log.name}-instances")),
        pytest.raises(CallerError, match="in use"),
    ):
        await restore(target, log, replace=True)


@pytest.mark.parametrize("moved", range(4))
async def test_killed_restore_never_opens_as_a_shorter_log(
    log: Path, target: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    """A crash is simulated after each file that is moved aside."""
    store = await SQLiteEventStore.open(log)
    await append(store, 5)
    await back_up(log, target)
    copies = {file.name: file.read_bytes() for file in log.parent.glob("herd.db*")
              if file.is_file()}  # fmt: skip
    await store.close()
    for name, data in copies.items():
        (log.parent / name).write_bytes(data)
    before = sum(name.endswith(("-wal", ".db")) for name in copies)
    assert before == 2, "a log and its -wal are there, as a kill leaves them"
    synced = 0

    def dying(path: Path) -> None:
        nonlocal synced
        synced += path == log.parent
        if synced > moved:
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "_sync", dying)
    with pytest.raises(KeyboardInterrupt):
        files.set_aside(log, log.with_name("aside"))
    monkeypatch.undo()

    try:
        async with await SQLiteEventStore.open(log) as found:
            whole = (await found.head()).position == 5
            assert whole or found.missing or moved == 3  # all files are aside
    except (CorruptLogError, StoreUnavailableError):
        pass


async def test_cancelled_restore_leaves_a_log_at_its_place(
    log: Path, target: Path
) -> None:
    head = await log_of(log, 3)
    await back_up(log, target)

    restoring = asyncio.create_task(restore(target, log, replace=True))
    while not list(log.parent.glob("*before-restore*")) and not restoring.done():
        await asyncio.sleep(0)
    restoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await restoring

    assert await head_of(log) == head
