"""Files damaged on purpose: whatever reads fine is the truth, or verify says not.

A copy of a log has bytes flipped or an end cut off, in the file or in its
write-ahead log. Opening, reading and verifying it then ends, with an error of ours
or with findings; never does it quietly give other events than were recorded.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from random import Random

import pytest

from herdbook.core import ModelManager
from herdbook.events.errors import StoreError
from herdbook.events.recorded import RecordedEvent
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY, StoredView
from herdbook.events.testing.base import event, log_of
from herdbook.events.verify import verify

SEEDS = int(os.environ.get("HERDBOOK_SEEDS", "25"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RecordedEvent]]:
    """A log with a write-ahead log that is not yet in the file, as a kill leaves it."""
    path = tmp_path_factory.mktemp("whole") / "herd.db"
    left = path.with_name("left") / "herd.db"
    left.parent.mkdir()

    async def make() -> list[RecordedEvent]:
        async with await SQLiteEventStore.open(path) as store:
            for n in range(40):
                new = [event("x" * (n * 7 % 300)) for _ in range(5)]
                await store.append(f"model/n/m{n % 7}:latest", new, ANY)
        async with await SQLiteEventStore.open(path) as store:
            for n in range(20):
                await store.append(f"model/n/m{n % 7}:latest", [event("y" * 50)], ANY)
            view = StoredView(
                name="status", version=1, position=3, hash="a" * 64, data=b"{"
            )
            await store.save_view(view)
            for file in path.parent.glob("herd.db*"):
                shutil.copy(file, left.parent)
            return await log_of(store)

    log = asyncio.run(make())
    assert left.with_name("herd.db-wal").stat().st_size > 0
    return left, log


def copy_of(whole: Path, folder: Path) -> Path:
    """Copy a log; its index of the write-ahead log is made anew from that."""
    for file in whole.parent.glob("herd.db*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, folder)
    return folder / whole.name


def flip(file: Path, chance: Random) -> None:
    """Change a few bytes, anywhere."""
    data = bytearray(file.read_bytes())
    for _ in range(chance.choice([1, 1, 1, 2, 16])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def cut(file: Path, chance: Random) -> None:
    """Cut the end off, anywhere."""
    os.truncate(file, chance.randrange(file.stat().st_size))


def overwrite(file: Path, chance: Random) -> None:
    """Put a page of something else in the place of one."""
    pages = file.stat().st_size // 4096
    with file.open("r+b") as raw:
        raw.seek(4096 * chance.randrange(max(pages, 1)))
        raw.write(chance.choice([bytes(4096), chance.randbytes(4096)]))


async def read(path: Path) -> tuple[list[RecordedEvent], bool]:
    """Return what can be read, and whether everything said that all is well."""
    try:
        async with await SQLiteEventStore.open(path) as store:
            sound = not (await verify(store)).findings
            try:
                return await log_of(store), sound
            except StoreError:
                assert not sound, "cannot be read, and verify does not say so"
                return [], False
    except StoreError:
        return [], False


@pytest.mark.parametrize("name", ["herd.db", "herd.db-wal"])
@pytest.mark.parametrize("damage", [flip, cut, overwrite])
def test_damage_is_found_or_does_none(
    whole: tuple[Path, list[RecordedEvent]],
    name: str,
    damage: object,
    tmp_path: Path,
) -> None:
    original, log = whole
    assert callable(damage)
    for seed in range(SEEDS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = copy_of(original, folder)
        damage(folder / name, Random(seed))
        found, sound = asyncio.run(read(path))
        if sound:
            assert found == log[: len(found)], f"seed {seed} gives other events"
            # A write-ahead log that is cut or torn ends where its last whole commit
            # does: that is what SQLite promises, and only an anchor tells more.
            assert name == "herd.db-wal" or found == log, f"seed {seed}"


async def told_by_manager(path: Path) -> tuple[list[int], bool] | None:
    """Return the history that a manager tells, and whether it finds all well."""
    try:
        async with ModelManager.open(path, node="n", refresh=False) as manager:
            sound = not (await manager.verify()).findings
            history = [entry.position for entry in await manager.history()]
            await manager.configure("plain:latest", {"num_ctx": 512})
            return history, sound
    except StoreError:
        return None


@pytest.mark.parametrize("name", ["herd.db", "herd.db-wal"])
def test_manager_of_a_damaged_log_tells_the_truth_or_nothing(
    whole: tuple[Path, list[RecordedEvent]], name: str, tmp_path: Path
) -> None:
    positions = [event.position for event in whole[1]]
    answered = 0
    for seed in range(SEEDS // 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = copy_of(whole[0], folder)
        flip(folder / name, Random(seed))
        answer = asyncio.run(told_by_manager(path))
        if answer is not None and answer[1]:
            assert answer[0] == positions[: len(answer[0])], f"seed {seed}"
            answered += 1
    # In the write-ahead log, only what hits the last commit looks like a crash.
    is_proof = answered or name == "herd.db-wal"
    assert is_proof, "every flip was refused: nothing was proved"
