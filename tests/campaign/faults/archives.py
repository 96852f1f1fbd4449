"""Archives: a log that is moved to one by a command, and files that are damaged."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

from campaign.faults.damage import damage
from campaign.faults.journal import Journal
from campaign.faults.truth import (
    InventedError,
    LostError,
    Row,
    SilentError,
    archived,
    check,
    history,
    readable,
)

from herdbook.cli import run
from herdbook.core.archives import archiving
from herdbook.events.errors import StoreError
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY
from herdbook.events.testing.base import event

BLOCK = 1024
FILE = f"herd-archive-1-{BLOCK}.jsonl.gz"
WORDS = ("archive", "--before", f"#{BLOCK + 10}")


def log_to_archive(folder: Path) -> list[Row]:
    """Make a log with a few events more than an archive needs; return its history."""

    async def make() -> None:
        async with await SQLiteEventStore.open(folder / "herd.db") as store:
            for number in range(44):
                new = [event(f"note {number}") for _ in range(24)]
                await store.append(f"model/n/m{number % 3}:latest", new, ANY)

    asyncio.run(make())
    return history(folder / "herd.db")


def archived_log(folder: Path) -> list[Row]:
    """Make a log with an archive; return its history.

    They are moved, because an undamaged file in the place where it was made is used.
    """
    made = folder / "made"
    made.mkdir()
    log_to_archive(made)
    assert run(["--db", f"{made}/herd.db", *WORDS]) == 0
    for file in made.iterdir():
        file.rename(folder / file.name)
    made.rmdir()
    return history(folder / "herd.db")


def archive(folder: Path, journal: Journal) -> None:
    """Archive the old events, and delete them in several transactions."""
    archiving.AT_ONCE = 400
    os.chdir(folder)
    if run(["--db", "herd.db", *WORDS]) == 0:
        journal.acknowledge("done")


def is_archived(
    folder: Path, before: list[Row], _: set[str], acknowledged: set[str]
) -> None:
    """Check that no event is lost, and that the next run completes the archive."""
    _check(folder, before)
    if not acknowledged:
        os.chdir(folder)
        if run(["--db", "herd.db", *WORDS]):
            raise LostError("the archive cannot be completed")
        _check(folder, before)
    with closing(sqlite3.connect(folder / "herd.db")) as log:
        first = log.execute("SELECT min(position) FROM events").fetchone()[0]
    if first != BLOCK + 1:
        raise LostError("archived events are still in the log")
    if list(folder.glob("herd-archive-*")) != [folder / FILE]:
        raise InventedError("another archive was left behind")


def _check(folder: Path, before: list[Row]) -> None:
    """Check log and archive: the events from before, and one for each archive."""
    found = history(folder / "herd.db")
    new = {row.event_id for row in found[len(before) :]}
    with closing(sqlite3.connect(folder / "herd.db")) as log:
        kinds = log.execute("SELECT type FROM events WHERE position > ?", [len(before)])
        if kinds.fetchall() not in ([], [("LogArchived",)]):
            raise InventedError("other events than that of the archive")
        archives = log.execute("SELECT count(*) FROM archives").fetchone()[0]
    check(found, before, new, set())
    if len(new) != archives:
        raise InventedError("the archive and its event are not recorded together")


def damaged_archive(
    how: str, work: Path, whole: list[Row], number: int, chance: Random
) -> int:
    """Damage the file of an archive, and check what Herdbook says about it."""
    file, log = work / FILE, work / "herd.db"
    original = file.read_bytes()
    if not damage(file, how, number, chance):
        return 0
    found = asyncio.run(_read(log))
    if found != whole[: len(found)]:
        raise InventedError("a damaged archive gives other events")
    if not run(["--db", str(log), "verify"]) and not _is_same(file, original):
        raise SilentError("verify does not report a damaged archive")
    if run(["--db", str(log), "use", "m0"]) not in {0, 1, 3}:
        raise LostError("a damaged archive prevents commands")
    if [row for row in readable(log) if row not in whole][1:]:
        raise InventedError("events that nobody recorded")
    if _is_same(file, original) and archived(file) != whole[:BLOCK]:
        raise LostError("the oracle cannot read the archive")
    return 1


def _is_same(file: Path, original: bytes) -> bool:
    return file.read_bytes() == original


async def _read(log: Path) -> list[Row]:
    """Return the events before the first error."""
    found = []
    async with await SQLiteEventStore.open(log) as store:
        try:
            async for each in store.read_all():
                row = Row(each.event_id, each.hash)
                found.append(row)
        except StoreError as error:
            if not error.remedy:
                raise SilentError(f"no remedy: {error}") from error
    return found
