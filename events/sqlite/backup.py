"""Copy a log while it is in use, and put a file in the place of a log.

The functions block; callers run them in a thread.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from herdbook.events.errors import StoreError, StoreFullError, StoreUnavailableError
from herdbook.events.sqlite.errors import SQLITE_ERRORS, translate
from herdbook.events.sqlite.log_file import create_private, log_file_path
from herdbook.events.sqlite.schema import QUERIES

LOCK_TIMEOUT_S = 5.0
"""Seconds that a copy waits for a lock of another process."""

COMPANIONS = ("-wal", "-shm", "-head")
"""What SQLite and Herdbook keep next to a log, in the order in which they are moved.

The log itself moves first: a ``-wal`` without its log is refused, while a log without
its ``-wal`` would open as a shorter one. The saved head moves last, because it is the
evidence that something is missing.
"""


def copy_online(log: Path, target: Path) -> None:
    """Copy a log with SQLite's backup API; other processes may append meanwhile.

    The copy has all events that were recorded before the call, as one transaction
    sees them. It is on the disk when the function returns.

    Args:
        log: The log.
        target: The copy; it must not exist.

    Raises:
        StoreError: The log cannot be read, or the copy cannot be written.
    """
    create_private(target)
    uri = f"{log_file_path(log).as_uri()}?mode=rw"
    try:
        with (
            closing(sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT_S)) as source,
            closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            # In one step: between two steps a writer could make it start again.
            source.backup(copy, pages=-1)
            # This copy has what the -wal has.
            copy.execute(QUERIES["remove_use_mark"])
            # A backup is one file. The log gets its -wal again when it is opened.
            copy.execute("PRAGMA journal_mode = DELETE")
    except SQLITE_ERRORS as error:
        raise translate(error, str(target)) from error
    with _translated(target):
        _sync(target)


def copy_offline(backup: Path, target: Path) -> None:
    """Copy a backup, and its ``-wal`` if it has one; the backup is only read.

    Raises:
        StoreError: It cannot be read, or the copy cannot be written.
    """
    with _translated(target):
        create_private(target)
        shutil.copyfile(backup, target)
        wal = backup.with_name(f"{backup.name}-wal")
        if wal.exists():
            shutil.copyfile(wal, target.with_name(f"{target.name}-wal"))


def place(file: Path, target: Path) -> int:
    """Give a finished log its name, atomically and durably; return its size, bytes.

    Raises:
        StoreError: It cannot be renamed, or a part of it is still in a ``-wal``.
    """
    with _translated(target):
        wal = file.with_name(f"{file.name}-wal")
        if wal.exists() and wal.stat().st_size:  # SQLite could not empty it at close
            raise OSError(errno.EIO, f"{wal.name} could not be moved into the file")
        _sync(file)
        size = file.stat().st_size
        file.replace(target)
        _sync(target.parent)
        return size


def set_aside(log: Path, directory: Path) -> None:
    """Move a log and the files next to it into a new directory.

    A crash between two moves leaves a state that the next open refuses.

    Raises:
        StoreError: A file cannot be moved.
    """
    real = log_file_path(log)
    with _translated(directory):
        directory.mkdir(mode=0o700)
        for ending in ("", *COMPANIONS):
            file = log_file_path(log, ending)
            if file.exists():
                file.replace(directory / file.name)
                _sync(real.parent)
        _sync(directory)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind: type[StoreError] = StoreUnavailableError
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            kind = StoreFullError
        raise kind(
            str(path),
            f"cannot be written: {error.strerror or error}",
            "Choose a directory with free space and permission to write",
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
