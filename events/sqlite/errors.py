"""Translate the errors of SQLite to errors of Herdbook.

The table is by primary result code (https://www.sqlite.org/rescode.html). Every
other code counts as interrupted: after a write, it is unknown whether the data were
stored, and the error says so.
"""

from __future__ import annotations

import sqlite3
from typing import TypeAlias

from herdbook.events.errors import (
    VERIFY_OR,
    ConflictError,
    CorruptLogError,
    InterruptedWriteError,
    NotALogError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from herdbook.events.shared.file_descriptors import (
    RAISE_THE_LIMIT,
    TOO_MANY,
    has_descriptors,
)

SQLiteError: TypeAlias = sqlite3.Error | sqlite3.Warning | UnicodeError
"""The errors that the module ``sqlite3`` raises: its own base classes, and an error
in decoding a message that quotes a damaged schema."""

SQLITE_ERRORS: tuple[type[SQLiteError], ...] = (
    sqlite3.Error,
    sqlite3.Warning,
    UnicodeError,
)
"""The same, for ``except``."""


class InUseError(StoreUnavailableError):
    """Another connection holds a lock; nothing was written."""


_IN_USE = (
    InUseError,
    "is locked by another process",
    "Retry later, or stop the process that holds the lock",
)
_NOT_WRITABLE = (
    StoreUnavailableError,
    "cannot be written",
    "Give write permission for the file and its directory",
)
_NOT_OPENED = (
    StoreUnavailableError,
    "cannot be opened",
    "Check that it is a file, and that you may read and write it and its directory",
)
_NO_DATABASE = (
    NotALogError,
    "is not a Herdbook log",
    "Use another file; this one was not changed",
)
_DAMAGED = (CorruptLogError, "is damaged", f"{VERIFY_OR}restore a backup")

_BY_CODE: dict[int, tuple[type[StoreError], str, str]] = {
    sqlite3.SQLITE_BUSY: _IN_USE,
    sqlite3.SQLITE_LOCKED: _IN_USE,
    sqlite3.SQLITE_READONLY: _NOT_WRITABLE,
    sqlite3.SQLITE_PERM: _NOT_WRITABLE,
    sqlite3.SQLITE_AUTH: _NOT_WRITABLE,
    sqlite3.SQLITE_CANTOPEN: _NOT_OPENED,
    sqlite3.SQLITE_FULL: (
        StoreFullError,
        "cannot grow: the disk is full",
        "Free some disk space",
    ),
    sqlite3.SQLITE_NOTADB: _NO_DATABASE,
    sqlite3.SQLITE_FORMAT: _NO_DATABASE,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_ERROR: _DAMAGED,  # the SQL is correct, so a table is missing
    sqlite3.SQLITE_CONSTRAINT: (
        ConflictError,
        "has changed in the meantime: the new events do not follow its end",
        "Read it again, then retry",
    ),
}


def translate(error: SQLiteError, subject: str) -> StoreError:
    """Return the error of Herdbook for an error of SQLite.

    Args:
        error: The error of SQLite.
        subject: Path of the log.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return _without_code(error, subject)
    if code & 0xFF == sqlite3.SQLITE_CANTOPEN and not has_descriptors():
        return StoreUnavailableError(
            subject, f"cannot be opened: {TOO_MANY}", RAISE_THE_LIMIT
        )
    # The low byte is the primary code; the other bits refine it.
    if known := _BY_CODE.get(code & 0xFF):
        kind, state, remedy = known
        return kind(subject, state, f"{remedy} ({error})")
    return InterruptedWriteError(subject, f"failed: {error}", "Check the system log")


def _without_code(error: SQLiteError, subject: str) -> StoreError:
    """Translate an error of the Python module, which has no result code."""
    if isinstance(error, sqlite3.OperationalError | UnicodeError):  # no UTF-8
        return CorruptLogError(subject, f"is damaged: {error}", "Run: herdbook verify")
    if isinstance(error, sqlite3.ProgrammingError):
        return StoreClosedError(subject, f"is closed: {error}", "Open it again")
    return InterruptedWriteError(subject, f"failed: {error}")
