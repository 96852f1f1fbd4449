"""Import an export: nothing is lost, invented or changed, whatever happens."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pytest
from support.log_lines import append, changed, export_of, lines_of, rows_of
from support.odd_log import ODD, odd_log

from herdbook.core import CallerError, Storage, SystemClock
from herdbook.core.checks.verification import verify
from herdbook.core.transfer import export_check
from herdbook.core.transfer.contents import Selection
from herdbook.core.transfer.export import export_to_file
from herdbook.core.transfer.export_check import ExportCheck, open_export, read_export
from herdbook.core.transfer.import_events import (
    ForkError,
    Imported,
    check_export,
    import_events,
)
from herdbook.events.errors import ConflictError, CorruptLogError, StoreFullError
from herdbook.events.memory import MemoryEventStore
from herdbook.events.recorded import StoredEvent
from herdbook.events.store import Head

BEFORE = Path(__file__).parents[2] / "fixtures" / "before-layout" / "log.db"
"""A log of an older version."""


async def import_from(storage: Storage, file: BinaryIO, check: ExportCheck) -> Imported:
    return await import_events(storage, read_export(file, check), check)


async def imported(log: Path, data: bytes) -> Imported:
    async with Storage.open(log, SystemClock()) as storage:
        return await import_from(storage, io.BytesIO(data), ExportCheck("a file"))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    (tmp_path / "other").mkdir()
    return tmp_path / "other" / "herd.db"


async def test_every_column_of_every_event_is_unchanged(log: Path, other: Path) -> None:
    await append(log, 25)
    data = await export_of(log)

    first = await imported(other, data)
    again = await imported(other, data)

    assert rows_of(other) == rows_of(log)
    assert (first.added, first.present, first.position) == (25, 0, 25)
    assert (again.added, again.present, again.hash) == (0, 25, first.hash)
    assert lines_of(await export_of(other))[1:-1] == lines_of(data)[1:-1]
    async with Storage.open(other, SystemClock()) as storage:
        assert (await verify(storage)).findings == ()


DAMAGED = [what for what in ODD if "UTF-8" in what]
"""Odd logs in which a column was changed after the event was recorded."""


@pytest.mark.parametrize("what", DAMAGED)
async def test_damaged_columns_are_not_exported(what: str, log: Path) -> None:
    position = odd_log(log, what)

    with pytest.raises(CorruptLogError, match=f"#{position} .*the log is damaged"):
        await export_of(log)


@pytest.mark.parametrize("what", sorted(set(ODD) - set(DAMAGED)))
async def test_odd_logs_survive_the_round_trip(
    what: str, log: Path, other: Path
) -> None:
    odd_log(log, what)

    await imported(other, await export_of(log))

    assert rows_of(other) == rows_of(log)


async def test_log_of_an_older_version_survives_the_round_trip(
    log: Path, other: Path
) -> None:
    log.write_bytes(BEFORE.read_bytes())

    await imported(other, await export_of(log))

    assert rows_of(other) == rows_of(log)


async def test_unreadable_events_survive_the_round_trip(log: Path, other: Path) -> None:
    await append(log, 1)
    changed(log, {"data": '{"a" : [1.0, 1e400],\n"b"', "actor": "\n\u202e"})
    changed(log, {"data": "", "occurred_at": "", "recorded_at": "2026-13-01"})
    changed(log, {"data": '{"ü": "\\u00fc\\ud800"}', "correlation_id": ""})
    changed(log, {"data": ' {"purpose":  "spaces" }', "schema": 99, "event_id": ""})

    await imported(other, await export_of(log))

    assert rows_of(other) == rows_of(log)


async def test_text_with_nul_is_refused(log: Path, other: Path) -> None:
    await append(log, 1)
    changed(log, {"actor": "a\0b"})
    data = await export_of(log)

    with pytest.raises(CallerError, match="#2 has a NUL"):
        await imported(other, data)

    assert rows_of(other) == []


async def test_newer_events_are_added_to_an_older_copy(log: Path, other: Path) -> None:
    await append(log, 10)
    await imported(other, await export_of(log))
    await append(log, 7, start=10)

    whole = await export_of(log)
    part = await export_of(log, Selection(after=12))
    with pytest.raises(CallerError, match="begins with #13, but the log ends at #10"):
        await imported(other, part)
    done = await imported(other, await export_of(log, Selection(after=8)))

    assert (done.added, done.present) == (7, 2)
    assert rows_of(other) == rows_of(log)
    assert (await imported(other, whole)).added == 0
    assert (await imported(other, part)).added == 0


async def test_older_export_of_a_longer_log_adds_nothing(log: Path) -> None:
    await append(log, 5)
    data = await export_of(log)
    await append(log, 5, start=5)

    done = await imported(log, data)

    assert (done.added, done.present, done.position) == (0, 5, 10)


@pytest.mark.parametrize("common", [0, 1, 6])
async def test_fork_is_refused_at_its_position(
    log: Path, other: Path, common: int
) -> None:
    if common:
        await append(log, common)
        await imported(other, await export_of(log))
    await append(log, 9 - common, start=common)
    await append(other, 3, start=common, note="another history")
    before = rows_of(other)
    data = await export_of(log)

    with pytest.raises(ForkError) as raised:
        await imported(other, data)

    assert raised.value.position == common + 1
    assert f"#{common + 1} " in str(raised.value)
    assert rows_of(other) == before


async def test_part_of_a_fork_is_refused(log: Path, other: Path) -> None:
    await append(log, 5)
    await append(other, 5, note="another history")

    with pytest.raises(ForkError):
        await imported(other, await export_of(log, Selection(after=4)))


async def test_export_with_gaps_creates_no_log(log: Path, other: Path) -> None:
    await append(log, 8)

    with pytest.raises(CallerError, match="only some of the events"):
        await imported(other, await export_of(log, Selection(types=("ModelUsed",))))

    assert rows_of(other) == []


async def test_damaged_export_leaves_a_valid_prefix(
    log: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_check, "LINES", 4)
    await append(log, 20)
    whole = await export_of(log)
    lines = whole.splitlines(keepends=True)
    lines[14] = lines[14].replace(b"zo", b"za")

    with pytest.raises(CorruptLogError, match="line 15"):
        await imported(other, b"".join(lines))
    assert rows_of(other) == rows_of(log)[:11]
    with pytest.raises(CorruptLogError, match="before the end"):
        await imported(other, b"".join(whole.splitlines(keepends=True)[:17]))
    assert rows_of(other) == rows_of(log)[:16]

    done = await imported(other, whole)

    assert (done.added, done.present) == (4, 16)
    assert rows_of(other) == rows_of(log)


async def test_changed_event_of_the_log_is_not_a_fork(log: Path, other: Path) -> None:
    await append(log, 5)
    data = await export_of(log)
    await imported(other, data)
    raw = other.read_bytes()
    other.write_bytes(raw.replace(b'"size_bytes":1', b'"size_bytes":2', 1))

    with pytest.raises(CorruptLogError, match="of the log was changed"):
        await imported(other, data)


async def test_import_stops_if_another_process_appends(
    log: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_check, "LINES", 4)
    await append(log, 10)
    data = await export_of(log)
    async with Storage.open(other, SystemClock()) as storage:
        store = storage.store
        take = store.append_stored  # type: ignore[attr-defined]

        async def interfere(events: list[StoredEvent], *, after: Head) -> None:
            if after.position == 3:
                async with Storage.open(other, SystemClock()) as second:
                    await append(second.store, 1, start=3)  # type: ignore[arg-type]
            await take(events, after=after)

        monkeypatch.setattr(store, "append_stored", interfere)
        with pytest.raises(ConflictError):
            await import_from(storage, io.BytesIO(data), ExportCheck("a file"))

    assert len(rows_of(other)) == 4
    with pytest.raises(ForkError, match="#4 "):
        await imported(other, data)


async def test_full_disk_leaves_a_valid_prefix(
    log: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_check, "LINES", 4)
    await append(log, 10)
    data = await export_of(log)
    async with Storage.open(other, SystemClock()) as storage:
        recorder = storage.store._recorder  # type: ignore[attr-defined]
        record = recorder.record_stored

        async def fails(events: list[StoredEvent], after: Head) -> None:
            if after.position == 7:
                raise StoreFullError("the log", "cannot grow: the disk is full")
            await record(events, after)

        monkeypatch.setattr(recorder, "record_stored", fails)
        with pytest.raises(StoreFullError):
            await import_from(storage, io.BytesIO(data), ExportCheck("a file"))
    assert rows_of(other) == rows_of(log)[:7]

    await imported(other, data)

    assert rows_of(other) == rows_of(log)


KILLED = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from herdbook.core import Storage, SystemClock
    from herdbook.core.transfer import export_check
    from herdbook.core.transfer.import_events import import_events
    from herdbook.events.sqlite.recorder import SQLiteRecorder

    log, file, batch, when = sys.argv[1:]
    export_check.LINES = 4
    record = SQLiteRecorder.record_stored
    done = 0

    async def record_stored(self, events, after):
        global done
        if done == int(batch) and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await record(self, events, after)
        if done == int(batch) and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1

    SQLiteRecorder.record_stored = record_stored

    async def main():
        async with Storage.open(Path(log), SystemClock()) as storage:
            with open(file, "rb") as source:
                check = export_check.ExportCheck(file)
                batches = export_check.read_export(source, check)
                await import_events(storage, batches, check)

    asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("batch", [0, 1, 3])
async def test_killed_import_leaves_a_valid_prefix_and_continues(
    log: Path, other: Path, tmp_path: Path, batch: int, when: str
) -> None:
    await append(log, 14)
    data = await export_of(log)
    file = tmp_path / "export.jsonl"
    file.write_bytes(data)

    killed = await asyncio.to_thread(
        subprocess.run,
        [
            sys.executable,
            "-c",
            textwrap.dedent(KILLED),
            str(other),
            str(file),
            f"{batch}",
            when,
        ],
        env=os.environ,
        timeout=60,
        check=False,
    )

    assert killed.returncode == -signal.SIGKILL
    kept = batch + (when == "after")
    assert rows_of(other) == rows_of(log)[: max(4 * kept - 1, 0)]
    async with Storage.open(other, SystemClock()) as storage:
        assert (await verify(storage)).findings == ()
    await imported(other, data)
    assert rows_of(other) == rows_of(log)


async def test_import_works_for_every_store(log: Path) -> None:
    await append(log, 9)
    data = await export_of(log)
    async with MemoryEventStore() as store, Storage.open(log, SystemClock()) as opened:
        storage = opened._replace(store=store, snapshots=store)

        done = await import_from(storage, io.BytesIO(data), ExportCheck("a file"))

        stored = [event async for event in store.read_stored()]
        assert done.added == 9
        assert stored == [event async for event in opened.store.read_stored()]


async def test_lines_without_end_are_refused(
    other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_check, "LONGEST_LINE", 1000)

    with pytest.raises(CallerError, match="a line of more than"):
        await imported(other, b" " * 2000)


async def test_compressed_export_can_be_imported(
    log: Path, other: Path, tmp_path: Path
) -> None:
    await append(log, 30)
    plain, packed = tmp_path / "herd.jsonl", tmp_path / "herd.jsonl.gz"
    clock = SystemClock()
    async with Storage.open(log, clock) as storage:
        for file in (plain, packed):
            await export_to_file(storage, file, clock)
    size = packed.stat().st_size
    assert size < plain.stat().st_size / 3

    with open_export(packed) as source:
        check = ExportCheck("a file")
        await check_export(source, check)
        source.seek(0)
        async with Storage.open(other, clock) as storage:
            await import_from(storage, source, ExportCheck("a file"))
    assert rows_of(other) == rows_of(log)

    whole = packed.read_bytes()
    for damaged in (
        whole[: size // 2],
        whole[:-4],
        whole[: size // 2] + b"\x00" + whole[size // 2 + 1 :],
        whole[:20],
    ):
        packed.write_bytes(damaged)
        with (
            open_export(packed) as source,
            pytest.raises(CorruptLogError, match=r"is damaged|cannot be read"),
        ):
            await check_export(source, ExportCheck("a file"))


async def test_named_pipe_is_read_once(log: Path, other: Path, tmp_path: Path) -> None:
    await append(log, 9)
    data = gzip.compress(await export_of(log))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = asyncio.create_task(asyncio.to_thread(pipe.write_bytes, data))

    with ExitStack() as stack:
        source = await asyncio.to_thread(stack.enter_context, open_export(pipe))
        async with Storage.open(other, SystemClock()) as storage:
            await import_from(storage, source, ExportCheck("a pipe"))

    await writing
    assert rows_of(other) == rows_of(log)


async def test_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "none"):
        with pytest.raises(CallerError, match="cannot be read"), open_export(file):
            pass


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"{}\n", b"[1]\n", b"\xff\n", b'{"specversion":"1.0"}\n']
)
async def test_other_files_are_not_exports(other: Path, data: bytes) -> None:
    with pytest.raises((CallerError, CorruptLogError)):
        await imported(other, data)
    assert rows_of(other) == []
