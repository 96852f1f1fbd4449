"""Back up a log, and restore it from a backup. Both verify what they write."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from herdbook.core.checks.verification import verify
from herdbook.core.clock import Clock, SystemClock
from herdbook.core.log.location import LogLocation
from herdbook.core.log.storage import Storage
from herdbook.core.transfer.private_directory import private_directory
from herdbook.events.errors import (
    CallerError,
    CorruptLogError,
    NewerSchemaError,
    NotALogError,
)
from herdbook.events.findings import Finding, Kind
from herdbook.events.shared.cancellation import finish
from herdbook.events.sqlite.backup import (
    COMPANIONS,
    copy_offline,
    copy_online,
    place,
    set_aside,
)
from herdbook.events.sqlite.instances import living
from herdbook.events.sqlite.kept_head import KeptHead
from herdbook.events.sqlite.log_file import belongs_to_log, log_file_path
from herdbook.events.store import ArchivedStore
from herdbook.events.verify import Verification

DAMAGE = frozenset(
    {
        *(Kind.POSITION, Kind.VERSION, Kind.HASH, Kind.HEAD, Kind.FILE, Kind.ANCHOR),
        Kind.UNREADABLE,
    }
)
"""Findings that say that a file is not the log that was written.

The others are about what was recorded, and a copy has them as the log has.
"""


NOTHING_CHANGED = "Nothing was changed"


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was made.

    Attributes:
        path: The file.
        position: The position of its last event; 0 if it has none.
        hash: The hash of that event.
        size_bytes: The size of the file.
        findings: Findings of the log that are no damage; the backup has them too.
        archives: The files of the archives of the log, which are not in the backup.
    """

    path: Path
    position: int
    hash: str
    size_bytes: int
    findings: tuple[Finding, ...] = ()
    archives: tuple[str, ...] = ()


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """A log that was restored.

    Attributes:
        path: The log, a file or a database.
        position: The position of its last event; 0 if it has none.
        hash: The hash of that event.
        replaced: The directory with the files of the log that was replaced, if any.
        findings: Findings of the backup that are no damage.
        missing: Which archives of the log are not found from its place; empty if all
            are.
    """

    path: LogLocation
    position: int
    hash: str
    replaced: Path | None = None
    findings: tuple[Finding, ...] = ()
    missing: str = ""


async def back_up(
    log: Path, target: Path, *, replace: bool = False, clock: Clock | None = None
) -> Backup:
    """Write a verified copy of a log; other processes may use the log meanwhile.

    The target appears when it is complete and verified, or not at all.

    Args:
        log: The log.
        target: The file to write.
        replace: Whether an existing target is replaced.
        clock: The clock; by default the system's.

    Raises:
        CallerError: The target exists, or is the log itself.
        StoreError: The log cannot be read, or the target cannot be written.
        CorruptLogError: The copy is damaged; nothing was written.
    """
    clock = clock or SystemClock()

    async def write(copy: Path) -> None:
        async with Storage.open(log, clock):  # refuses what is not a whole log
            await asyncio.to_thread(copy_online, log, copy)

    check_target(target, log, replace=replace)
    archive_directory = log_file_path(log).parent
    return await write_verified(
        target, write, clock, log=log, archive_directory=archive_directory
    )


async def write_verified(
    target: Path,
    write: Callable[[Path], Awaitable[object]],
    clock: Clock,
    *,
    log: LogLocation,
    archive_directory: Path | None = None,
) -> Backup:
    """Let a function write a copy of a log, verify it and put it at the target.

    Args:
        target: The target.
        write: Writes the copy.
        clock: The clock of the store.
        log: The log, for errors.
        archive_directory: The directory in which archives are looked for.
    """
    async with private_directory(target.parent) as directory:
        copy = directory / target.name
        await write(copy)
        subject = f"the copy of {log}"
        found = await verified(
            copy, clock, subject=subject, archive_directory=archive_directory
        )
        async with Storage.open(
            copy, clock, archive_directory=archive_directory
        ) as storage:
            archives = await archives_of(storage)
        size = await asyncio.to_thread(place, copy, target)
    return Backup(
        path=target,
        position=found.head.position,
        hash=found.head.hash,
        size_bytes=size,
        findings=found.findings,
        archives=archives,
    )


async def restore(
    backup: Path, log: Path, *, replace: bool = False, clock: Clock | None = None
) -> Restored:
    """Put a verified copy of a backup in the place of a log.

    The files of an existing log are moved to a directory next to it, and are never
    deleted. The backup is only read.

    Args:
        backup: The backup.
        log: The log; its directory must exist.
        replace: Whether an existing log is replaced.
        clock: The clock; by default the system's.

    Raises:
        CallerError: There is no backup, the log exists, or a process uses it.
        StoreError: The backup cannot be read, or the log cannot be written.
        CorruptLogError: The backup is damaged; nothing was changed.
    """
    clock = clock or SystemClock()
    exists = _check_backup(backup, log, replace=replace)
    _check_unused(log)
    async with private_directory(log_file_path(log).parent) as directory:
        copy = directory / log_file_path(log).name
        await asyncio.to_thread(copy_offline, backup, copy)
        archive_directory = log_file_path(log).parent
        found = await verified(
            copy, clock, subject=backup, archive_directory=archive_directory
        )
        aside = log_file_path(log, f".before-restore-{clock.now():%Y%m%dT%H%M%S.%fZ}")
        _check_unused(log)

        def put() -> None:
            if exists:
                set_aside(log, aside)
            place(copy, log_file_path(log))
            KeptHead(log).replace(found.head)

        # All or nothing: a cancellation in between would leave no log at its place.
        await finish(asyncio.to_thread(put))
    return Restored(
        path=log,
        position=found.head.position,
        hash=found.head.hash,
        replaced=aside if exists else None,
        findings=found.findings,
        missing=found.missing,
    )


async def archives_of(storage: Storage) -> tuple[str, ...]:
    """Return the names of the files with the archived events of a log.

    Raises:
        StoreError: The log cannot be read.
    """
    store = storage.store
    archives = await store.archives() if isinstance(store, ArchivedStore) else ()
    return tuple(each.file for each in archives)


def check_target(target: Path, log: LogLocation, *, replace: bool) -> None:
    """Check the name of a file to write.

    Raises:
        CallerError: It is a file of the log, or no file, or exists and must not be
            replaced.
    """
    if target.name:  # unlike that of the root directory
        check_outside(target, log)
    if target.exists() and not target.is_file():  # a device would be replaced too
        raise CallerError(str(target), "is not a file", "Choose another file")
    if os.path.lexists(target) and not replace:
        raise CallerError(
            str(target), "already exists", "Choose another file, or add --replace"
        )


def check_outside(file: Path, log: LogLocation) -> None:
    """Check that a file to write is none of the files of a log.

    Raises:
        CallerError: It is one.
    """
    if not isinstance(log, Path) or not belongs_to_log(file, log):
        return
    same = log_file_path(file) == log_file_path(log)
    problem = "is the log itself" if same else "belongs to the log"
    raise CallerError(str(file), problem, "Choose another file")


def _check_backup(backup: Path, log: Path, *, replace: bool) -> bool:
    """Check what a restore is given; return whether there is something to replace."""
    if log_file_path(backup) == log_file_path(log):
        raise CallerError(str(backup), "is the log itself", "Check the path")
    if not backup.is_file():
        problem = "is not a file" if backup.exists() else "does not exist"
        raise CallerError(str(backup), problem, "Check the path")
    if not log_file_path(backup).stat().st_size:
        # SQLite opens an empty file as a database without tables.
        raise CorruptLogError(str(backup), "is empty, not a backup", NOTHING_CHANGED)
    exists = any(log_file_path(log, ending).exists() for ending in ("", *COMPANIONS))
    if exists and not replace:
        raise CallerError(
            str(log),
            "already exists",
            "Restore to another path with --db, or add --replace to move it aside",
        )
    return exists


def _check_unused(log: Path) -> None:
    if living(log_file_path(log, "-instances")):
        raise CallerError(
            str(log),
            "is in use by another process",
            "Stop all Herdbook processes that use it",
        )


async def verified(
    copy: Path,
    clock: Clock,
    *,
    subject: Path | str,
    archive_directory: Path | None = None,
) -> Verification:
    """Verify a copy; return the findings that are not damage.

    Args:
        copy: The copy.
        clock: The clock of the store.
        subject: What errors are about.
        archive_directory: The directory in which archives are looked for.

    Raises:
        CorruptLogError: The copy is damaged.
        NewerSchemaError: A newer version wrote it.
    """
    try:
        async with Storage.open(
            copy, clock, archive_directory=archive_directory
        ) as storage:
            found = await verify(storage)
    except NewerSchemaError as error:
        raise NewerSchemaError(str(subject), error.state, error.remedy) from error
    except (CorruptLogError, NotALogError) as error:
        reason = error.state.replace(f"{copy}", f"{subject}")
        raise CorruptLogError(str(subject), reason, NOTHING_CHANGED) from error
    damage = [each for each in found.findings if each.kind in DAMAGE]
    if damage:
        more = f" ({len(damage)} findings)" if len(damage) > 1 else ""
        at = f"event #{damage[0].position} " if damage[0].position else ""
        raise CorruptLogError(
            str(subject),
            f"is damaged: {at}{damage[0].message}{more}",
            f"{NOTHING_CHANGED}. To see all findings of a log: herdbook verify",
        )
    return found
