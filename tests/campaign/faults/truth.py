"""What a log holds, read without Herdbook: ``sqlite3``, ``json`` and ``hashlib``.

Archives, which are next to the log, are read with ``gzip``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

COLUMNS = [
    *("actor", "causation_id", "cause", "correlation_id", "data", "event_id"),
    *("occurred_at", "position", "recorded_at", "schema", "stream", "type", "version"),
]
GENESIS = "0" * 64


class LostError(AssertionError):
    """An acknowledged event, or an event before the damage, is missing."""


class InventedError(AssertionError):
    """An event is there that was never submitted, or it was changed."""


class SilentError(AssertionError):
    """Damage was not reported, or not as an error of Herdbook with a remedy."""


class Row(NamedTuple):
    """An event as the oracle knows it; the hash covers its whole content."""

    event_id: str
    hash: str


def history(path: Path) -> list[Row]:
    """Return the events of a log after checking each; [] if there is no log.

    Raises:
        InventedError: The file, the chain, a position or the head is wrong.
    """
    if not path.exists() or not path.stat().st_size:
        return []
    with closing(sqlite3.connect(path)) as log:
        if log.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            raise InventedError(f"{path.name} is damaged")
        if not log.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
            return []
        found, stopped = _chain(log, _archived(log, path.parent))
        if stopped:
            raise InventedError(f"{path.name}: {stopped}")
        head = log.execute("SELECT position, hash FROM head").fetchone()
        if found and head != (len(found), found[-1].hash):
            raise InventedError(f"{path.name} does not end at its head")
    return found


def readable(path: Path) -> list[Row]:
    """Return the valid events before the first damage of a log."""
    try:
        with closing(sqlite3.connect(path)) as log:
            log.text_factory = bytes
            return _chain(log)[0]
    except sqlite3.Error:
        return []


def _archived(log: sqlite3.Connection, folder: Path) -> list[Row]:
    """Return the archived events of a log, after checking those still in it."""
    named = "SELECT 1 FROM sqlite_schema WHERE name = 'archives'"
    if not log.execute(named).fetchall():
        return []
    found: list[Row] = []
    for first, last, file in log.execute("SELECT first, last, file FROM archives"):
        if first != len(found) + 1:
            raise InventedError(f"{file} does not follow the archive before it")
        found += archived(folder / file, found[-1].hash if found else GENESIS)
        if len(found) != last:
            raise LostError(f"{file} does not end at #{last}")
    rows = log.execute("SELECT position, event_id, hash FROM events")
    for position, event_id, hash_ in rows:
        if position <= len(found) and found[position - 1] != (event_id, hash_):
            raise InventedError(f"#{position} is another event in the archive")
    return found


def archived(file: Path, previous: str = GENESIS) -> list[Row]:
    """Return the events of an archive after checking each."""
    found: list[Row] = []
    with gzip.open(file) as lines:
        header = json.loads(next(lines))
        for line in lines:
            text = previous.encode() + line.rstrip(b"\n")
            previous = hashlib.sha256(text).hexdigest()
            event = json.loads(line)
            if event["position"] != header["after"] + len(found) + 1:
                raise InventedError(f"{file.name} is not in order")
            found.append(Row(event["event_id"], previous))
    if previous != header["hash"]:
        raise InventedError(f"{file.name}: the chain breaks")
    return found


def _chain(
    log: sqlite3.Connection, begin: list[Row] | None = None
) -> tuple[list[Row], str]:
    """Return the events up to the first bad one, and what is wrong with it.

    Args:
        log: The log.
        begin: The events that are archived.
    """
    found = list(begin or [])
    previous = found[-1].hash if found else GENESIS
    query = (
        f"SELECT {', '.join(COLUMNS)}, hash FROM events WHERE position > {len(found)} "
        "ORDER BY position"
    )
    try:
        for values in log.execute(query):
            *plain, stored = (v.decode() if isinstance(v, bytes) else v for v in values)
            fields = dict(zip(COLUMNS, plain, strict=True))
            parts = [
                f'"{key}":'
                + (value if key == "data" else json.dumps(value, ensure_ascii=False))
                for key, value in fields.items()
            ]
            text = previous + "{" + ",".join(parts) + "}"
            previous = hashlib.sha256(text.encode()).hexdigest()
            if stored != previous or fields["position"] != len(found) + 1:
                return found, f"the chain breaks at #{len(found) + 1}"
            found.append(Row(str(fields["event_id"]), previous))
    except (sqlite3.Error, UnicodeDecodeError, TypeError, ValueError) as error:
        return found, f"#{len(found) + 1}: {error}"
    return found, ""


def settings_at(path: Path, position: int) -> dict[str, tuple[int, dict[str, Any]]]:
    """Return the version and the settings of each model at a position.

    For a log that has only changes of settings.
    """
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    query = "SELECT stream, version, data FROM events WHERE position <= ?"
    with closing(sqlite3.connect(path)) as log:
        rows = log.execute(f"{query} ORDER BY position", [position])
        for stream, version, data in rows:
            name = stream.rpartition("/")[2]
            changed = json.loads(data)
            settings = {**found.get(name, (0, {}))[1], **changed["set"]}
            for each in changed["unset"]:
                settings.pop(each, None)
            found[name] = version, settings
    return found


def check(
    found: list[Row], before: list[Row], submitted: set[str], acknowledged: set[str]
) -> None:
    """Check a log after a crash: nothing is lost, changed or invented.

    Args:
        found: The events of the log now.
        before: Its events before the operation.
        submitted: Ids of the events that the operation submitted.
        acknowledged: Ids of the events whose append was acknowledged.
    """
    if found[: len(before)] != before:
        raise LostError("events from before the operation are missing or changed")
    ids = [row.event_id for row in found]
    if len(set(ids)) != len(ids):
        raise InventedError("an event is recorded twice")
    if missing := acknowledged - set(ids):
        raise LostError(f"{len(missing)} acknowledged events are missing")
    if strange := set(ids[len(before) :]) - submitted:
        raise InventedError(f"{len(strange)} events were never submitted")
