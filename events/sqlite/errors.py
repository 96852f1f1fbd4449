"""What SQLite reports, in our words: the one seam where its errors end.

The table is by primary result code (https://www.sqlite.org/rescode.html). What
it does not list is taken for a break-off: at a write nobody can tell whether it
was kept, and saying so is the only answer that never lies.
"""

from __future__ import annotations

import sqlite3
from typing import TypeAlias

from herdbook.events.errors import (
    ConflictError,
    CorruptLogError,
    NotALogError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from herdbook.events.file_descriptors import RAISE_THE_LIMIT, TOO_MANY, has_descriptors

SQLiteError: TypeAlias = sqlite3.Error | sqlite3.Warning | UnicodeError
"""What the module ``sqlite3`` raises: the roots of its own, and what it meets in the
text of an error that quotes a damaged schema."""

SQLITE_ERRORS: tuple[type[SQLiteError], ...] = (
    sqlite3.Error,
    sqlite3.Warning,
    UnicodeError,
)
"""The same, to catch."""


class BrokenOffError(StoreUnavailableError):
    """The system broke off what SQLite did: a write may or may not be kept."""


class InUseError(StoreUnavailableError):
    """Another connection holds a lock; nothing was kept."""


_IN_USE = (
    InUseError,
    "is locked by another process",
    "Wait, or see which process holds it",
)
_NOT_WRITABLE = (
    StoreUnavailableError,
    "cannot be written",
    "Give write permission for the file and its directory",
)
_NOT_OPENED = (
    StoreUnavailableError,
    "cannot be opened",
    "See that it is a file, and that it and its directory may be read and written",
)
_NO_DATABASE = (
    NotALogError,
    "is not a Herdbook log",
    "Name another file; this one is left as it is",
)
_DAMAGED = (CorruptLogError, "is damaged", "Run: herdbook verify, or restore a backup")

_BY_CODE: dict[int, tuple[type[StoreError], str, str]] = {
    sqlite3.SQLITE_BUSY: _IN_USE,
    sqlite3.SQLITE_LOCKED: _IN_USE,
    sqlite3.SQLITE_READONLY: _NOT_WRITABLE,
    sqlite3.SQLITE_PERM: _NOT_WRITABLE,
    sqlite3.SQLITE_AUTH: _NOT_WRITABLE,
    sqlite3.SQLITE_CANTOPEN: _NOT_OPENED,
    sqlite3.SQLITE_FULL: (
        StoreFullError,
        "has no space left",
        "Make room on its file system",
    ),
    sqlite3.SQLITE_NOTADB: _NO_DATABASE,
    sqlite3.SQLITE_FORMAT: _NO_DATABASE,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_ERROR: _DAMAGED,  # our SQL is right, so a table is missing
    sqlite3.SQLITE_CONSTRAINT: (
        ConflictError,
        "refused what does not follow its end",
        "Read it again and decide anew",
    ),
}


def translate(error: SQLiteError, subject: str) -> StoreError:
    """Return our error for one of SQLite's.

    Args:
        error: What was raised.
        subject: The log that it is about.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return _without_code(error, subject)
    if code & 0xFF == sqlite3.SQLITE_CANTOPEN and not has_descriptors():
        return StoreUnavailableError(
            subject, f"cannot be opened: {TOO_MANY}", RAISE_THE_LIMIT
        )
    # The low byte is the primary code; the rest says more about it.
    if known := _BY_CODE.get(code & 0xFF):
        kind, state, remedy = known
        return kind(subject, state, f"{remedy} ({error})")
    return BrokenOffError(subject, f"failed: {error}", "See the system's log")


def _without_code(error: SQLiteError, subject: str) -> StoreError:
    """Translate what the Python module itself found wrong."""
    if isinstance(error, sqlite3.OperationalError | UnicodeError):  # no UTF-8
        return CorruptLogError(subject, f"is damaged: {error}", "Run: herdbook verify")
    if isinstance(error, sqlite3.ProgrammingError):
        return StoreClosedError(subject, f"is closed: {error}", "Open it again")
    return BrokenOffError(subject, f"failed: {error}")
