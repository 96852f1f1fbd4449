"""In what condition the file of a log is, as far as that can be told at once.

Reads and never writes: no file is made, migrated or recovered here, and what cannot
be read is an error of ours. Whether every event is right, ``verify`` tells.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

import msgspec

from herdbook.events.errors import NewerSchemaError, NotALogError
from herdbook.events.raw_text import shown, text_or_bytes
from herdbook.events.sqlite.errors import SQLITE_ERRORS, translate
from herdbook.events.sqlite.kept_head import KeptHead, contradiction
from herdbook.events.sqlite.log_file import beside, is_there
from herdbook.events.sqlite.schema import (
    APPLICATION_ID,
    CONNECTION,
    MIGRATIONS,
    NEWEST,
    QUERIES,
)
from herdbook.events.sqlite.wal import check_wal
from herdbook.events.store import Head

NEWEST_TIMES = 1000
"""How many of the newest events are asked when they were recorded."""

_WANTED = {
    "synchronous": 2,
    "recursive_triggers": 1,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "mmap_size": 0,
}
"""What ``connection.sql`` sets on a connection, as SQLite tells it."""

_WAL_FORMAT = b"\x02\x02"
"""Bytes 18 and 19 of a file with a write-ahead log (sqlite.org/fileformat.html)."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at the file tells.

    Attributes:
        schema: Number of the last migration that it went through.
        settings: Settings of the connection that did not take, in words.
        altered: Tables, indexes and triggers that are not what they were made as.
        head: The end of the log, as its head row has it.
        last: The newest event, as it stands there.
        recorded_at: When the newest events were recorded, the oldest first.
        kept: The head that was kept next to the log, if it can be read.
        is_kept_damaged: Whether there is a kept head that cannot be read.
        missing: How the log contradicts its kept head, in words; empty if it does not.
    """

    schema: int
    settings: tuple[str, ...]
    altered: tuple[str, ...]
    head: Head
    last: Head
    recorded_at: tuple[datetime, ...]
    kept: Head | None = None
    is_kept_damaged: bool = False
    missing: str = ""


def examine(path: Path) -> Condition | None:
    """Look at the file of a log; None where there is none yet.

    Raises:
        NotALogError: It is something else.
        NewerSchemaError: A newer Herdbook wrote it.
        CorruptLogError: Opening it would drop commits, or it is only partly there.
        StoreError: It cannot be read, or not as a log.
    """
    if not is_there(path):
        return None
    check_wal(path)
    kept = KeptHead(path)
    head = kept.read()  # before the log, which others may be writing
    try:
        with closing(_connect(path)) as connection:
            condition = _examine(connection, path)
            return msgspec.structs.replace(
                condition,
                kept=head,
                is_kept_damaged=kept.is_damaged,
                missing=_missing(connection, head),
            )
    except SQLITE_ERRORS as error:
        raise translate(error, str(path)) from error


def _connect(path: Path) -> sqlite3.Connection:
    """Connect so that no file is made: nobody has a log open that has no ``-wal``."""
    path = beside(path)
    in_use = beside(path, "-wal").exists()
    options = "mode=ro" if in_use else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"{path.as_uri()}?{options}", uri=True)
    connection.text_factory = text_or_bytes
    return connection


def _examine(connection: sqlite3.Connection, path: Path) -> Condition:
    if _one(connection, "PRAGMA application_id") != APPLICATION_ID:
        raise NotALogError(str(path), "is not a Herdbook log", "Name another file")
    schema = _one(connection, "PRAGMA user_version")
    if schema > NEWEST:
        raise NewerSchemaError(
            str(path),
            f"has schema {schema}; this version knows {NEWEST}",
            "Use a newer version of Herdbook",
        )
    newest = connection.execute(
        "SELECT position, hash, recorded_at FROM events ORDER BY position DESC LIMIT ?",
        [NEWEST_TIMES],
    ).fetchall()
    return Condition(
        schema=schema,
        settings=tuple(_not_taken(connection, path)),
        altered=tuple(_altered(connection, schema)),
        head=_head(connection.execute(QUERIES["head"]).fetchone()),
        last=_head(newest[0][:2] if newest else None),
        recorded_at=tuple(_times(row[2] for row in reversed(newest))),
    )


def _head(row: tuple[int, object] | None) -> Head:
    return Head(row[0], shown(row[1])) if row else Head()


def _missing(connection: sqlite3.Connection, kept: Head | None) -> str:
    if kept is None:
        return ""
    row = connection.execute(QUERIES["hash_at"], {"position": kept.position}).fetchone()
    return contradiction(kept, *row)


def _times(texts: Iterable[object]) -> Iterator[datetime]:
    """Yield what is a time; what is none is for ``verify`` to find."""
    for text in texts:
        with suppress(ValueError):
            moment = datetime.fromisoformat(str(text))
            if moment.tzinfo is not None:
                yield moment


def _one(connection: sqlite3.Connection, pragma: str) -> int:
    """Return a number that SQLite tells; one that its builder left out is 0."""
    row: tuple[int] | None = connection.execute(pragma).fetchone()
    return row[0] if row else 0


def _not_taken(connection: sqlite3.Connection, path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        header = file.read(20)
    if header[18:] != _WAL_FORMAT:
        yield "journal_mode is not wal"
        return  # to set it would write to the file
    connection.executescript(CONNECTION)
    for name, wanted in _WANTED.items():
        found = _one(connection, f"PRAGMA {name}")
        if found != wanted:
            yield f"{name} is {found}, not {wanted}"


def _altered(connection: sqlite3.Connection, schema: int) -> list[str]:
    found = {shown(name): sql for name, sql in connection.execute(QUERIES["schema"])}
    with closing(sqlite3.connect(":memory:")) as pristine:
        for migration in MIGRATIONS[:schema]:
            for statement in migration:
                pristine.execute(statement)
        made = dict(pristine.execute(QUERIES["schema"]).fetchall())
    return sorted(n for n in made.keys() | found.keys() if made.get(n) != found.get(n))
