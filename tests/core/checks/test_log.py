"""Checks of the log file and its disk: each fault is found, nothing is created."""

from __future__ import annotations

import os
import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from herdbook.core.checks.log import (
    check_clock,
    check_disk,
    check_file_system,
    check_log,
    check_mode,
    check_sqlite,
    check_wal,
)
from herdbook.core.clock import SystemClock
from herdbook.core.diagnosis import Diagnosis, Level
from herdbook.core.log.storage import Storage
from herdbook.events.facts import ModelVanished
from herdbook.events.recorded import Cause, NewEvent
from herdbook.events.sqlite.condition import examine
from herdbook.events.store import ANY

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


async def log_at(path: Path) -> Path:
    """Make a log of two events."""
    async with Storage.open(path, SystemClock()) as storage:
        for name in ("a:latest", "b:latest"):
            event = NewEvent(
                fact=ModelVanished(), occurred_at=NOW, actor="test", cause=Cause.COMMAND
            )
            await storage.store.append(f"model/local/{name}", [event], ANY)
    path.chmod(0o600)
    return path


def alter(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(sql)
    connection.close()


def found(log: Path, mounts: Path | None = None) -> dict[str, Diagnosis]:
    """Return what the checks of a log find, by check."""
    return {
        each.check: each
        for each in check_log(log, datetime.now(UTC), mounts=mounts or Path("/no"))
    }


async def test_healthy_log_has_no_problems(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    log = await log_at(tmp_path / "herd.db")
    checks = found(log)

    bad = {c.check for c in checks.values() if c.level not in (Level.OK, Level.NOTICE)}
    assert bad <= {"disk"}
    assert "2 events" in checks["log"].what
    assert checks["permissions"].level is Level.OK


async def test_checking_a_log_leaves_no_files(tmp_path: Path) -> None:
    log = await log_at(tmp_path / "herd.db")
    before = sorted(tmp_path.iterdir()), log.read_bytes()
    examine(log)

    assert (sorted(tmp_path.iterdir()), log.read_bytes()) == before


async def test_log_in_use_can_be_checked(tmp_path: Path) -> None:
    log = await log_at(tmp_path / "herd.db")
    async with Storage.open(log, SystemClock()) as storage:
        condition = examine(log)
        assert condition is not None
        head = await storage.store.head()

    assert condition.head == condition.last == head


def test_missing_log_is_not_created(tmp_path: Path) -> None:
    checks = found(tmp_path / "herd.db")

    assert checks["log"].level is Level.NOTICE
    assert "does not exist yet" in checks["log"].what
    assert not (tmp_path / "herd.db").exists()


def test_log_in_a_missing_directory_is_a_problem(tmp_path: Path) -> None:
    checks = found(tmp_path / "no" / "herd.db")

    assert checks.keys() == {"log"}
    assert checks["log"].level is Level.PROBLEM


def test_unreadable_log_is_a_problem(tmp_path: Path) -> None:
    checks = found(tmp_path / ("x" * 300))

    assert checks["log"].level is Level.PROBLEM
    assert "File name too long" in checks["log"].what


def test_named_pipe_instead_of_a_log_is_a_problem(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "herd.db")

    assert found(tmp_path / "herd.db")["log"].level is Level.PROBLEM


async def test_log_of_a_newer_version_is_reported(tmp_path: Path) -> None:
    log = await log_at(tmp_path / "herd.db")
    alter(log, "PRAGMA user_version = 99")
    checks = found(log)

    assert "has schema 99" in checks["log"].what
    assert "triggers" not in checks


async def test_damaged_head_and_times_do_not_stop_the_checks(tmp_path: Path) -> None:
    log = await log_at(tmp_path / "herd.db")
    alter(
        log,
        "DROP TRIGGER events_are_not_changed; DROP TRIGGER head_is_not_deleted;"
        "UPDATE events SET recorded_at = 'zzz' WHERE position = 1;"
        "UPDATE events SET recorded_at = '2026-01-01' WHERE position = 2;"
        "DELETE FROM head",
    )
    checks = found(log)

    assert checks["head"].level is Level.PROBLEM
    assert checks["clock"].level is Level.OK


@pytest.mark.parametrize("content", [b"nonsense " * 1000, b"x"])
def test_file_of_another_program_is_a_problem(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "herd.db").write_bytes(content)
    log = found(tmp_path / "herd.db")["log"]

    assert log.level is Level.PROBLEM
    assert "is not a Herdbook log" in log.what


def test_database_of_another_program_is_a_problem(tmp_path: Path) -> None:
    alter(tmp_path / "herd.db", "CREATE TABLE x (y)")

    assert "is not a Herdbook log" in found(tmp_path / "herd.db")["log"].what


async def test_missing_trigger_is_a_problem(tmp_path: Path) -> None:
    log = await log_at(tmp_path / "herd.db")
    alter(log, "DROP TRIGGER events_are_not_changed")
    triggers = found(log)["triggers"]

    assert triggers.level is Level.PROBLEM
    assert "events_are_not_changed" in triggers.what
    assert "herdbook verify" in triggers.remedy


async def test_truncated_log_ends_before_its_head(tmp_path: Path) -> None:
    log = await log_at(tmp_path / "herd.db")
    alter(log, "DROP TRIGGER events_are_not_deleted; DELETE FROM events WHERE version")
    head = found(log)["head"]

    assert head.level is Level.PROBLEM
    assert "the recorded head is #2, but the newest event is #0" in head.what


async def test_log_without_write_ahead_log_is_a_problem(tmp_path: Path) -> None:
    log = await log_at(tmp_path / "herd.db")
    alter(log, "PRAGMA journal_mode = DELETE")
    pragmas = found(log)["pragmas"]

    assert pragmas.level is Level.PROBLEM
    assert "journal_mode is not wal" in pragmas.what


async def test_log_without_its_tables_is_a_problem(tmp_path: Path) -> None:
    log = await log_at(tmp_path / "herd.db")
    alter(log, "DROP TABLE events")

    assert found(log)["log"].level is Level.PROBLEM


async def test_log_writable_by_others_is_reported(tmp_path: Path) -> None:
    log = await log_at(tmp_path / "herd.db")
    log.chmod(0o666)
    permissions = found(log)["permissions"]

    assert permissions.level is Level.WARNING
    assert permissions.remedy.endswith(f"chmod o-w {log}")


@pytest.mark.parametrize(
    ("mode", "level"),
    [
        (stat.S_IFREG | 0o644, None),
        (stat.S_IFREG | 0o664, Level.NOTICE),
        (stat.S_IFREG | 0o646, Level.WARNING),
        (stat.S_IFDIR | 0o777, Level.WARNING),
        (stat.S_IFDIR | 0o1777, None),
    ],
)
def test_file_mode_shows_who_can_write(mode: int, level: Level | None) -> None:
    checked = check_mode(Path("place"), mode)

    assert (checked.level if checked else None) is level


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("3.40.1", Level.NOTICE),
        ("3.51.2", Level.NOTICE),
        ("3.51.3", Level.OK),
        ("4.0.0", Level.OK),
    ],
)
def test_sqlite_with_the_reset_bug_is_a_notice(version: str, level: Level) -> None:
    assert check_sqlite(version).level is level


@pytest.mark.parametrize(
    ("kind", "level"),
    [("ext4", Level.OK), ("nfs4", Level.PROBLEM), ("fuse.sshfs", Level.PROBLEM)],
)
def test_network_file_system_is_a_problem(
    tmp_path: Path, kind: str, level: Level
) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    mounts = tmp_path / "mounts"
    result = str(place.resolve()).replace(" ", "\\040")
    mounts.write_text(f"/dev/x / ext4 rw 0 0\nfar {result} {kind} rw 0 0\n")

    assert check_file_system(place / "herd.db", mounts).level is level


def test_root_file_system_is_used_if_no_other_mount_matches(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("far / nfs rw 0 0\n")

    assert check_file_system(tmp_path / "x", mounts).level is Level.PROBLEM


def test_unknown_file_system_is_reported(tmp_path: Path) -> None:
    checked = check_file_system(tmp_path / "x", tmp_path / "no")

    assert checked.level is Level.NOTICE
    assert "not known" in checked.what


@pytest.mark.parametrize(
    ("free", "level"),
    [(5e10, Level.OK), (5e8, Level.WARNING), (5e6, Level.PROBLEM)],
)
def test_full_disk_is_reported(tmp_path: Path, free: float, level: Level) -> None:
    assert check_disk(int(free), tmp_path).level is level


@pytest.mark.parametrize(("size", "level"), [(4e6, Level.OK), (1e9, Level.WARNING)])
def test_large_write_ahead_log_is_a_warning(size: float, level: Level) -> None:
    assert check_wal(int(size)).level is level


def times(*offsets: float) -> list[datetime]:
    return [NOW + timedelta(seconds=offset) for offset in offsets]


@pytest.mark.parametrize(
    ("recorded_at", "level", "result"),
    [
        ([], Level.OK, "the newest events are in chronological order"),
        (times(-3, -2, -1), Level.OK, "the newest events are in chronological order"),
        (times(-3, 2), Level.OK, "the newest events are in chronological order"),
        (times(-3, 3600), Level.WARNING, "1 h in the future"),
        (times(-3, -9, -1, -2), Level.NOTICE, "was set back 2 times"),
    ],
)
def test_clock_is_checked_against_the_newest_events(
    recorded_at: list[datetime], level: Level, result: str
) -> None:
    checked = check_clock(recorded_at, NOW)

    assert checked.level is level
    assert result in checked.what


async def test_write_ahead_log_of_a_log_in_use_is_measured(tmp_path: Path) -> None:
    log = await log_at(tmp_path / "herd.db")
    async with Storage.open(log, SystemClock()) as storage:
        assert "all events are in the log file" in found(log)["wal"].what
        event = NewEvent(
            fact=ModelVanished(), occurred_at=NOW, actor="test", cause=Cause.COMMAND
        )
        await storage.store.append("model/local/c:latest", [event], ANY)
        assert "without this file misses them" in found(log)["wal"].what


async def test_report_shows_all_checks_of_a_log(tmp_path: Path) -> None:
    condition = examine(await log_at(tmp_path / "herd.db"))

    assert condition is not None
    assert (condition.schema, condition.settings, condition.altered) == (5, (), ())
    assert condition.head.position == 2
    assert len(condition.recorded_at) == 2


async def test_tables_of_other_programs_are_a_notice(tmp_path: Path) -> None:
    log = await log_at(tmp_path / "herd.db")
    alter(log, "CREATE TABLE _litestream_lock (id INTEGER)")

    triggers = found(log)["triggers"]

    assert triggers.level is Level.NOTICE
    assert "_litestream_lock" in triggers.what
