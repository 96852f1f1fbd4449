"""The operations that faults hit: what each needs, does, and may leave behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from campaign.faults.archives import archive, is_archived, log_to_archive
from campaign.faults.journal import Journal
from campaign.faults.truth import InventedError, LostError, Row, check, history

from herdbook.cli import run
from herdbook.core import ManagerSettings, ModelManager
from herdbook.events.recorded import NewEvent
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY
from herdbook.events.testing.base import event

OLD = Path(__file__).parents[2] / "fixtures" / "schema-1.db"


class Operation(NamedTuple):
    """An operation, the files that it needs, and the check of those that it leaves.

    Attributes:
        prepare: Makes the files in a folder; returns what the check needs.
        act: The operation in that folder.
        check: Checks the files by what was prepared, submitted and acknowledged.
        cost: How much longer it is than most: see ``FaultClass``.
        stride: 2 hits every second of its calls to the disk, 3 every third; all
            steps are hit.
    """

    prepare: Callable[[Path], Any]
    act: Callable[[Path, Journal], None]
    check: Callable[[Path, Any, set[str], set[str]], None]
    cost: int = 1
    stride: int = 1


def recorded(path: Path, count: int) -> list[Row]:
    """Make a log with some events; return its history."""

    async def make() -> None:
        async with await SQLiteEventStore.open(path) as store:
            for number in range(count):
                stream = f"model/n/m{number % 3}:latest"
                await store.append(stream, [event(f"note {number}")], ANY)

    asyncio.run(make())
    return history(path)


async def append_to(
    store: SQLiteEventStore, stream: str, new: list[NewEvent], journal: Journal
) -> None:
    """Append events, and write into the journal before and after."""
    for each in new:
        journal.submit(each.event_id)
    for done in await store.append(stream, new, ANY):
        journal.acknowledge(done.event_id)


def append(folder: Path, journal: Journal) -> None:
    """Append one after another; each is a commit."""

    async def act() -> None:
        async with await SQLiteEventStore.open(folder / "herd.db") as store:
            for n in range(4):
                new = [event(), event()]
                await append_to(store, f"model/n/{n}:latest", new, journal)

    asyncio.run(act())


def append_together(folder: Path, journal: Journal) -> None:
    """Append from several tasks at once, which is one commit, and again."""

    async def act() -> None:
        async with await SQLiteEventStore.open(folder / "herd.db") as store:
            for _ in range(2):
                async with asyncio.TaskGroup() as group:
                    for n in range(5):
                        new = [event(), event()]
                        group.create_task(
                            append_to(store, f"model/n/{n}:latest", new, journal)
                        )

    asyncio.run(act())


def save_snapshots(folder: Path, journal: Journal) -> None:
    """Change a setting, and save snapshots of all views at the end."""

    async def act() -> None:
        opened = ModelManager.open(
            folder / "herd.db",
            node="n",
            refresh=False,
            settings=ManagerSettings(snapshot_every=1),
        )
        async with opened as manager:
            await manager.configure("m0", num_ctx=4096)
            journal.acknowledge("done")

    asyncio.run(act())


def migrate(folder: Path, journal: Journal) -> None:
    """Open a log of the first schema."""

    async def act() -> None:
        async with await SQLiteEventStore.open(folder / "herd.db"):
            pass

    asyncio.run(act())


def command(*words: str) -> Callable[[Path, Journal], None]:
    """Return what runs a command in the folder, and acknowledges its success."""

    def act(folder: Path, journal: Journal) -> None:
        os.chdir(folder)
        if run(["--db", "herd.db", *words]) == 0:
            journal.acknowledge("done")

    return act


def old_log(folder: Path) -> list[Row]:
    shutil.copy(OLD, folder / "herd.db")
    return history(folder / "herd.db")


def one_log(folder: Path) -> list[Row]:
    return recorded(folder / "herd.db", 6)


def log_and_backup(folder: Path) -> tuple[list[Row], list[Row]]:
    """Make a log, and a backup with another history."""
    other = recorded(folder / "copy.db", 4)
    return recorded(folder / "herd.db", 6), other


def log_and_export(folder: Path) -> list[Row]:
    """Make an export of a log, and remove the log."""
    before = recorded(folder / "herd.db", 8)
    (folder / "other").mkdir()
    words = ["export", f"{folder}/other/all.jsonl"]
    assert run(["--db", f"{folder}/herd.db", *words]) == 0
    for file in folder.glob("herd.db*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    return before


def holds(
    folder: Path, before: list[Row], submitted: set[str], acknowledged: set[str]
) -> None:
    """Check that the log has what was there before, and what was acknowledged."""
    check(history(folder / "herd.db"), before, submitted, acknowledged)


def is_configured(
    folder: Path, before: list[Row], _: set[str], acknowledged: set[str]
) -> None:
    """Check that the log has one more event at most, and has it if acknowledged."""
    found = history(folder / "herd.db")
    new = found[len(before) :]
    check(found, before, {row.event_id for row in new[:1]}, set())
    if acknowledged and not new:
        raise LostError("the setting is missing")


def is_backed_up(
    folder: Path, before: list[Row], _: set[str], acknowledged: set[str]
) -> None:
    """Check that the log is whole, and the copy is whole or does not exist."""
    check(history(folder / "herd.db"), before, set(), set())
    copy = folder / "copy.db"
    if copy.exists():
        check(history(copy), before, set(), set())
    elif acknowledged:
        raise LostError("the backup is missing")


def is_restored(
    folder: Path, before: tuple[list[Row], list[Row]], _: set[str], done: set[str]
) -> None:
    """Check that the log is the old or the new one, and that no events are lost."""
    own, other = before
    check(history(folder / "copy.db"), other, set(), set())
    found = history(folder / "herd.db")
    kept = [path for path in folder.rglob("herd.db") if path.parent != folder]
    if found not in ([other] if done else [own, other, []]):
        raise LostError("the log is neither the old nor the new one")
    if found != own and own not in [history(path) for path in kept]:
        raise LostError("the old log is lost")


def is_exported(
    folder: Path, before: list[Row], _: set[str], acknowledged: set[str]
) -> None:
    """Check that the log is whole, and the export is whole or does not exist."""
    check(history(folder / "herd.db"), before, set(), set())
    file = folder / "all.jsonl"
    if file.exists():
        if exported_hashes(file) != [row.hash for row in before]:
            raise LostError("the export is incomplete")
    elif acknowledged:
        raise LostError("the export is missing")


def is_imported(
    folder: Path, whole: list[Row], _: set[str], acknowledged: set[str]
) -> None:
    """Check that the log has the first events of the export, and can be completed."""
    found = history(folder / "herd.db")
    if found != whole[: len(found)]:
        raise InventedError("the import has other events")
    if acknowledged and found != whole:
        raise LostError("the import is incomplete")
    if not acknowledged:
        os.chdir(folder)
        code = run(["--db", "herd.db", "import", "other/all.jsonl"])
        if code or history(folder / "herd.db") != whole:
            raise LostError("the import cannot be completed")


def exported_hashes(file: Path) -> list[str]:
    """Return the hashes of the events in an export."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line["chainhash"] for line in lines if "chainhash" in line]


OPERATIONS = {
    "append": Operation(one_log, append, holds),
    "group commit": Operation(one_log, append_together, holds),
    "first append": Operation(lambda _: [], append, holds),
    "migration": Operation(old_log, migrate, holds),
    "snapshot": Operation(one_log, save_snapshots, is_configured),
    "backup": Operation(one_log, command("backup", "copy.db"), is_backed_up),
    "restore": Operation(
        log_and_backup, command("restore", "copy.db", "--replace"), is_restored
    ),
    "export": Operation(one_log, command("export", "all.jsonl"), is_exported),
    "import": Operation(
        log_and_export, command("import", "other/all.jsonl"), is_imported
    ),
    "archive": Operation(log_to_archive, archive, is_archived, cost=20, stride=3),
}
