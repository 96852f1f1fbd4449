"""Read a log that this process cannot write: read-only media, or lack of permission.

SQLite reads a log in WAL mode only where it may create the ``-shm``. Without a
``-wal`` the file is complete and is read where it is, as one that does not change. A
``-wal`` with events, or an older schema, needs writing: then the files are copied to a
temporary directory, and the copy is read.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from herdbook.events.errors import StoreUnavailableError
from herdbook.events.sqlite.log_file import Access, log_file_path
from herdbook.events.sqlite.schema import NEWEST
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.sqlite.wal import is_in_use

COPIED = ("", "-wal", "-head")
"""The files of a log that a copy needs; the ``-shm`` is made from the ``-wal``."""

ATTEMPTS = 5
"""Number of attempts to copy files that another process does not change meanwhile."""

RETRY_S = 0.1
"""Interval between two attempts, seconds."""

_HEADER_BYTES = 100
_USER_VERSION = slice(60, 64)
"""Where SQLite keeps the schema number: https://www.sqlite.org/fileformat.html."""


def is_read_only(log: Path) -> bool:
    """Return whether a log exists that can be read, but not written."""
    try:
        path = log_file_path(log)
        if not path.is_file() or not os.access(path, os.R_OK):
            return False
        return not all(os.access(place, os.W_OK) for place in (path, path.parent))
    except (OSError, ValueError):  # not a usable path, which opening it reports
        return False


@asynccontextmanager
async def open_for_reading(
    log: Path, *, clock: Callable[[], datetime]
) -> AsyncIterator[SQLiteEventStore]:
    """Open a log that cannot be written; close it when the block ends.

    Appends to the store are refused. If the files were copied, the store shows the log
    as it was then.

    Raises:
        StoreError: The log cannot be opened.
    """
    path = log_file_path(log)
    if _is_complete(path):
        opening = SQLiteEventStore.open(path, clock=clock, access=Access.IMMUTABLE)
        async with await opening as store:
            yield store
        return
    with tempfile.TemporaryDirectory(prefix="herdbook-") as directory:
        copy = Path(directory) / path.name
        await asyncio.to_thread(_copy, path, copy)
        opening = SQLiteEventStore.open(
            copy, clock=clock, access=Access.COPY, archive_directory=path.parent
        )
        async with await opening as store:
            yield store


def _is_complete(path: Path) -> bool:
    """Return whether the file alone is a log of the newest schema, and not in use."""
    if _stamps(path)[1] is not None or is_in_use(path):
        return False
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    return int.from_bytes(header[_USER_VERSION], "big") == NEWEST


def _copy(path: Path, copy: Path) -> None:
    """Copy the files of a log as they are at one time.

    Raises:
        StoreUnavailableError: Another process keeps writing, or the copy fails.
    """
    for _ in range(ATTEMPTS):
        before = _stamps(path)
        try:
            for ending in COPIED:
                if (file := log_file_path(path, ending)).exists():
                    shutil.copyfile(file, f"{copy}{ending}")
        except OSError as error:
            raise StoreUnavailableError(
                str(path),
                f"cannot be copied to {copy.parent}: {error.strerror}",
                "Set TMPDIR to a directory with enough space",
            ) from error
        if _stamps(path) == before:
            return
        time.sleep(RETRY_S)
    raise StoreUnavailableError(
        str(path),
        "cannot be copied: another process keeps writing to it",
        "Give this user permission to write the log and its directory",
    )


def _stamps(path: Path) -> list[tuple[int, int] | None]:
    """Return size and modification time of the file and of its ``-wal``, if any."""
    files = (path, log_file_path(path, "-wal"))
    found = [file.stat() if file.exists() else None for file in files]
    return [
        (one.st_size, one.st_mtime_ns) if one and one.st_size else None for one in found
    ]
