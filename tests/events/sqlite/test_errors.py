"""Errors of SQLite are all translated."""

from __future__ import annotations

import sqlite3

import pytest

from herdbook.events import errors
from herdbook.events.errors import HerdbookError, InterruptedWriteError, StoreError
from herdbook.events.sqlite.errors import (
    SQLITE_ERRORS,
    InUseError,
    SQLiteError,
    translate,
)

CLASSES = [
    value
    for value in vars(sqlite3).values()
    if isinstance(value, type) and issubclass(value, Exception)
]


def coded(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_is_caught_and_translated(kind: type[SQLiteError]) -> None:
    error = kind("what SQLite says")
    assert isinstance(error, SQLITE_ERRORS)
    assert isinstance(translate(error, "herd.db"), StoreError)


def test_every_code_is_translated() -> None:
    # The low byte is the primary result code, the rest extends it.
    for code in (low | high << 8 for low in range(1, 256) for high in range(64)):
        error = translate(coded(code), "herd.db")
        assert isinstance(error, StoreError)
        assert error.subject == "herd.db"
        assert "what SQLite says" in str(error)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_BUSY_SNAPSHOT, InUseError),
        (sqlite3.SQLITE_LOCKED_SHAREDCACHE, InUseError),
        (sqlite3.SQLITE_READONLY_DIRECTORY, errors.StoreUnavailableError),
        (sqlite3.SQLITE_CANTOPEN_ISDIR, errors.StoreUnavailableError),
        (sqlite3.SQLITE_PERM, errors.StoreUnavailableError),
        (sqlite3.SQLITE_FULL, errors.StoreFullError),
        (sqlite3.SQLITE_NOTADB, errors.NotALogError),
        (sqlite3.SQLITE_CORRUPT_INDEX, errors.CorruptLogError),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, errors.ConflictError),
        (sqlite3.SQLITE_CONSTRAINT_TRIGGER, errors.ConflictError),
        (sqlite3.SQLITE_IOERR_FSYNC, InterruptedWriteError),
        (sqlite3.SQLITE_NOMEM, InterruptedWriteError),
        (sqlite3.SQLITE_INTERRUPT, InterruptedWriteError),
    ],
)
def test_code_says_what_is_wrong(code: int, expected: type[HerdbookError]) -> None:
    assert type(translate(coded(code), "herd.db")) is expected
