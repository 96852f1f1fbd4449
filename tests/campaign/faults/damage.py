"""Damage to files: flipped bits and missing ends, at every page and at random."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import Any

from campaign.faults.anchors import are_true
from campaign.faults.truth import (
    InventedError,
    LostError,
    Row,
    SilentError,
    history,
    readable,
    settings_at,
)

from herdbook.cli import run
from herdbook.core import ManagerSettings, ModelManager
from herdbook.core.proof.keys import new_key
from herdbook.events.errors import StoreError
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY
from herdbook.events.testing.base import event
from herdbook.events.verify import verify

PAGE = 4096
IN_FILE = 91
"""Events that are in the file of the log; later ones are in its write-ahead log."""

PAST = (40, IN_FILE)
"""Positions of which questions about the past are asked."""

FILES = {
    "the log": "herd.db",
    "the write-ahead log": "herd.db-wal",
    "the saved head": "herd.db-head",
    "a backup": "copy.db",
    "an export": "all.jsonl",
    "a file of anchors": "anchors",
    "a private key": "key",
    "a public key": "key.pub",
    "a snapshot": "snapshot",
}


def prepare(folder: Path) -> list[Row]:
    """Make a log as a kill leaves it, and each other file; return its history."""
    made = folder / "made"
    made.mkdir()
    log = made / "herd.db"

    async def make() -> None:
        settings = ManagerSettings(snapshot_every=1)
        async with await SQLiteEventStore.open(log) as store:
            for n in range(30):
                new = [event("x" * (n * 7 % 300)) for _ in range(3)]
                await store.append(f"model/n/m{n % 7}:latest", new, ANY)
        async with ModelManager.open(
            log, node="n", refresh=False, settings=settings
        ) as manager:
            await manager.configure("m0", num_ctx=4096)
        async with await SQLiteEventStore.open(log) as store:
            for n in range(20):
                await store.append(f"model/n/m{n % 7}:latest", [event("y" * 50)], ANY)
            await asyncio.sleep(0)
            for name in ("herd.db", "herd.db-wal", "herd.db-head"):
                shutil.copy(made / name, folder)

    asyncio.run(make())
    new_key(folder / "key", "test")
    for words in (
        ["backup", f"{folder}/copy.db"],
        ["export", f"{folder}/all.jsonl"],
        *[["anchor", "--key", f"{folder}/key", "--append", f"{folder}/anchors"]] * 2,
    ):
        assert run(["--db", str(log), *words]) == 0, words
    shutil.copy(folder / "key.pub", folder / "kept.pub")
    whole = history(log)
    shutil.rmtree(made)
    return whole


def damage(file: Path, how: str, number: int, chance: Random) -> bool:
    """Damage a file; return whether its content changed.

    The first numbers go through the pages, one after another; then at random.
    """
    original = file.read_bytes()
    data = bytearray(original)
    pages = -(-len(data) // PAGE)
    start = PAGE * number if number < pages else PAGE * chance.randrange(pages)
    at = min(start + chance.randrange(PAGE), len(data) - 1)
    if how == "cut":
        del data[start if number < pages else at :]
    elif number >= pages and number % 8 == 7:  # a page that was lost
        page = chance.choice([bytes(PAGE), chance.randbytes(PAGE)])
        data[start : start + PAGE] = page[: len(data) - start]
    else:
        data[at] ^= 1 << chance.randrange(8)
        for _ in range(chance.choice([0, 0, 1, 15])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)
    return data != original


def damaged_file(
    what: str, how: str, work: Path, whole: list[Row], number: int, chance: Random
) -> int:
    """Damage a file, and check what Herdbook says about it."""
    file = work / FILES[what]
    if what == "a snapshot":
        _damage_snapshot(work / "herd.db", how, number, chance)
    elif not damage(file, how, number, chance):
        return 0
    if what == "a backup":
        _check_backup(work, whole)
    elif what == "an export":
        _check_export(work, whole)
    elif what == "a file of anchors":
        _check_anchors(work, whole)
    elif what in ("a private key", "a public key"):
        _check_key(work, whole)
    elif what == "a snapshot":
        _check_snapshot(work, whole)
    else:
        _check_log(work, whole, what)
    return 1


def _check_log(work: Path, whole: list[Row], what: str) -> None:
    """Check that the log gives true events, and reports what is missing."""
    path = work / "herd.db"
    copy = work / "independent"
    copy.mkdir()
    for file in work.glob("herd.db*"):
        shutil.copy(file, copy)
    before = {file.name: file.read_bytes() for file in work.glob("herd.db*")}
    try:
        found, sound = asyncio.run(_read(path))
    except StoreError as error:
        if not error.remedy:
            raise SilentError(f"no remedy: {error}") from error
        for name, data in before.items():
            if not name.endswith("-shm") and (work / name).read_bytes() != data:
                raise LostError(f"{name} was changed by a refused open") from error
        return
    if sound and found != whole[: len(found)]:
        raise SilentError("other events than were recorded, and verify is silent")
    _check_events(found, readable(copy / "herd.db"), whole)
    # A write-ahead log that is cut, or whose last commit is damaged, looks like a
    # crash: only the saved head or an anchor detects it.
    needed = IN_FILE if what == "the write-ahead log" else len(whole)
    if sound and len(found) < needed:
        raise SilentError(f"{needed - len(found)} events are missing")


def _check_events(found: list[Row], independent: list[Row], whole: list[Row]) -> None:
    """Check that all events before the damage are there, unchanged."""
    pairs = zip(independent, whole, strict=False)
    true = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    if found[:true] != whole[:true]:
        raise LostError(f"not all of {true} events before the damage are read")


async def _read(path: Path) -> tuple[list[Row], bool]:
    """Return the events before the first error, and whether nothing was reported."""
    async with await SQLiteEventStore.open(path) as store:
        sound = not store.missing and not (await verify(store)).findings
        found = []
        try:
            async for each in store.read_all():
                row = Row(each.event_id, each.hash)
                found.append(row)
        except StoreError:
            if sound:
                raise SilentError("cannot be read, and verify is silent") from None
        return found, sound


def _check_backup(work: Path, whole: list[Row]) -> None:
    for file in work.glob("herd.db*"):
        file.unlink()
    copy = work / "copy.db"
    expected = readable(copy)
    code = run(["--db", str(work / "herd.db"), "restore", str(copy)])
    if code:
        if (work / "herd.db").exists():
            raise InventedError("a refused backup was restored")
    elif history(work / "herd.db") != whole or expected != whole:
        raise SilentError("a damaged backup was restored")


def _check_export(work: Path, whole: list[Row]) -> None:
    for file in work.glob("herd.db*"):
        file.unlink()
    code = run(["--db", str(work / "herd.db"), "import", str(work / "all.jsonl")])
    found = history(work / "herd.db")
    if found != whole[: len(found)]:
        raise InventedError("an altered event was imported")
    if not code and found != whole:
        raise SilentError(f"{len(whole) - len(found)} missing events are not reported")


def _check_anchors(work: Path, whole: list[Row]) -> None:
    file, public = work / "anchors", work / "key.pub"
    words = ["verify", "--anchors", str(file), "--key", str(public)]
    code = run(["--db", str(work / "herd.db"), *words])
    try:
        true = are_true(file.read_text(), public.read_text(), whole)
    except UnicodeDecodeError:
        true = False
    if true and code:
        raise LostError("a true anchor is refused")
    if not true and not code:
        raise SilentError("an altered anchor is accepted")


def _check_key(work: Path, whole: list[Row]) -> None:
    """Check that damaged keys are refused, or do what the undamaged ones do."""
    log, key = str(work / "herd.db"), str(work / "key")
    kept = (work / "kept.pub").read_text()
    made = work / "made"
    code = run(["--db", log, "anchor", "--key", key, "--append", str(made)])
    if not code and not are_true(made.read_text(), kept, whole):
        raise SilentError("a damaged key signs")
    words = ["verify", "--anchors", str(work / "anchors"), "--key", f"{key}.pub"]
    if not run(["--db", log, *words]):
        same = (work / "key.pub").read_text().strip() == kept.strip()
        if not same:
            raise SilentError("another public key verifies")


def _damage_snapshot(log: Path, how: str, number: int, chance: Random) -> None:
    with contextlib.closing(sqlite3.connect(log, isolation_level=None)) as file:
        tables = ("views", "kept_views")
        rows = [
            (table, row, data)
            for table in tables
            for row, data in file.execute(f"SELECT rowid, data FROM {table}")
        ]
        table, row, data = rows[number % len(rows)]
        altered = bytearray(data)
        at = chance.randrange(len(altered))
        altered[at] ^= 1 << chance.randrange(8)
        if how == "cut":
            del altered[at:]
        file.execute(
            f"UPDATE {table} SET data = ? WHERE rowid = ?", (bytes(altered), row)
        )


def _check_snapshot(work: Path, whole: list[Row]) -> None:
    """Check that no answer changes, and that those about settings are true."""
    log = work / "herd.db"
    copy = work / "without"
    copy.mkdir()
    for name in ("herd.db", "herd.db-wal", "herd.db-head"):
        if (work / name).exists():
            shutil.copy(work / name, copy)
    with contextlib.closing(sqlite3.connect(copy / "herd.db")) as file, file:
        for table in ("views", "kept_views"):
            file.execute(f"DELETE FROM {table}")
    now, past, usage = asyncio.run(_answers(log))
    if (now, past, usage) != asyncio.run(_answers(copy / "herd.db")):
        raise InventedError("a damaged snapshot changes an answer")
    for statuses, position in zip((now, *past), (len(whole), *PAST), strict=True):
        found = {one.name: (one.version, one.settings) for one in statuses}
        if found != settings_at(log, position):
            raise InventedError(f"the settings at #{position} are not those recorded")
    if history(log)[: len(whole)] != whole:
        raise LostError("a damaged snapshot cost events")


async def _answers(log: Path) -> Any:
    async with ModelManager.open(log, node="n", refresh=False) as manager:
        past = [(await manager.as_of(position)).statuses() for position in PAST]
        return await manager.all_statuses(), past, await manager.usage()
