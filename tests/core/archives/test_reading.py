"""Reading archives, and a log without them."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from support.archives import (
    LENGTH,
    answers,
    archive_all,
    fill,
    new_event,
    opened,
    stream_of,
)
from support.log_lines import export_of, lines_of

from herdbook.core import HistoryFilter, ModelManager, SystemClock
from herdbook.core.checks import archives
from herdbook.core.checks.verification import verify
from herdbook.core.diagnosis import Level
from herdbook.core.history.past import Past
from herdbook.core.proof.proof import check_anchors, is_included, make_anchor, prove
from herdbook.core.transfer.contents import Selection
from herdbook.core.views import at_boundary, restore, save
from herdbook.events.archive_file import (
    BLOCK,
    ArchiveMissingError,
    DamagedArchiveError,
)
from herdbook.events.errors import ConflictError
from herdbook.events.store import ANY, ArchivedStore, Head
from herdbook.projections.status_view import StatusView

END = LENGTH + 1
Made = tuple[Path, Path]


async def test_without_the_file_only_its_events_are_missing(archived: Made) -> None:
    path, file = archived
    async with opened(path) as storage:
        before = await answers(storage, after=2 * BLOCK)
    file.unlink()

    async with opened(path) as storage:
        assert await answers(storage, after=2 * BLOCK) == before
        found = await verify(storage)
        assert found.findings == ()
        assert f"#1 to #{2 * BLOCK}" in found.missing
        for reading in (
            storage.store.read_all(),
            storage.store.read_stream("model/local/m1:latest"),
            storage.store.read_all(stream_prefix="model/local/m1"),
        ):
            with pytest.raises(ArchiveMissingError, match="HERDBOOK_ARCHIVES"):
                _ = [event async for event in reading]
        with pytest.raises(ArchiveMissingError):
            await Past(storage).views_at(100)
        restored = await restore(storage.store, storage.snapshots)
        assert restored.status.get("model/local/m1:latest") is not None
        (diagnosis,) = await archives.diagnose(storage)
        assert diagnosis.level is Level.WARNING
        assert f"#1 to #{2 * BLOCK} cannot be shown" in diagnosis.what


async def test_export_after_an_archive_does_not_need_it(archived: Made) -> None:
    path, file = archived
    later = Selection(after=2 * BLOCK)
    events = lines_of(await export_of(path, later))[1:-1]
    file.unlink()

    assert lines_of(await export_of(path, later))[1:-1] == events
    assert [event["position"] for event in events] == list(
        range(2 * BLOCK + 1, END + 1)
    )
    with pytest.raises(ArchiveMissingError):
        await export_of(path, Selection(after=2 * BLOCK - 1))


async def test_archive_that_is_there_is_verified_although_another_is_missing(
    path: Path,
) -> None:
    first = await archive_all(path, minutes=BLOCK + 100)
    second = await archive_all(path)
    first.file.unlink()

    async with opened(path) as storage:
        found = await verify(storage, anchors=[Head(5, "0" * 64)])
        assert found.events == LENGTH + 2 - BLOCK
        (finding,) = found.findings
        assert "cannot be compared with an anchor" in finding.message
        assert (await Past(storage).views_at(BLOCK + 10)).position == BLOCK + 10
    data = bytearray(second.file.read_bytes())
    data[-200] ^= 1
    second.file.write_bytes(data)
    async with opened(path) as storage:
        kinds = {str(finding.kind) for finding in (await verify(storage)).findings}
        assert kinds == {"archive"}


async def test_moved_archive_is_found_by_its_directory(
    archived: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, file = archived
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copy(file, moved)
    file.write_bytes(b"of another log")
    monkeypatch.setenv("HERDBOOK_ARCHIVES", str(moved))

    async with opened(path) as storage:
        assert len([event async for event in storage.store.read_all()]) == END
        assert (await verify(storage)).missing == ""


@pytest.mark.parametrize("change", ["bit", "cut", "other"])
async def test_damaged_archive_is_never_used(
    archived: Made, tmp_path: Path, change: str
) -> None:
    path, file = archived
    data = bytearray(file.read_bytes())
    if change == "bit":
        data[len(data) // 3] ^= 1
    elif change == "cut":
        del data[len(data) // 2 :]
    else:
        other = tmp_path / "other"
        other.mkdir()
        await fill(other / "herd.db", start=10)
        data = bytearray((await archive_all(other / "herd.db")).file.read_bytes())
    file.write_bytes(data)

    async with opened(path) as storage:
        with pytest.raises(DamagedArchiveError, match="damaged"):
            _ = [event async for event in storage.store.read_all()]
        kinds = {str(finding.kind) for finding in (await verify(storage)).findings}
        assert kinds == {"archive"}
        (diagnosis,) = await archives.diagnose(storage)
        assert diagnosis.level is Level.PROBLEM


async def test_archived_event_is_proved_and_its_id_stays_unique(path: Path) -> None:
    async with opened(path) as storage:
        inside, old = [
            await make_anchor(storage, SystemClock(), position=position)
            for position in (1500, None)
        ]
    made = await archive_all(path)

    async with opened(path) as storage:
        assert await check_anchors(storage, [inside, old]) == []
        assert is_included(await prove(storage, 123, old), old)
        number = 10
        again = [new_event(each) for each in range(number, number + 5)]
        recorded = await storage.store.append(stream_of(number), again, ANY)
        assert [event.event_id for event in recorded] == [e.event_id for e in again]
        assert recorded[0].position < 100
        with pytest.raises(ConflictError):
            await storage.store.append("model/local/m6:latest", again, ANY)
    made.file.unlink()
    async with opened(path) as storage:
        (finding,) = await check_anchors(storage, [inside, old])
        assert "cannot be checked: archive" in finding.message


async def test_manager_works_without_the_archive(archived: Made) -> None:
    path, file = archived
    file.unlink()
    async with ModelManager.open(path, node="local", refresh=False) as manager:
        assert (await manager.now()).position == END
        await manager.configure("m1:latest", num_ctx=4096)
        with pytest.raises(ArchiveMissingError):
            await manager.history("m1")
        found = await manager.available_history("m1", HistoryFilter())
        assert file.name in found.missing
        assert found.entries[-1].position == END + 1
        assert all(entry.position > 2 * BLOCK for entry in found.entries)
        everything = await manager.available_history()
        assert everything.entries[0].position == 2 * BLOCK + 1

        newest = await manager.read_log(newest_first=True, limit=LENGTH)
        assert [e.position for e in newest.events] == list(
            range(END + 1, 2 * BLOCK, -1)
        )
        assert file.name in newest.missing
        with pytest.raises(ArchiveMissingError):
            await manager.read_log(newest_first=True, before=newest.next)


@pytest.mark.parametrize("how", ["altered", "of another form"])
async def test_kept_state_that_is_not_usable_is_replayed(
    archived: Made, how: str
) -> None:
    path, file = archived
    async with opened(path) as storage:
        before = (await restore(storage.store, storage.snapshots)).status.dump()
    change = "data = x'00'" if how == "altered" else "version = version + 1"
    with closing(sqlite3.connect(path)) as log, log:
        log.execute(f"UPDATE boundary_views SET {change} WHERE name = 'status'")

    async with opened(path) as storage:
        assert await at_boundary(storage.store) is None
        assert (await restore(storage.store, storage.snapshots)).status.dump() == before
        kinds = {str(each.kind) for each in (await verify(storage)).findings}
        assert kinds == {"snapshot"}
        file.unlink()
        with pytest.raises(ArchiveMissingError):
            await restore(storage.store, storage.snapshots)


async def test_state_of_an_older_version_is_used_without_its_archive(
    archived: Made,
) -> None:
    path, file = archived
    async with opened(path) as storage:
        before = (await restore(storage.store, storage.snapshots)).status.dump()
        store = storage.store
        assert isinstance(store, ArchivedStore)
        (now,) = [one for one in await store.boundary_views() if one.name == "status"]
    (form,) = StatusView.older_forms
    older = msgspec.structs.replace(now, version=form)
    with closing(sqlite3.connect(path)) as log, log:
        log.execute("DELETE FROM views")
        log.execute(
            "UPDATE boundary_views SET version = ?, checksum = ? WHERE name = 'status'",
            (older.version, older.checksum),
        )

    async with opened(path) as storage:
        assert await at_boundary(storage.store) is None, "the archive is replayed"
        file.unlink()
        views = await restore(storage.store, storage.snapshots)
        assert views.status.dump() == before
        await save(views, storage.snapshots)
        assert await storage.snapshots.load_view(StatusView.name) is None
