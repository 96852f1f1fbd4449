"""Kill a command at each of its steps, and check the files that it leaves.

A step is a statement of SQL or a change of a file: before and after each, the process
is killed once. The check reads the files with ``sqlite3`` and hashes the events itself,
so that it shares no code with Herdbook.

Run it as a program: ``step_program.py OPERATION FOLDER STRIDE``. It prints the number
of kills as its last line, and ends with an error at the first wrong file. The
processes are forks of one that has imported everything, so that a kill takes little
time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from herdbook.cli import run
from herdbook.cli.commands import register_all
from herdbook.core import ManagerSettings, ModelManager
from herdbook.events.sqlite import session
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY
from herdbook.events.testing.base import event

COLUMNS = [
    *("actor", "causation_id", "cause", "correlation_id", "data", "event_id"),
    *("occurred_at", "position", "recorded_at", "schema", "stream", "type", "version"),
]
OLD = Path(__file__).parents[1] / "fixtures" / "schema-1.db"
FILE_CALLS = ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir", "link")
LONGEST = 2_000
"""Steps after which an operation counts as endless."""


class Steps:
    """Counts steps, and kills the process at one of them."""

    def __init__(self, last: int) -> None:
        self._left = last

    def take(self) -> None:
        """Count a step."""
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Count every statement and every change of a file, before and after it."""
        execute = session.Session.execute

        async def counted(self_: Any, sql: str, /, **values: object) -> Any:
            self.take()
            found = await execute(self_, sql, **values)
            self.take()
            return found

        session.Session.execute = counted  # type: ignore[method-assign]
        for name in FILE_CALLS:
            setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            self.take()
            found = call(*given, **named)
            self.take()
            return found

        return counted


def history(path: Path) -> list[str]:
    """Return the hashes of a log after checking each; [] if there is no log."""
    if not path.exists() or not path.stat().st_size:
        return []
    found: list[str] = []
    with closing(sqlite3.connect(path)) as log:
        assert log.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not log.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
            return []
        query = f"SELECT {', '.join(COLUMNS)}, hash FROM events ORDER BY position"
        for *values, stored in log.execute(query):
            fields = dict(zip(COLUMNS, values, strict=True))
            parts = [
                f'"{key}":'
                + (value if key == "data" else json.dumps(value, ensure_ascii=False))
                for key, value in fields.items()
            ]
            text = (found[-1] if found else "0" * 64) + "{" + ",".join(parts) + "}"
            found.append(hashlib.sha256(text.encode()).hexdigest())
            assert stored == found[-1], f"the chain breaks at #{len(found)}"
            assert fields["position"] == len(found)
        head = log.execute("SELECT position, hash FROM head").fetchone()
        assert head == (len(found), found[-1] if found else "0" * 64) or not found
    return found


class Case(NamedTuple):
    """An operation that is killed.

    Attributes:
        prepare: Makes the files that it needs; returns what the check needs.
        act: The operation; what it writes to its argument was acknowledged.
        check: Checks the files afterwards, by what was prepared and acknowledged.
    """

    prepare: Callable[[Path], Any]
    act: Callable[[Path, Callable[[str], None]], None]
    check: Callable[[Path, Any, list[str]], None]


def recorded(path: Path, count: int) -> list[str]:
    """Make a log with some events; return its history."""

    async def make() -> None:
        async with await SQLiteEventStore.open(path) as store:
            for number in range(count):
                stream = f"model/n/m{number % 3}:latest"
                await store.append(stream, [event(f"note {number}")], ANY)

    asyncio.run(make())
    return history(path)


def append(folder: Path, acknowledge: Callable[[str], None]) -> None:
    """Append one after another, and several at once, which are one commit."""

    async def act() -> None:
        async with await SQLiteEventStore.open(folder / "herd.db") as store:

            async def one(stream: str) -> None:
                for each in await store.append(stream, [event(), event()], ANY):
                    acknowledge(each.hash)

            for number in range(3):
                await one(f"model/n/{number}:latest")
            await asyncio.gather(*(one(f"model/n/{n}:latest") for n in range(5)))

    asyncio.run(act())


def holds(folder: Path, before: list[str], acknowledged: list[str]) -> None:
    """Check that the log has what was there before, and what was acknowledged."""
    found = history(folder / "herd.db")
    assert found[: len(before)] == before
    assert set(acknowledged) <= set(found)


def save_snapshots(folder: Path, acknowledge: Callable[[str], None]) -> None:
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
            acknowledge((await manager.head()).hash)

    asyncio.run(act())


def migrate(folder: Path, acknowledge: Callable[[str], None]) -> None:
    """Open a log of the first schema."""

    async def act() -> None:
        async with await SQLiteEventStore.open(folder / "herd.db") as store:
            acknowledge((await store.head()).hash)

    asyncio.run(act())


def command(*words: str) -> Callable[[Path, Callable[[str], None]], None]:
    """Return what runs a command in the folder, and acknowledges its success."""

    def act(folder: Path, acknowledge: Callable[[str], None]) -> None:
        os.chdir(folder)
        if run(["--db", "herd.db", *words]) == 0:
            acknowledge("done")

    return act


def old_log(folder: Path) -> list[str]:
    shutil.copy(OLD, folder / "herd.db")
    return history(folder / "herd.db")


def one_log(folder: Path) -> list[str]:
    return recorded(folder / "herd.db", 6)


def log_and_backup(folder: Path) -> tuple[list[str], list[str]]:
    """Make a log, and a backup with another history."""
    other = recorded(folder / "copy.db", 4)
    return recorded(folder / "herd.db", 6), other


def log_and_export(folder: Path) -> list[str]:
    """Make an export of a log, and a log that has the first events of it."""
    before = recorded(folder / "herd.db", 8)
    (folder / "other").mkdir()
    command("export", "other/all.jsonl")(folder, lambda _: None)
    for file in folder.glob("herd.db*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    return before


def is_backed_up(folder: Path, before: list[str], acknowledged: list[str]) -> None:
    """Check that the log is whole, and the copy is whole or does not exist."""
    assert history(folder / "herd.db") == before
    copy = folder / "copy.db"
    assert history(copy) == before if copy.exists() else not acknowledged


def is_restored(
    folder: Path, before: tuple[list[str], list[str]], acknowledged: list[str]
) -> None:
    """Check that the log is the old or the new one, and that no events are lost."""
    own, other = before
    assert history(folder / "copy.db") == other
    found = history(folder / "herd.db")
    kept = [path for path in folder.rglob("herd.db") if path.parent != folder]
    assert not acknowledged or found == other
    assert found in (own, other, [])
    if found != own:
        assert own in [history(path) for path in kept], "the old log is lost"


def is_exported(folder: Path, before: list[str], acknowledged: list[str]) -> None:
    """Check that the log is whole, and the export is whole or does not exist."""
    assert history(folder / "herd.db") == before
    file = folder / "all.jsonl"
    if file.exists():
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        hashes = [line["chainhash"] for line in lines if "chainhash" in line]
        assert hashes == before
    else:
        assert not acknowledged


def is_imported(folder: Path, whole: list[str], acknowledged: list[str]) -> None:
    """Check that the log has the first events of the export, and can be completed."""
    found = history(folder / "herd.db")
    assert found == whole[: len(found)]
    assert not acknowledged or found == whole
    if not acknowledged:
        command("import", "other/all.jsonl")(folder, lambda _: None)
        assert history(folder / "herd.db") == whole


CASES = {
    "append": Case(one_log, append, holds),
    "first append": Case(lambda _: [], append, holds),
    "migration": Case(old_log, migrate, holds),
    "snapshot": Case(one_log, save_snapshots, holds),
    "backup": Case(one_log, command("backup", "copy.db"), is_backed_up),
    "restore": Case(
        log_and_backup, command("restore", "copy.db", "--replace"), is_restored
    ),
    "export": Case(one_log, command("export", "all.jsonl"), is_exported),
    "import": Case(log_and_export, command("import", "other/all.jsonl"), is_imported),
}


def in_fork(work: Callable[[], None]) -> int:
    """Run something in a fork; return its wait status."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(child, 0)[1]


def kill_at(case: Case, folder: Path, step: int) -> bool:
    """Kill an operation at a step, and check; return whether it came that far."""
    folder.mkdir()
    prepared, read = folder / "prepared.json", folder / "acknowledged"
    assert in_fork(lambda: _prepare(case, folder, prepared)) == 0, "cannot be prepared"
    status = in_fork(lambda: _act(case, folder / "work", read, step))
    assert status == 0 or os.WIFSIGNALED(status), f"step {step}: the operation failed"
    checked = in_fork(lambda: _check(case, folder / "work", prepared, read))
    assert checked == 0, f"step {step}: {folder} is wrong"
    shutil.rmtree(folder)
    return os.WIFSIGNALED(status)


def _prepare(case: Case, folder: Path, prepared: Path) -> None:
    (folder / "work").mkdir()
    prepared.write_text(json.dumps(case.prepare(folder / "work")))


def _act(case: Case, work: Path, read: Path, step: int) -> None:
    _silence()
    pipe = os.open(read, os.O_CREAT | os.O_WRONLY)
    Steps(step).install()

    def acknowledge(text: str) -> None:
        os.write(pipe, f"{text}\n".encode())

    case.act(work, acknowledge)


def _check(case: Case, work: Path, prepared: Path, read: Path) -> None:
    _silence(errors=False)
    acknowledged = read.read_text().split()
    case.check(work, json.loads(prepared.read_text()), acknowledged)
    if (work / "herd.db").exists() and (work / "herd.db").stat().st_size:
        os.chdir(work)
        assert run(["--db", "herd.db", "verify"]) == 0, "verify has findings"


def _silence(*, errors: bool = True) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    if errors:
        os.dup2(null, 2)


def main(name: str, folder: str, stride: int) -> None:
    """Kill an operation at every ``stride``-th step until it ends by itself."""
    register_all()
    kills = 0
    for step in range(1, LONGEST, stride):
        if not kill_at(CASES[name], Path(folder) / str(step), step):
            break
        kills += 1
    else:
        raise AssertionError(f"{name} has more than {LONGEST} steps")
    sys.stdout.write(f"{kills}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
