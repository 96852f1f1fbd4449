"""Making archives."""

from __future__ import annotations

import gzip
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from support.archives import BEGIN, LENGTH, answers, archive_all, new_event, opened

from herdbook.core import SystemClock
from herdbook.core.archives import archiving
from herdbook.core.archives.signature import check_signatures
from herdbook.core.checks.verification import verify
from herdbook.core.proof import keys
from herdbook.events.archive_file import BLOCK
from herdbook.events.errors import CallerError, CorruptLogError
from herdbook.events.sqlite.schema import APPLICATION_ID, MIGRATIONS


async def test_every_answer_is_the_same_after_archiving(path: Path) -> None:
    async with opened(path) as storage:
        before = await answers(storage)
    size = path.stat().st_size

    first = await archive_all(path, minutes=BLOCK + 100)
    assert (first.first, first.last) == (1, BLOCK)
    elsewhere = first.file.rename(path.with_name("elsewhere"))
    second = await archive_all(path)  # which does not need the first one
    assert (second.first, second.last) == (BLOCK + 1, 2 * BLOCK)
    elsewhere.rename(first.file)

    assert not second.kept_size
    assert path.stat().st_size < size * 0.6
    assert first.size_bytes + second.size_bytes < size / 8
    async with opened(path) as storage:
        assert await answers(storage) == before
        found = await verify(storage)
        assert (found.findings, found.missing) == ((), "")
        assert found.events == LENGTH + 2


async def test_log_in_use_notices_that_events_were_archived(path: Path) -> None:
    async with opened(path) as storage:
        stored = storage.store.read_stored()
        seen = [await anext(stored)]
        version = await storage.store.stream_version("model/local/m1:latest")
        await archive_all(path)
        seen += [event async for event in stored]
        assert [event.position for event in seen] == list(range(1, LENGTH + 2))
        (event,) = await storage.store.append(
            "model/local/m1:latest", [new_event(99_999)], version
        )
        assert event.version == version + 1
        assert (await verify(storage)).findings == ()


async def test_log_of_an_older_schema_is_archived(filled: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(old, isolation_level=None)) as log:
        log.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for migration in MIGRATIONS[:4]:
            for statement in migration:
                log.execute(statement)
        log.execute("ATTACH ? AS filled", [str(filled)])
        log.execute("INSERT INTO events SELECT * FROM filled.events")
        assert log.execute("PRAGMA user_version").fetchone() == (4,)
    async with opened(filled) as storage:
        before = await answers(storage)

    await archive_all(old)

    async with opened(old) as storage:
        assert await answers(storage) == before
        assert (await verify(storage)).findings == ()


async def test_too_few_events_are_not_archived(path: Path) -> None:
    async with opened(path) as storage:
        planned = await archiving.plan(storage, BEGIN + timedelta(minutes=1000), path)
        assert (planned.events, planned.available) == (0, 1000)
    with pytest.raises(CallerError, match="at least 1,024 events"):
        await archive_all(path, minutes=BLOCK - 50)
    assert not list(path.parent.glob("*archive*"))


async def test_last_event_is_never_archived(path: Path) -> None:
    async with opened(path) as storage:
        planned = await archiving.plan(storage, BLOCK * 2 + 1, path)
        assert planned.last == BLOCK * 2
        planned = await archiving.plan(storage, 10**9, path)
        assert planned.last == BLOCK * 2


async def test_another_file_is_never_overwritten(path: Path) -> None:
    taken = path.with_name(f"herd-archive-1-{2 * BLOCK}.jsonl.gz")
    taken.write_text("mine")
    with pytest.raises(CallerError, match="already exists"):
        await archive_all(path)
    assert taken.read_text() == "mine"


async def test_second_process_is_refused_while_one_archives(path: Path) -> None:
    async with opened(path) as first, opened(path) as second:
        await archiving.finish(first)
        with pytest.raises(CallerError, match="archived by another process"):
            await archiving.finish(second)


async def test_damaged_log_is_not_archived(path: Path) -> None:
    with closing(sqlite3.connect(path)) as log, log:
        (trigger,) = log.execute(
            "SELECT sql FROM sqlite_schema WHERE name = 'events_are_not_changed'"
        ).fetchone()
        log.execute("DROP TRIGGER events_are_not_changed")
        log.execute("UPDATE events SET actor = 'nobody' WHERE position = 700")
        log.execute(trigger)
    with pytest.raises(CorruptLogError, match="#700 was changed"):
        await archive_all(path)
    assert not list(path.parent.glob("*archive*"))


async def test_deletion_needs_the_file(path: Path) -> None:
    async with opened(path) as storage:
        store, delete = archiving.archived_store(storage), "delete_archived"
        planned = await archiving.plan(storage, 10**9, path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(store), delete, _interrupted)
            with pytest.raises(InterruptedError):
                await archiving.archive(
                    storage, planned, SystemClock(), node="local", actor="cli:test"
                )
        assert await store.has_archived()
        whole = planned.file.read_bytes()
        planned.file.write_bytes(whole[:-1])
        with pytest.raises(CorruptLogError, match="Nothing was deleted"):
            await archiving.finish(storage)
        planned.file.write_bytes(whole)
        assert await archiving.finish(storage) == 2 * BLOCK
        assert (await verify(storage)).findings == ()


async def _interrupted(*_: object) -> int:
    raise InterruptedError


async def test_archive_is_signed(path: Path, tmp_path: Path) -> None:
    mine = keys.new_key(tmp_path / "key.pem", "alice")
    other = keys.new_key(tmp_path / "other.pem", "eve")
    await archive_all(path, key=tmp_path / "key.pem")

    async with opened(path) as storage:
        assert await check_signatures(storage, [mine, other]) == []
        (finding,) = await check_signatures(storage, [other])
        assert "is not signed by any of the given keys" in finding.message


async def test_key_is_checked_before_anything_is_written(path: Path) -> None:
    with pytest.raises(CallerError, match=r"none\.pem cannot be read"):
        await archive_all(path, key=path.with_name("none.pem"))
    assert not list(path.parent.glob("*archive*"))


def test_program_of_the_docs_checks_an_archive(archived: tuple[Path, Path]) -> None:
    file = archived[1]
    page = Path(__file__).parents[3] / "docs" / "archive.md"
    program = page.read_text("utf-8").split("```python\n")[1].split("```")[0]

    def checked() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "#1 to #2048, chain intact" in checked().stdout
    lines = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(lines.replace(b"note 700", b"note 701")))
    assert "was changed" in checked().stderr
