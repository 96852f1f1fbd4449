"""Examine the file of a log: quick checks that only read.

No file is created, migrated or recovered here, and a file that cannot be read raises
an error of Herdbook. ``verify`` checks the events themselves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

import msgspec

from herdbook.events.codec import column_text, text_or_bytes
from herdbook.events.errors import NewerSchemaError, NotALogError
from herdbook.events.sqlite.errors import SQLITE_ERRORS, translate
from herdbook.events.sqlite.kept_head import KeptHead, contradiction
from herdbook.events.sqlite.log_file import log_exists, log_file_path
from herdbook.events.sqlite.schema import (
    APPLICATION_ID,
    CONNECTION,
    MIGRATIONS,
    NEWEST,
    QUERIES,
    SchemaDifference,
    compare,
)
from herdbook.events.sqlite.use_mark import has_wal, missing_in_copy
from herdbook.events.sqlite.wal import check_wal
from herdbook.events.store import Head

NEWEST_TIMES = 1000
"""Number of the newest events of which the time of recording is read."""

_WANTED = {
    "synchronous": 2,
    "recursive_triggers": 1,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "mmap_size": 0,
}
"""The settings of ``connection.sql``, as SQLite reports them."""

_WAL_FORMAT = b"\x02\x02"
"""Bytes 18 and 19 of a file with a write-ahead log (sqlite.org/fileformat.html)."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """The result of examining the file of a log.

    Attributes:
        schema: Number of the last migration that was applied.
        settings: Settings of the connection that had no effect, in words.
        altered: Tables, indexes and triggers that differ from the migrations.
        foreign: Tables of other programs, and their indexes.
        head: End of the log, from its head row.
        last: Position and hash of the newest event.
        recorded_at: Times of recording of the newest events, oldest first.
        kept: The saved head, if it can be read.
        is_kept_damaged: Whether the saved head exists but cannot be read.
        missing: Which events are missing, in words; empty if none are known to be.
    """

    schema: int
    settings: tuple[str, ...]
    altered: tuple[str, ...]
    foreign: tuple[str, ...]
    head: Head
    last: Head
    recorded_at: tuple[datetime, ...]
    kept: Head | None = None
    is_kept_damaged: bool = False
    missing: str = ""


def examine(path: Path) -> Condition | None:
    """Examine the file of a log; return None if there is no log yet.

    Raises:
        NotALogError: The file is not a Herdbook log.
        NewerSchemaError: A newer version of Herdbook wrote the log.
        CorruptLogError: Opening the log would drop commits, or a part is missing.
        StoreError: The file cannot be read.
    """
    if not log_exists(path):
        return None
    check_wal(path)
    kept = KeptHead(path)
    head = kept.read()  # before the log, to which other processes may append
    had_wal = has_wal(path)
    try:
        with closing(_connect(path)) as connection:
            condition = _examine(connection, path)
            return msgspec.structs.replace(
                condition,
                kept=head,
                is_kept_damaged=kept.is_damaged,
                missing=_missing(connection, head)
                or _missing_in_copy(connection, path, had_wal=had_wal),
            )
    except SQLITE_ERRORS as error:
        raise translate(error, str(path)) from error


def _connect(path: Path) -> sqlite3.Connection:
    """Connect without creating a file: a log without a ``-wal`` is not open."""
    path = log_file_path(path)
    in_use = log_file_path(path, "-wal").exists()
    options = "mode=ro" if in_use else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"{path.as_uri()}?{options}", uri=True)
    connection.text_factory = text_or_bytes
    return connection


def _examine(connection: sqlite3.Connection, path: Path) -> Condition:
    if _one(connection, "PRAGMA application_id") != APPLICATION_ID:
        raise NotALogError(str(path), "is not a Herdbook log", "Choose another file")
    schema = _one(connection, "PRAGMA user_version")
    if schema > NEWEST:
        raise NewerSchemaError(
            str(path),
            f"has schema {schema}, but this version supports up to {NEWEST}",
            "Use a newer version of Herdbook",
        )
    newest = connection.execute(
        "SELECT position, hash, recorded_at FROM events ORDER BY position DESC LIMIT ?",
        [NEWEST_TIMES],
    ).fetchall()
    difference = _difference(connection, schema)
    return Condition(
        schema=schema,
        settings=tuple(_not_taken(connection, path)),
        altered=difference.altered + difference.added,
        foreign=difference.foreign,
        head=_head(connection.execute(QUERIES["head"]).fetchone()),
        last=_head(newest[0][:2] if newest else None),
        recorded_at=tuple(_times(row[2] for row in reversed(newest))),
    )


def _head(row: tuple[int, object] | None) -> Head:
    return Head(row[0], column_text(row[1])) if row else Head()


def _missing(connection: sqlite3.Connection, kept: Head | None) -> str:
    if kept is None:
        return ""
    row = connection.execute(QUERIES["hash_at"], {"position": kept.position}).fetchone()
    if row[0] is None and kept.position <= _boundary(connection):
        return ""  # archived; the store compares it with the archive
    return contradiction(kept, *row)


def _missing_in_copy(
    connection: sqlite3.Connection, path: Path, *, had_wal: bool
) -> str:
    if not _has_table(connection, "views"):
        return ""
    rows = connection.execute(QUERIES["use_mark"]).fetchall()
    return missing_in_copy(rows, path, had_wal=had_wal)


def _boundary(connection: sqlite3.Connection) -> int:
    """Return the position of the last archived event; 0 for an older schema too."""
    if not _has_table(connection, "archives"):
        return 0
    boundary: int = connection.execute(QUERIES["boundary"]).fetchone()[0]
    return boundary


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    named = "SELECT 1 FROM sqlite_schema WHERE name = ?"
    return connection.execute(named, [name]).fetchone() is not None


def _times(texts: Iterable[object]) -> Iterator[datetime]:
    """Yield the valid times; ``verify`` reports the others."""
    for text in texts:
        with suppress(ValueError):
            time = datetime.fromisoformat(str(text))
            if time.tzinfo is not None:
                yield time


def _one(connection: sqlite3.Connection, pragma: str) -> int:
    """Return the value of a pragma; 0 if this build of SQLite does not have it."""
    row: tuple[int] | None = connection.execute(pragma).fetchone()
    return row[0] if row else 0


def _not_taken(connection: sqlite3.Connection, path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        header = file.read(20)
    if header[18:] != _WAL_FORMAT:
        yield "journal_mode is not wal"
        return  # setting it would write to the file
    connection.executescript(CONNECTION)
    for name, wanted in _WANTED.items():
        found = _one(connection, f"PRAGMA {name}")
        if found != wanted:
            yield f"{name} is {found}, not {wanted}"


def _difference(connection: sqlite3.Connection, schema: int) -> SchemaDifference:
    found = connection.execute(QUERIES["schema"]).fetchall()
    with closing(sqlite3.connect(":memory:")) as pristine:
        for migration in MIGRATIONS[:schema]:
            for statement in migration:
                pristine.execute(statement)
        return compare(found, pristine.execute(QUERIES["schema"]).fetchall())
