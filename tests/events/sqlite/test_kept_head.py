"""The saved head: a log that ends before it is reported until that is accepted."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest

from herdbook.events.findings import Kind
from herdbook.events.sqlite import kept_head
from herdbook.events.sqlite.condition import examine
from herdbook.events.sqlite.kept_head import KeptHead
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY, Head
from herdbook.events.testing.base import event, log_of
from herdbook.events.verify import verify

STREAM = "model/n/m"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "herd.db"


async def append(path: Path, events: int) -> Head:
    async with await SQLiteEventStore.open(path) as store:
        for _ in range(events):
            await store.append(STREAM, [event()], ANY)
        return await store.head()


async def findings(path: Path) -> list[str]:
    async with await SQLiteEventStore.open(path) as store:
        found = (await verify(store)).findings
        assert all(each.kind is Kind.FILE for each in found)
        assert store.missing == "".join(each.message for each in found)
    condition = examine(path)
    assert condition is not None
    assert condition.missing == store.missing
    return [each.message for each in found]


async def test_kept_head_is_written_on_close(path: Path) -> None:
    head = await append(path, 3)
    assert KeptHead(path).read() == head
    assert await findings(path) == []


async def test_kept_head_is_written_while_the_log_is_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_head, "KEEP_EVERY_S", 0.01)
    monkeypatch.setattr(kept_head, "IDLE_S", 0.01)
    async with await SQLiteEventStore.open(path) as store:
        for n in (1, 2):
            await store.append(STREAM, [event()], ANY)
            async with asyncio.timeout(10):
                while (KeptHead(path).read() or Head()).position < n:
                    await asyncio.sleep(0.01)


async def test_log_without_its_newest_events_is_reported(
    path: Path, tmp_path: Path
) -> None:
    await append(path, 3)
    old = Path(shutil.copy(path, tmp_path / "old.db"))
    await append(path, 4)
    shutil.copy(old, path)

    (message,) = await findings(path)
    assert "ends at #3, but it had reached #7" in message
    kept = KeptHead(path).read()

    await append(path, 9)  # it continues, and the evidence of the loss stays
    assert KeptHead(path).read() == kept
    (message,) = await findings(path)
    assert "event #7 is not the event that was recorded at this position" in message

    async with await SQLiteEventStore.open(path, accept_loss=True) as store:
        assert not store.missing
        assert (await verify(store)).findings == ()
    assert await findings(path) == []
    await append(path, 1)
    assert (KeptHead(path).read() or Head()).position == 13


async def test_loss_of_all_events_can_be_accepted(path: Path, tmp_path: Path) -> None:
    await append(path, 0)
    empty = Path(shutil.copy(path, tmp_path / "empty.db"))
    await append(path, 2)
    shutil.copy(empty, path)
    assert len(await findings(path)) == 1
    async with await SQLiteEventStore.open(path, accept_loss=True):
        pass
    assert await findings(path) == []
    await append(path, 1)
    assert (KeptHead(path).read() or Head()).position == 1


async def test_cut_write_ahead_log_is_reported(path: Path, tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    async with await SQLiteEventStore.open(path) as store:
        for n in range(6):
            await store.append(STREAM, [event()], ANY)
            if n == 2:
                shutil.copy(f"{path}-wal", left)
        shutil.copy(path, left)
    shutil.copy(KeptHead(path).path, left)
    (message,) = await findings(left / path.name)
    assert "3 recorded events are missing" in message


@pytest.mark.parametrize("text", ["", "x", "1:2\n", f"0:{'a' * 64}\n", "é" * 70])
async def test_damaged_kept_head_is_not_an_error(path: Path, text: str) -> None:
    head = await append(path, 1)
    KeptHead(path).path.write_text(text)
    condition = examine(path)
    assert condition is not None
    assert condition.is_kept_damaged
    assert await findings(path) == []
    assert KeptHead(path).read() == head


async def test_log_of_an_older_version_has_none(path: Path) -> None:
    await append(path, 1)
    KeptHead(path).path.unlink()
    condition = examine(path)
    assert condition is not None
    assert condition.kept is None
    assert not condition.is_kept_damaged
    assert await findings(path) == []


def test_kept_head_never_moves_backwards(path: Path) -> None:
    heads = [Head(n, f"{n:064x}") for n in range(1, 201)]
    seen: list[int] = []

    def keep(some: list[Head]) -> None:
        kept = KeptHead(path)
        for head in some:
            kept.advance(head)
            seen.append((kept.read() or Head()).position - head.position)

    threads = [threading.Thread(target=keep, args=[heads[n::4]]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert KeptHead(path).read() == heads[-1]
    assert min(seen) >= 0
    assert [file.name for file in path.parent.iterdir()] == ["herd.db-head"]


def test_leftover_of_a_killed_writer_is_used_again(path: Path) -> None:
    path.with_name("herd.db-head.new").write_text("half of some")
    KeptHead(path).advance(Head(1, "a" * 64))
    assert KeptHead(path).read() == Head(1, "a" * 64)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directory_that_cannot_be_written_keeps_none(path: Path) -> None:
    path.parent.chmod(0o500)
    KeptHead(path).advance(Head(1, "a" * 64))
    assert KeptHead(path).read() is None
    path.parent.chmod(0o700)


async def test_idle_log_is_moved_into_its_file(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_head, "KEEP_EVERY_S", 0.01)
    monkeypatch.setattr(kept_head, "IDLE_S", 0.01)
    async with await SQLiteEventStore.open(path) as store:
        await store.append(STREAM, [event()], ANY)
        copy = tmp_path / "copy" / "herd.db"
        copy.parent.mkdir()
        async with asyncio.timeout(10):
            while True:
                shutil.copy(path, copy)
                async with await SQLiteEventStore.open(copy) as copied:
                    if await log_of(copied):
                        break
                await asyncio.sleep(0.01)
