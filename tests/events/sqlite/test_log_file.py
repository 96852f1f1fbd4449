"""The identity of a log file: links, mounts, orphaned write-ahead logs, forks."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from herdbook.events.errors import (
    CorruptLogError,
    StoreUnavailableError,
)
from herdbook.events.shared.file_descriptors import has_descriptors
from herdbook.events.sqlite import log_file
from herdbook.events.sqlite.condition import examine
from herdbook.events.sqlite.instances import FileInstances
from herdbook.events.sqlite.log_file import log_file_path
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY
from herdbook.events.testing.base import assert_sound, event, log_of

STREAM = "model/n/m"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "herd.db"


async def log_at(path: Path, events: int = 1) -> None:
    async with await SQLiteEventStore.open(path) as store:
        for _ in range(events):
            await store.append(STREAM, [event()], ANY)


async def test_symbolic_link_leads_to_the_same_log(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "other" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)  # of a log that is not made yet
    async with (
        await SQLiteEventStore.open(link) as one,
        await SQLiteEventStore.open(path) as two,
    ):
        for _ in range(5):
            await one.append(STREAM, [event()], ANY)
            await two.append(STREAM, [event()], ANY)
        assert len(await log_of(one)) == 10
        await assert_sound(two)
    assert list(link.parent.iterdir()) == [link]
    assert log_file_path(link, "-instances") == tmp_path / "herd.db-instances"


async def test_second_name_is_refused(path: Path, tmp_path: Path) -> None:
    await log_at(path)
    other = tmp_path / "other.db"
    other.hardlink_to(path)
    for name in (path, other):
        with pytest.raises(StoreUnavailableError, match="2 names"):
            await SQLiteEventStore.open(name)
        with pytest.raises(StoreUnavailableError, match="samefile"):
            examine(name)
    other.unlink()
    await log_at(path)


async def test_second_name_of_an_open_log_ends_the_appends(
    path: Path, tmp_path: Path
) -> None:
    async with await SQLiteEventStore.open(path) as store:
        tmp_path.joinpath("other.db").hardlink_to(path)
        with pytest.raises(StoreUnavailableError, match="2 names"):
            await store.append(STREAM, [event()], ANY)
        tmp_path.joinpath("other.db").unlink()
        await store.append(STREAM, [event()], ANY)


@pytest.mark.parametrize("name", ["herd.db", "a herd\\x.db"])
async def test_file_that_is_a_mount_point_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    await log_at(path)
    place = str(path).replace("\\", "\\134").replace(" ", "\\040")
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr(log_file, "MOUNT_INFO", mounts)
    line = "36 35 98:0 /mnt2 {} rw,noatime master:1 - ext3 /dev/root rw\n"
    mounts.write_text(line.format(tmp_path))
    await log_at(path)
    mounts.write_text(line.format("/") + line.format(place))
    with pytest.raises(StoreUnavailableError, match="mount point"):
        await SQLiteEventStore.open(path)
    with pytest.raises(StoreUnavailableError, match="Mount the directory"):
        examine(path)


@pytest.mark.parametrize("loss", [Path.unlink, lambda path: os.truncate(path, 0)])
async def test_write_ahead_log_without_its_log_is_left_alone(
    loss: Callable[[Path], None], path: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    async with await SQLiteEventStore.open(path) as store:
        await store.append(STREAM, [event()], ANY)
        shutil.copy(log_file_path(path, "-wal"), kept)
    loss(path)
    shutil.copy(kept, log_file_path(path, "-wal"))
    before = sorted(tmp_path.iterdir())

    with pytest.raises(CorruptLogError, match="write-ahead log herd"):
        await SQLiteEventStore.open(path)
    with pytest.raises(CorruptLogError, match="Nothing was changed"):
        examine(path)

    assert sorted(tmp_path.iterdir()) == before
    assert log_file_path(path, "-wal").read_bytes() == kept.read_bytes()


async def test_writer_that_does_not_share_the_write_ahead_log_is_noticed(
    path: Path, tmp_path: Path
) -> None:
    async with await SQLiteEventStore.open(path) as store:
        await store.append(STREAM, [event()], ANY)
        await store._when_idle()
        # What a process that mounts the file alone brings into it at its checkpoint:
        copy = tmp_path / "elsewhere" / "herd.db"
        copy.parent.mkdir()
        shutil.copy(path, copy)
        await log_at(copy, 3)
        await store.append(STREAM, [event()], ANY)
        with path.open("r+b") as file:
            file.write(copy.read_bytes())

        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="does not use the same"):
                await store.append(STREAM, [event()], ANY)


async def test_writers_that_share_the_write_ahead_log_are_not_suspected(
    path: Path,
) -> None:
    async with (
        await SQLiteEventStore.open(path) as one,
        await SQLiteEventStore.open(path) as two,
    ):
        for n in range(60):
            await one.append(STREAM, [event("x" * 3000)], ANY)
            await two.append("model/n/o", [event("x" * 3000)], ANY)
            if n % 3 == 0:
                await two._when_idle()
        await assert_sound(one)


async def test_new_log_is_for_its_owner_alone(path: Path) -> None:
    async with await SQLiteEventStore.open(path) as store:
        await store.append(STREAM, [event()], ANY)
        for ending in ("", "-wal", "-shm"):
            assert stat.S_IMODE(log_file_path(path, ending).stat().st_mode) == 0o600
    assert stat.S_IMODE(log_file_path(path, "-head").stat().st_mode) == 0o600


async def test_existing_log_keeps_its_mode(path: Path) -> None:
    await log_at(path)
    path.chmod(0o664)
    await log_at(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o664


async def test_main_file_alone_has_its_tables_from_the_start(
    path: Path, tmp_path: Path
) -> None:
    async with await SQLiteEventStore.open(path):
        copy = Path(shutil.copy(path, tmp_path / "copy.db"))
    connection = sqlite3.connect(f"{copy.as_uri()}?immutable=1", uri=True)
    assert connection.execute("SELECT position FROM head").fetchall() == [(0,)]
    connection.close()


FORKED = """
import asyncio, os, sys
from herdbook.events.testing.base import event
from herdbook.events.errors import StoreClosedError
from herdbook.events.sqlite.instances import FileInstances
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY

async def refused(store):
    for attempt in (
        lambda: store.append("model/n/m", [event()], ANY),
        lambda: store.stream_version("model/n/m"),
        store.head,
    ):
        try:
            await asyncio.wait_for(attempt(), 5)
        except StoreClosedError as error:
            assert "fork" in str(error), error
        else:
            raise AssertionError
    await asyncio.wait_for(store.close(), 5)

def in_child(store, instances):
    code = 1
    try:
        asyncio.events._set_running_loop(None)
        asyncio.run(refused(store))
        instances.close()
        code = 0
    finally:
        os._exit(code)

async def main(path):
    async with await SQLiteEventStore.open(path) as store:
        with FileInstances(path.with_name("i")) as instances:
            await store.append("model/n/m", [event()], ANY)
            child = os.fork()
            if not child:
                in_child(store, instances)
            assert os.waitpid(child, 0)[1] == 0
            (mine,) = path.with_name("i").iterdir()
            await store.append("model/n/m", [event()], ANY)

from pathlib import Path
asyncio.run(main(Path(sys.argv[1])))
"""


def test_fork_of_a_process_does_not_use_its_log(path: Path) -> None:
    run = [sys.executable, "-W", "ignore", "-c", FORKED, str(path)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr


def test_fork_does_not_keep_a_dead_instance_alive(tmp_path: Path) -> None:
    ready, ready_in = os.pipe()
    end_out, end = os.pipe()
    with FileInstances(tmp_path / "i") as one:
        dying = FileInstances(tmp_path / "i")
        child = os.fork()
        if not child:
            os.write(ready_in, b"x")
            os.close(end)
            os.read(end_out, 1)
            os._exit(0)
        os.read(ready, 1)
        assert dying._lock is not None
        os.close(dying._lock)  # as its process ends
        dying._lock = None
        assert not asyncio.run(one.alive(dying.own))
        os.close(end)
        os.waitpid(child, 0)
        for descriptor in (ready, ready_in, end_out):
            os.close(descriptor)


async def test_lack_of_descriptors_is_reported(path: Path, tmp_path: Path) -> None:
    await log_at(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    threads = set(threading.enumerate())
    instances = FileInstances(tmp_path / "i")
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        while has_descriptors():
            taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(StoreUnavailableError, match="ulimit -n"):
            await SQLiteEventStore.open(path)
        with pytest.raises(StoreUnavailableError, match="ulimit -n"):
            FileInstances(tmp_path / "i")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
    instances.close()
    for thread in set(threading.enumerate()) - threads:  # of the failed connection
        thread.join(5)


def test_lock_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "i"
    directory.mkdir(mode=0o755)  # as an older version made it
    with FileInstances(directory):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        (lock,) = directory.iterdir()
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_lock_files_of_several_users_stay_shared(tmp_path: Path) -> None:
    directory = tmp_path / "i"
    directory.mkdir()
    directory.chmod(0o770)
    FileInstances(directory).close()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o770
