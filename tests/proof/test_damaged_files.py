"""Damaged files: what can be read is true, or verification reports it.

A copy of a log has bytes flipped or its end cut off, in the file or in its write-ahead
log. Opening, reading and verifying it must end with one of Herdbook's errors or with
findings, and must never give other events than were recorded.
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

pytestmark = pytest.mark.timeout(60 + SEEDS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RecordedEvent]]:
    """A log with events that are only in the write-ahead log, as after a kill."""
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
    """Copy a log; the index of its write-ahead log is created again."""
    for file in whole.parent.glob("herd.db*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, folder)
    return folder / whole.name


def flip(file: Path, chance: Random) -> None:
    """Change a few bytes at random places."""
    data = bytearray(file.read_bytes())
    for _ in range(chance.choice([1, 1, 1, 2, 16])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def cut(file: Path, chance: Random) -> None:
    """Cut the end off at a random place."""
    os.truncate(file, chance.randrange(file.stat().st_size))


def overwrite(file: Path, chance: Random) -> None:
    """Replace a page by another one."""
    pages = file.stat().st_size // 4096
    with file.open("r+b") as raw:
        raw.seek(4096 * chance.randrange(max(pages, 1)))
        raw.write(chance.choice([bytes(4096), chance.randbytes(4096)]))


async def read(path: Path) -> tuple[list[RecordedEvent], bool]:
    """Return the events that can be read, and whether no error was reported."""
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
def test_damage_is_detected_or_harmless(
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
            # A write-ahead log that is cut or torn ends at its last complete
            # commit: SQLite guarantees that, and only an anchor detects it.
            assert name == "herd.db-wal" or found == log, f"seed {seed}"


async def history_of_manager(path: Path) -> tuple[list[int], bool] | None:
    """Return the history that a manager reports, and whether it reports no error."""
    try:
        async with ModelManager.open(path, node="n", refresh=False) as manager:
            sound = not (await manager.verify()).findings
            history = [entry.position for entry in await manager.history()]
            await manager.configure("plain:latest", {"num_ctx": 512})
            return history, sound
    except StoreError:
        return None


@pytest.mark.parametrize("name", ["herd.db", "herd.db-wal"])
def test_manager_of_a_damaged_log_reports_true_history_or_an_error(
    whole: tuple[Path, list[RecordedEvent]], name: str, tmp_path: Path
) -> None:
    positions = [event.position for event in whole[1]]
    answered = 0
    for seed in range(SEEDS // 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = copy_of(whole[0], folder)
        flip(folder / name, Random(seed))
        answer = asyncio.run(history_of_manager(path))
        if answer is not None and answer[1]:
            assert answer[0] == positions[: len(answer[0])], f"seed {seed}"
            answered += 1
    # In the write-ahead log, only damage to the last commit looks like a crash.
    is_proof = answered or name == "herd.db-wal"
    assert is_proof, "every flip was refused: nothing was proved"
