"""Scheduled backups: made when due, verified, and pruned."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.log_lines import append, rows_of

from herdbook.core.clock import ManualClock, settle
from herdbook.core.errors import CallerError
from herdbook.core.upkeep.backups import (
    BackupFailedError,
    BackupSchedule,
    ScheduledBackups,
    back_up_in_process,
)
from herdbook.core.upkeep.upkeep import Upkeep, UpkeepSettings

DAY = 86_400.0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def copy(log: Path, target: Path) -> int:
    """Stand in for the process, where only the schedule is tested."""
    target.write_bytes(log.read_bytes())
    return 1


async def test_newest_backups_are_kept_and_nothing_else_is_deleted(
    tmp_path: Path, directory: Path
) -> None:
    log = tmp_path / "herd.db"
    log.write_text("log")
    others = ["herd.db", "other-20260101T000000Z.db", "herd-20269901T000000Z.db"]
    for name in others:
        (directory / name).write_text("mine")
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    schedule = BackupSchedule(directory=directory, every_s=DAY, keep=3)
    scheduled = ScheduledBackups(log, schedule, clock=clock, make=copy)

    async with scheduled.recurring.running():
        await settle()
        await clock.advance(5 * DAY)

    assert names(directory) == sorted(
        [*others, *(f"herd-2026010{day}T000000Z.db" for day in (4, 5, 6))]
    )
    # Another start continues the schedule.
    again = ScheduledBackups(log, schedule, clock=clock, make=copy)
    assert again.recurring.status.next_at == clock.now() + timedelta(days=1)


async def test_old_backup_that_cannot_be_deleted_fails_no_new_one(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    log = tmp_path / "herd.db"
    log.write_text("log")
    (directory / "herd-20250101T000000Z.db").write_text("old")
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    schedule = BackupSchedule(directory=directory, every_s=DAY, keep=1)
    scheduled = ScheduledBackups(log, schedule, clock=clock, make=copy)
    monkeypatch.setattr(Path, "unlink", refuse)

    async with scheduled.recurring.running():
        await settle()
        await clock.advance(DAY / 2)

    assert scheduled.recurring.task.up
    assert names(directory) == [
        "herd-20250101T000000Z.db",
        "herd-20260101T000000Z.db",
    ]


async def test_failed_backup_deletes_no_backups(
    tmp_path: Path, directory: Path
) -> None:
    async def fail(log: Path, target: Path) -> int:
        raise BackupFailedError(str(target), "was not made")

    old = directory / "herd-20250101T000000Z.db"
    old.write_text("the only one")
    clock = ManualClock()
    schedule = BackupSchedule(directory=directory, every_s=DAY, keep=1)
    scheduled = ScheduledBackups(tmp_path / "herd.db", schedule, clock=clock, make=fail)

    async with scheduled.recurring.running():
        await clock.advance(DAY)
        assert not scheduled.recurring.task.up

    assert names(directory) == [old.name]


async def test_process_makes_a_verified_backup_next_to_a_writer(
    tmp_path: Path, directory: Path
) -> None:
    log, target = tmp_path / "herd.db", directory / "made.db"
    await append(log, 5)

    position = await back_up_in_process(log, target)

    assert position == 5
    assert rows_of(target) == rows_of(log)
    assert names(directory) == ["made.db"]


async def test_process_reports_why_the_backup_failed(
    tmp_path: Path, directory: Path
) -> None:
    log = tmp_path / "herd.db"
    await append(log, 5)
    log.write_bytes(log.read_bytes().replace(b'"size_bytes":1', b'"size_bytes":2', 1))

    with pytest.raises(BackupFailedError, match=r"was not made: .* is damaged"):
        await back_up_in_process(log, directory / "made.db")

    assert names(directory) == []


async def test_cancelled_process_leaves_no_files(
    tmp_path: Path, directory: Path
) -> None:
    log = tmp_path / "herd.db"
    await append(log, 5)
    making = asyncio.create_task(back_up_in_process(log, directory / "made.db"))
    await asyncio.sleep(0.05)

    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making

    assert names(directory) in ([], ["made.db"])


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        (BackupSchedule(directory=Path("/none"), every_s=DAY), "not a directory"),
        (BackupSchedule(directory=Path("/"), every_s=1), "too short"),
        (BackupSchedule(directory=Path("/"), every_s=DAY, keep=0), "too few"),
    ],
)
def test_invalid_schedules_are_refused(schedule: BackupSchedule, problem: str) -> None:
    with pytest.raises(CallerError, match=problem):
        Upkeep("herd.db", UpkeepSettings(backups=schedule), clock=ManualClock())


def test_log_in_memory_has_no_backups(directory: Path) -> None:
    schedule = BackupSchedule(directory=directory, every_s=DAY)
    with pytest.raises(CallerError, match="in memory"):
        Upkeep(":memory:", UpkeepSettings(backups=schedule), clock=ManualClock())


def test_log_in_a_database_has_no_backups(directory: Path) -> None:
    schedule = BackupSchedule(directory=directory, every_s=DAY)
    settings = UpkeepSettings(backups=schedule)
    with pytest.raises(CallerError, match="backed up by its server"):
        Upkeep("postgresql://ann@host/herd", settings, clock=ManualClock())
