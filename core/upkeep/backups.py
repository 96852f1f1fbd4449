"""Backups of a log at intervals, in a directory that keeps the newest ones.

A backup is made by a process of its own: it copies and verifies the whole log, which
would take time from the requests that a service answers.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from herdbook.core.clock import Clock, SystemClock
from herdbook.core.errors import CallerError
from herdbook.core.logging import Logger
from herdbook.core.upkeep.backup_process import Report
from herdbook.core.upkeep.recurring import Recurring, check_interval
from herdbook.events.errors import StoreError, in_line

_log = Logger("herdbook.backups")

_STAMP: Final = "%Y%m%dT%H%M%SZ"

STOP_WITHIN_S: Final = 10.0
"""Seconds that a backup has to clean up when the service stops."""


class BackupFailedError(StoreError):
    """A scheduled backup was not made; earlier ones are unchanged."""

    code = "backup_failed"


class BackupSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """When backups are made, and how many are kept.

    Attributes:
        directory: Where they are; it must exist.
        every_s: The interval, seconds.
        keep: How many are kept; older ones are deleted.
    """

    directory: Path
    every_s: float
    keep: int = 7

    def check(self) -> None:
        """Check the schedule.

        Raises:
            CallerError: The directory does not exist, or a number is too small.
        """
        if not self.directory.is_dir():
            raise CallerError(
                str(self.directory),
                "is not a directory",
                "Create it, or choose another one for the backups",
            )
        check_interval(self.every_s)
        if self.keep < 1:
            raise CallerError(f"{self.keep} backups", "are too few", "Keep at least 1")


MakeBackup = Callable[[Path, Path], Awaitable[int]]
"""Makes a verified backup of a log in a file; returns its last position."""


class ScheduledBackups:
    """Makes backups of one log when they are due, and deletes the oldest.

    Args:
        log: The log.
        schedule: When, where and how many.
        clock: The clock.
        make: Makes a backup; by default in a process of its own.
    """

    def __init__(
        self,
        log: Path,
        schedule: BackupSchedule,
        *,
        clock: Clock,
        make: MakeBackup | None = None,
    ) -> None:
        schedule.check()
        self._log = log
        self._schedule = schedule
        self._clock = clock
        self._make = make or back_up_in_process
        known = self.made()
        self.recurring = Recurring(
            "backups",
            schedule.every_s,
            self._back_up,
            clock=clock,
            last_at=known[-1][0] if known else None,
        )

    def made(self) -> list[tuple[datetime, Path]]:
        """Return the backups of this log in the directory, the oldest first."""
        name = re.compile(re.escape(self._log.stem) + r"-(\d{8}T\d{6}Z)\.db")
        found = []
        for path in self._schedule.directory.iterdir():
            if (match := name.fullmatch(path.name)) and path.is_file():
                with suppress(ValueError):  # digits that are no time
                    at = datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC)
                    found.append((at, path))
        return sorted(found)

    async def _back_up(self) -> int:
        at = self._clock.now().astimezone(UTC)
        name = f"{self._log.stem}-{at.strftime(_STAMP)}.db"
        target = self._schedule.directory / name
        position = await self._make(self._log, target)
        _log.info("backup_written", file=str(target), position=position)
        for _, old in self.made()[: -self._schedule.keep]:
            _delete(old)
        return position


def _delete(old: Path) -> None:
    try:
        old.unlink(missing_ok=True)
    except OSError as error:
        # No failure of the new backup, which would be made again and again.
        _log.warning("old_backup_not_deleted", file=str(old), reason=str(error))
    else:
        _log.info("old_backup_deleted", file=str(old))


async def back_up_in_process(log: Path, target: Path) -> int:
    """Make a verified backup in a process of its own; return its last position.

    Raises:
        BackupFailedError: It failed; there is no file.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "herdbook.core.upkeep.backup_process"),
        *(str(log), str(target)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C stops the service, which stops the process
    )
    try:
        out, err = await process.communicate()
    except asyncio.CancelledError:
        await _stop(process)
        raise
    try:
        # The last line; lines of the log, if there are any, precede it.
        report = msgspec.json.decode(out.rpartition(b"\n")[2], type=Report)
    except msgspec.MsgspecError:
        last = err.decode(errors="replace").strip().rpartition("\n")[2]
        report = Report(error=f"the process ended with {process.returncode}: {last}")
    if report.error:
        raise BackupFailedError(
            str(target), f"was not made: {in_line(report.error)}", report.remedy
        )
    return report.position


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End the process; it removes what is not complete."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with SystemClock().timeout(STOP_WITHIN_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
