"""Logs as older versions or other programs left them, written with raw SQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from herdbook.events.findings import Kind
from herdbook.events.recorded import StoredEvent, canonical_bytes, chained_hash
from herdbook.events.sqlite.schema import APPLICATION_ID, MIGRATIONS, NEWEST

MODEL = "llama3.2:3b"
"""The model of these logs; the sandbox server has it."""

STREAM = f"model/local/{MODEL}"
DIGEST = "a" * 64
RUNNER = {"runner": {"name": MODEL, "digest": DIGEST}}
LOST = {"kind": "node_unreachable", "message": "refused"}
HUGE = 10**400

SOUND: tuple[tuple[str, str, object], ...] = (
    ("node/local", "NodeReached", {"url": "", "version": "0.5.1"}),
    (STREAM, "ModelDiscovered", {"digest": DIGEST, "size_bytes": 1000}),
    (STREAM, "ModelLoaded", RUNNER),
    (STREAM, "ModelUsed", {"purpose": "a test"}),
    (STREAM, "ConfigurationChanged", {"set": {"num_ctx": 4096}}),
)
"""Events that are legal, one after another."""


def new_log(path: Path, *, schema: int = NEWEST) -> None:
    """Make a log of a schema, with the events of ``SOUND``."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA journal_mode = WAL")
        for migration in MIGRATIONS[:schema]:
            for statement in migration:
                connection.execute(statement)
    for stream, type_, data in SOUND:
        append_raw(path, stream, type_, data)


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


def write_invalid_utf8(path: Path, table: str, column: str, where: str) -> None:
    """Put bytes that are not UTF-8 into a text column."""
    alter(
        path,
        f"UPDATE {table} SET {column} = "
        f"CAST(CAST({column} AS BLOB) || x'ff' AS TEXT) WHERE {where}",
    )


class OddLog(NamedTuple):
    """Something odd in a log.

    Attributes:
        make: Puts it into the log that ``new_log`` makes; returns its position.
        kind: The kind of finding that it is.
    """

    make: Callable[[Path], int]
    kind: Kind


def _event(stream: str, type_: str, data: object, kind: Kind) -> OddLog:
    return OddLog(lambda path: append_raw(path, stream, type_, data), kind)


def _column(name: str) -> OddLog:
    def damage(path: Path) -> int:
        alter(path, f"UPDATE events SET {name} = 'x' WHERE position = 4")
        write_invalid_utf8(path, "events", name, "position = 4")
        return 4

    return OddLog(damage, Kind.UNREADABLE)


ODD: dict[str, OddLog] = {
    "load of an absent model": _event(
        "model/local/absent:1b", "ModelLoaded", RUNNER, Kind.TRANSITION
    ),
    "use of an absent model": _event(
        "model/local/absent:1b", "ModelUsed", {}, Kind.TRANSITION
    ),
    "end of an update that never began": _event(
        STREAM, "UpdateCancelled", {}, Kind.TRANSITION
    ),
    "pull of a loaded model": _event(
        STREAM, "PullStarted", {"instance": "gone"}, Kind.TRANSITION
    ),
    "end of a load that never began": _event(
        STREAM, "LoadInterrupted", {"instance": "gone"}, Kind.TRANSITION
    ),
    "end of a reload that never began": _event(
        STREAM, "ReloadFailed", {"kind": "refused", "message": ""}, Kind.TRANSITION
    ),
    "node fact in a model's stream": _event(STREAM, "NodeLost", LOST, Kind.STREAM),
    "node fact in a new model's stream": _event(
        "model/local/absent:1b", "NodeLost", LOST, Kind.STREAM
    ),
    "model fact in the node's stream": _event(
        "node/local", "ModelUsed", {}, Kind.STREAM
    ),
    "foreign stream": _event("notes", "ModelUsed", {}, Kind.STREAM),
    "foreign stream with a node fact": _event("notes", "NodeLost", LOST, Kind.STREAM),
    "empty model name": _event("model/local/", "ModelUsed", {}, Kind.STREAM),
    "empty node name": _event("node/", "NodeLost", LOST, Kind.STREAM),
    "name without a tag": _event(
        "model/local/mistral",
        "ModelDiscovered",
        {"digest": DIGEST, "size_bytes": 1},
        Kind.NAME,
    ),
    "unbounded count": _event(
        STREAM, "ModelUpdated", {"digest": DIGEST, "size_bytes": HUGE}, Kind.DATA
    ),
    **{
        f"{name} that is not UTF-8": _column(name)
        for name in StoredEvent.__struct_fields__
        if name not in {"position", "version", "schema"}
    },
}
"""Odd logs by name: each still answers every question."""


def odd_log(path: Path, what: str) -> int:
    """Make a log with something odd in it; return the position of that."""
    new_log(path)
    return ODD[what].make(path)
