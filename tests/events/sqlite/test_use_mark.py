"""The mark of a log in use: a copy without its ``-wal`` is reported."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from herdbook.events.sqlite import kept_head, use_mark
from herdbook.events.sqlite.backup import copy_online
from herdbook.events.sqlite.condition import examine
from herdbook.events.sqlite.kept_head import KeptHead
from herdbook.events.sqlite.log_file import Access
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.sqlite.wal import is_in_use
from herdbook.events.store import ANY
from herdbook.events.testing.base import event
from herdbook.events.verify import verify

STREAM = "model/n/m"

APPEND = """
import asyncio, os, sys
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY
from herdbook.events.testing.base import event
async def main(path):
    async with await SQLiteEventStore.open(path) as store:
        await store.append("model/n/m", [event()], ANY)
        print("appended", flush=True)
        if sys.stdin.readline() == "die\\n":
            os.kill(os.getpid(), 9)
asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "herd.db"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "copy").mkdir()
    return tmp_path / "copy" / "herd.db"


async def append(path: Path, events: int) -> None:
    async with await SQLiteEventStore.open(path) as store:
        for _ in range(events):
            await store.append(STREAM, [event()], ANY)


async def copy_in_use(path: Path, copy: Path, *, before: int, lost: int) -> None:
    await append(path, before)
    async with await SQLiteEventStore.open(path) as store:
        for _ in range(lost):
            await store.append(STREAM, [event()], ANY)
        shutil.copy(path, copy)


async def missing(path: Path) -> str:
    """Return what open, verify and doctor report; all report the same."""
    condition = examine(path)
    assert condition is not None
    async with await SQLiteEventStore.open(path) as store:
        found = (await verify(store)).findings
        assert "".join(each.message for each in found) == store.missing
        assert condition.missing == store.missing
        return store.missing


def start(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", APPEND, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "appended\n"
    return process


async def test_copy_without_wal_is_reported_until_accepted(
    path: Path, copy: Path
) -> None:
    await copy_in_use(path, copy, before=3, lost=4)
    message = (
        "the file was copied while the log was in use, without its -wal: "
        "any events after #3 are missing"
    )
    assert await missing(copy) == message
    await append(copy, 2)  # it continues, and the evidence of the loss stays
    assert await missing(copy) == message
    process = start(copy)
    process.communicate("die\n", timeout=30)
    assert await missing(copy) == message
    assert KeptHead(copy).read() is None

    async with await SQLiteEventStore.open(copy, accept_loss=True) as store:
        assert not store.missing
    assert await missing(copy) == ""
    assert await missing(path) == ""


async def test_copy_of_a_new_log_is_reported(path: Path, copy: Path) -> None:
    async with await SQLiteEventStore.open(path) as store:
        for _ in range(2):
            await store.append(STREAM, [event()], ANY)
        shutil.copy(path, copy)
    assert "its events are missing" in await missing(copy)


async def test_copy_that_cannot_be_written_is_reported(path: Path, copy: Path) -> None:
    await copy_in_use(path, copy, before=1, lost=1)
    before = copy.read_bytes()
    opening = SQLiteEventStore.open(copy, access=Access.IMMUTABLE)
    async with await opening as store:
        assert "any events after #1" in store.missing
    assert copy.read_bytes() == before


async def test_copy_of_a_closed_log_is_complete(path: Path, copy: Path) -> None:
    await append(path, 2)
    shutil.copy(path, copy)
    assert await missing(copy) == ""


async def test_copy_of_an_idle_log_is_complete(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_head, "KEEP_EVERY_S", 0.01)
    monkeypatch.setattr(kept_head, "IDLE_S", 0.01)
    async with await SQLiteEventStore.open(path) as store:
        await store.append(STREAM, [event()], ANY)
        async with asyncio.timeout(10):
            while "in use" in names(path):
                await asyncio.sleep(0.01)
        shutil.copy(path, copy)
        monkeypatch.setattr(kept_head, "IDLE_S", 60)
        await store.append(STREAM, [event()], ANY)
        assert "in use" in names(path)
    assert await missing(copy) == ""


def names(path: Path) -> list[str]:
    """Return the names of the views in the main file alone."""
    uri = f"{path.as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as file:
        return [name for (name,) in file.execute("SELECT name FROM views")]


async def test_complete_copies_have_no_mark(path: Path, copy: Path) -> None:
    async with await SQLiteEventStore.open(path) as store:
        await store.append(STREAM, [event()], ANY)
        copy_online(path, copy)
        other = copy.with_name("other.db")
        shutil.copy(f"{path}-wal", f"{other}-wal")
        shutil.copy(path, other)
    assert await missing(copy) == ""
    assert await missing(other) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/locks")
async def test_last_process_removes_the_mark(path: Path) -> None:
    process = start(path)
    await append(path, 1)
    assert "in use" in names(path)
    process.communicate("end\n", timeout=30)
    assert process.returncode == 0
    assert names(path) == []


async def test_mark_of_a_killed_process_is_removed(path: Path, copy: Path) -> None:
    process = start(path)
    process.communicate("die\n", timeout=30)
    assert process.returncode == -9
    assert await missing(path) == ""
    shutil.copy(path, copy)
    assert await missing(copy) == ""


async def test_processes_that_close_at_once_leave_no_mark(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        use_mark,
        "is_in_use",
        lambda log, *, by_others=False: by_others or is_in_use(log),
    )
    await append(path, 1)
    assert names(path) == []
    assert not os.path.lexists(f"{path}-wal")
