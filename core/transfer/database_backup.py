"""Back up a log in a database to a file, and restore it from one.

A backup is a log in a file, whatever store it was made from.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from herdbook.core.clock import Clock, SystemClock
from herdbook.core.transfer.backup import (
    Backup,
    Restored,
    check_target,
    verified,
    write_verified,
)
from herdbook.core.transfer.copy import copy
from herdbook.core.transfer.private_directory import private_directory
from herdbook.events.errors import CallerError
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.sqlite.backup import copy_offline


async def back_up_database(
    log: PostgresAddress,
    target: Path,
    *,
    replace: bool = False,
    clock: Clock | None = None,
) -> Backup:
    """Write a verified copy of a log to a file; see ``back_up``."""
    clock = clock or SystemClock()
    check_target(target, log, replace=replace)
    return await write_verified(
        target, lambda file: copy(log, file, clock), clock, log=log
    )


async def restore_to_database(
    backup: Path,
    log: PostgresAddress,
    *,
    replace: bool = False,
    clock: Clock | None = None,
) -> Restored:
    """Verify a backup and record its events in a database.

    The log in the database must be empty or have the first events of the backup, as
    after an interrupted restore. The backup is only read.

    Raises:
        CallerError: There is no backup, or the log is to be replaced.
        ForkError: The database has a different history; nothing was recorded.
        CorruptLogError: The backup is damaged; nothing was recorded.
        StoreError: A log cannot be read or written; restore again to continue.
    """
    clock = clock or SystemClock()
    _check(backup, log, replace=replace)
    async with private_directory(Path(tempfile.gettempdir())) as directory:
        copied = directory / "backup.db"
        await asyncio.to_thread(copy_offline, backup, copied)
        found = await verified(
            copied, clock, subject=backup, archive_directory=backup.parent
        )
        done = await copy(copied, log, clock)
    return Restored(
        path=log, position=done.position, hash=done.hash, findings=found.findings
    )


def _check(backup: Path, log: PostgresAddress, *, replace: bool) -> None:
    if replace:
        raise CallerError(
            str(log),
            "is never replaced, since its events cannot be deleted",
            "Restore to another schema: add ?schema=NAME to the address",
        )
    if not backup.is_file():
        raise CallerError(str(backup), "does not exist", "Check the path")
