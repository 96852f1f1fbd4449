"""Logs as older versions or other programs left them, written with raw SQL."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from herdbook.events.recorded import StoredEvent, canonical_bytes, chained_hash


def append_raw(
    path: Path, stream: str, type_: str, data: object, **columns: Any
) -> int:
    """Append an event with a right hash, whatever its data are; return its position.

    Args:
        path: The log, which nobody has open.
        stream: Name of the stream.
        type_: Name of the fact.
        data: The data, written as JSON; a text is taken as it is.
        columns: Other columns of the event.
    """
    with closing(sqlite3.connect(path)) as connection, connection:
        position, previous = connection.execute(
            "SELECT position, hash FROM head"
        ).fetchone()
        (version,) = connection.execute(
            "SELECT coalesce(max(version), 0) FROM events WHERE stream = ?", [stream]
        ).fetchone()
        event = msgspec.structs.replace(
            StoredEvent(
                position=position + 1,
                stream=stream,
                version=version + 1,
                event_id=f"raw-{position + 1}",
                type=type_,
                schema=1,
                data=data if isinstance(data, str) else json.dumps(data),
                occurred_at="2026-01-01T00:00:00.000000Z",
                recorded_at="2026-01-01T00:00:00.000000Z",
                actor="reconciler",
                cause="observed",
                correlation_id=None,
                causation_id=None,
                hash="",
            ),
            **columns,
        )
        hash_ = chained_hash(previous, canonical_bytes(event))
        row = msgspec.structs.astuple(msgspec.structs.replace(event, hash=hash_))
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO events VALUES ({marks})", row)
    return int(position) + 1


def alter(path: Path, *statements: str) -> None:
    """Run statements on a log without its triggers, and put the triggers back.

    Args:
        path: The log, which nobody has open.
        statements: The statements.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        query = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"
        triggers = connection.execute(query).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        for _, sql in triggers:
            connection.execute(sql)


def not_utf_8(path: Path, table: str, column: str, where: str) -> None:
    """Put bytes that are not UTF-8 into a text column."""
    alter(
        path,
        f"UPDATE {table} SET {column} = "
        f"CAST(CAST({column} AS BLOB) || x'ff' AS TEXT) WHERE {where}",
    )
