"""Damage inside a write-ahead log is found before SQLite drops what follows it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from herdbook.events.errors import CorruptLogError
from herdbook.events.sqlite.condition import examine
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.sqlite.wal import Damage, check_wal, find_damage, is_in_use
from herdbook.events.store import ANY
from herdbook.events.testing.base import assert_sound, event, log_of

FRAME = 24 + 4096

KILLED = """
import asyncio, os, signal, sys
from herdbook.events.testing.base import event
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY

async def main(path, commits):
    async with await SQLiteEventStore.open(path) as store:
        for n in range(int(commits)):
            await store.append(f"model/n/m{n % 7}", [event("x" * 200)], ANY)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


def killed(path: Path, commits: int) -> Path:
    """Make a log, and kill its writer after so many commits."""
    run = [sys.executable, "-c", KILLED, str(path), str(commits)]
    assert subprocess.run(run, check=False).returncode == -signal.SIGKILL
    return path


def wal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def commit_marks(wal: bytes | bytearray) -> list[int]:
    """Return the offsets at which commits end, of the current use of the file."""
    salts = wal[16:24]
    marks = []
    for start in range(32, len(wal) - FRAME + 1, FRAME):
        if wal[start + 8 : start + 16] != salts:
            break
        if struct.unpack_from(">I", wal, start + 4)[0]:
            marks.append(start + FRAME)
    return marks


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log whose writer was killed: its commits are in the write-ahead log."""
    return killed(tmp_path_factory.mktemp("killed") / "herd.db", 30)


def copy_of(left: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for file in left.parent.glob("herd.db*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, folder)
    return folder / left.name


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


async def test_every_flip_before_the_last_two_commits_is_found(
    left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("herdbook.events.sqlite.wal.RETRY_S", 0.0)
    data = wal_of(left).read_bytes()
    marks = commit_marks(data)
    chance = Random(9)
    for number in range(60):
        path = copy_of(left, tmp_path / str(number))
        damaged = bytearray(data)
        damaged[chance.randrange(marks[-4])] ^= 1 << chance.randrange(8)
        wal_of(path).write_bytes(damaged)
        assert find_damage(wal_of(path)) is not None
        if number % 10:  # to open a log takes longer
            continue
        before = contents(path.parent)

        with pytest.raises(CorruptLogError, match="complete commits"):
            await SQLiteEventStore.open(path)
        with pytest.raises(CorruptLogError, match="herdbook verify --accept"):
            examine(path)

        assert contents(path.parent) == before


async def test_log_continues_before_the_damage_once_that_is_accepted(
    left: Path, tmp_path: Path
) -> None:
    path = copy_of(left, tmp_path / "copy")
    data = bytearray(wal_of(path).read_bytes())
    marks = commit_marks(data)
    data[marks[9] + 100] ^= 1
    wal_of(path).write_bytes(data)
    damage = find_damage(wal_of(path))
    assert damage == Damage((marks[9] - 32) // FRAME + 1, len(marks) - 10)

    async with await SQLiteEventStore.open(path, accept_loss=True) as store:
        await store.append("model/n/m", [event()], ANY)
        await assert_sound(store)
        assert len(await log_of(store)) == len(marks) - damage.commits + 1

    async with await SQLiteEventStore.open(path) as store:
        assert not store.missing


async def test_every_torn_end_that_a_crash_can_leave_opens(
    left: Path, tmp_path: Path
) -> None:
    data = wal_of(left).read_bytes()
    marks = commit_marks(data)
    chance = Random(4)
    for number in range(30):
        path = copy_of(left, tmp_path / str(number))
        torn = bytearray(data[: marks[-1]])
        if number % 2:  # the last commit was only partly written
            del torn[chance.randrange(marks[-2], marks[-1]) :]
        else:  # or not in order
            hole = chance.randrange(marks[-2], marks[-1] - 512)
            torn[hole : hole + 512] = bytes(512)
        wal_of(path).write_bytes(torn)
        assert find_damage(wal_of(path)) is None
        async with await SQLiteEventStore.open(path) as store:
            assert len(await log_of(store)) >= 29


@pytest.mark.parametrize("damage", [b"", b"x" * 20, b"\0" * 40_000, b"y" * 40_000])
def test_a_file_that_is_not_a_write_ahead_log_has_no_commits(
    damage: bytes, tmp_path: Path
) -> None:
    wal = tmp_path / "herd.db-wal"
    wal.write_bytes(damage)
    assert find_damage(wal) is None


def test_damaged_header_hides_no_commits(left: Path, tmp_path: Path) -> None:
    path = copy_of(left, tmp_path / "copy")
    data = wal_of(path).read_bytes()
    for byte in range(32):
        altered = bytearray(data)
        altered[byte] ^= 0xA5  # another value, whatever the random salts are
        wal_of(path).write_bytes(altered)
        assert find_damage(wal_of(path)) == Damage(1, len(commit_marks(data)))


async def test_frames_of_an_earlier_use_are_not_damage(tmp_path: Path) -> None:
    path = tmp_path / "herd.db"
    async with await SQLiteEventStore.open(path) as store:
        for _ in range(12):
            for n in range(10):
                await store.append(f"model/n/m{n}", [event("x" * 500)], ANY)
            await store._when_idle()  # the next commit starts the file again
            assert find_damage(wal_of(path)) is None
            await store.append("model/n/m", [event()], ANY)
            assert find_damage(wal_of(path)) is None


async def test_rolled_back_frames_are_not_damage(tmp_path: Path) -> None:
    path = tmp_path / "herd.db"
    async with await SQLiteEventStore.open(path) as store:
        await store.append("model/n/m", [event()], ANY)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("PRAGMA cache_size = 5")
        other.execute("BEGIN IMMEDIATE")
        other.execute(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 400)"
            " INSERT INTO views SELECT 'v' || x, 1, 1, 'h', zeroblob(2000), '' FROM n"
        )
        other.execute("ROLLBACK")  # its pages were in the file already
        other.close()
        assert wal_of(path).stat().st_size > 100 * FRAME
        for _ in range(9):
            assert find_damage(wal_of(path)) is None
            await store.append("model/n/m", [event()], ANY)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/locks")
async def test_log_in_use_is_left_to_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "herd.db"
    assert not is_in_use(path)
    async with await SQLiteEventStore.open(path) as store:
        for _ in range(5):
            await store.append("model/n/m", [event()], ANY)
        assert is_in_use(path)
        with wal_of(path).open("r+b") as file:
            file.seek(60)
            file.write(b"?")
        check_wal(path)
    assert not is_in_use(path)


@pytest.mark.slow
def test_killed_writers_never_look_like_damage(tmp_path: Path) -> None:
    chance = Random(1)
    path = tmp_path / "herd.db"
    program = KILLED.replace("int(commits)", "10_000")
    for _ in range(15):
        with subprocess.Popen([sys.executable, "-c", program, path, "0"]) as process:
            try:
                process.wait(chance.uniform(0.25, 0.6))
            except subprocess.TimeoutExpired:
                process.kill()
        check_wal(path)
        wal = wal_of(path)
        assert not wal.exists() or find_damage(wal) is None
    asyncio.run(assert_whole(path))


async def assert_whole(path: Path) -> None:
    async with await SQLiteEventStore.open(path) as store:
        assert not store.missing
        await assert_sound(store)


def test_reading_is_bounded(
    left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy_of(left, tmp_path / "copy")
    data = bytearray(wal_of(path).read_bytes())
    data[commit_marks(data)[9] + 100] ^= 1
    wal_of(path).write_bytes(data)
    monkeypatch.setattr("herdbook.events.sqlite.wal.MOST_FRAMES", 5)
    assert find_damage(wal_of(path)) is None
