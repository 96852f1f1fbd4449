"""What the database holds, read without Herdbook: ``psycopg``, ``json``, ``hashlib``.

A trigger of the oracle notes, for each event of a reconciler, which session wrote it
and which one had the lease of the node at that moment. Each instance may
record the operations of dead instances as interrupted, without a lease.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import psycopg

KEYS = (
    *("actor", "causation_id", "cause", "correlation_id", "data", "event_id"),
    *("occurred_at", "position", "recorded_at", "schema", "stream", "type", "version"),
)
GENESIS = "0" * 64

LEASES = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1
AND (classid::bigint << 32 | objid::bigint) = hashtextextended(%s, 0)
"""

TRIGGER = """
CREATE SCHEMA oracle;
CREATE TABLE oracle.writes (
    position bigint, type text, node text, writer integer, holder integer,
    at timestamptz DEFAULT clock_timestamp()
);
CREATE FUNCTION oracle.note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    node text := split_part(NEW.stream, '/', 2);
    lease bigint := hashtextextended('herdbook lease herdbook node/' || node, 0);
BEGIN
    INSERT INTO oracle.writes (position, type, node, writer, holder) SELECT
        NEW.position,
        NEW.type,
        node,
        (SELECT client_port FROM pg_stat_activity WHERE pid = pg_backend_pid()),
        (
            SELECT client_port FROM pg_locks INNER JOIN pg_stat_activity USING (pid)
            WHERE locktype = 'advisory' AND granted AND objsubid = 1
            AND (classid::bigint << 32 | objid::bigint) = lease
        );
    RETURN NULL;
END $$;
CREATE TRIGGER oracle_notes AFTER INSERT ON herdbook.events
FOR EACH ROW WHEN (NEW.actor = 'reconciler' AND NEW.type NOT LIKE '%Interrupted')
EXECUTE FUNCTION oracle.note();
"""

ENDS = {
    "LoadStarted": ("ModelLoaded", "LoadFailed", "LoadCancelled", "LoadInterrupted"),
    "ReloadStarted": (
        "ReloadCompleted",
        "ReloadUnchanged",
        "ReloadFailed",
        "ReloadCancelled",
        "ReloadInterrupted",
        "ModelUnloaded",
    ),
    "PullStarted": ("PullCompleted", "PullFailed", "PullCancelled", "PullInterrupted"),
}


class Event(NamedTuple):
    """An event as the oracle knows it."""

    position: int
    event_id: str
    stream: str
    type: str
    actor: str
    data: dict[str, Any]


class Write(NamedTuple):
    """Who wrote an event of a reconciler.

    Attributes:
        position: The position of the event.
        type: Its type.
        node: The node that it is about.
        writer: Port of the session that wrote it, on the side of the server.
        holder: Port of the session that had the lease; None if nobody had it.
        at: Time of the write, in seconds since the epoch.
    """

    position: int
    type: str
    node: str
    writer: int
    holder: int | None
    at: float


def watch_writes(url: str) -> None:
    """Note from now on who writes the events of reconcilers."""
    with psycopg.connect(url) as connection:
        connection.execute(TRIGGER)


def writes(url: str) -> list[Write]:
    """Return who wrote the events of reconcilers."""
    query = """
    SELECT position, type, node, writer, holder, extract(epoch FROM at)::float8
    FROM oracle.writes ORDER BY position
    """
    with psycopg.connect(url) as connection:
        rows = connection.execute(query)
        return [Write(*row) for row in rows]


def holders(url: str, nodes: Iterable[str]) -> dict[str, int]:
    """Return how many sessions have the lease of each node now."""
    with psycopg.connect(url, connect_timeout=2) as connection:
        found = {}
        for node in nodes:
            key = f"herdbook lease herdbook node/{node}"
            row = connection.execute(LEASES, (key,)).fetchone()
            found[node] = row[0] if row else 0
    return found


def read(url: str) -> tuple[list[Event], list[str]]:
    """Return the events, and everything that is wrong with them as a log."""
    with psycopg.connect(url) as connection:
        connection.execute("SET search_path = herdbook")
        rows = connection.execute(
            f"SELECT {', '.join(KEYS)}, hash FROM events ORDER BY position"
        ).fetchall()
        head = connection.execute("SELECT position, hash FROM head").fetchone()
    events, wrong = list[Event](), list[str]()
    previous, versions, ids = GENESIS, Counter[str](), set[str]()
    for *values, stored in rows:
        fields = dict(zip(KEYS, values, strict=True))
        previous = hashlib.sha256((previous + _canonical(fields)).encode()).hexdigest()
        versions[fields["stream"]] += 1
        place = f"#{fields['position']}"
        if fields["position"] != len(events) + 1:
            wrong.append(f"{place} follows #{len(events)}")
        if stored != previous:
            wrong.append(f"the chain breaks at {place}")
        if fields["version"] != versions[fields["stream"]]:
            wrong.append(
                f"{place} has version {fields['version']} of {fields['stream']}"
            )
        if fields["event_id"] in ids:
            wrong.append(f"{place} is recorded twice")
        ids.add(fields["event_id"])
        own = {key: fields[key] for key in Event._fields if key != "data"}
        events.append(Event(**own, data=json.loads(fields["data"])))
        if wrong:
            break
    if not wrong and head != (len(events), previous):
        wrong.append(f"the head is {head}")
    return events, wrong


def _canonical(fields: Mapping[str, Any]) -> str:
    parts = (
        f'"{key}":'
        + (value if key == "data" else json.dumps(value, ensure_ascii=False))
        for key, value in fields.items()
    )
    return "{" + ",".join(parts) + "}"


def tags(events: Iterable[Event]) -> Counter[str]:
    """Return how often each tag of a command is recorded."""
    found: Counter[str] = Counter()
    for event in events:
        if event.type == "ModelUsed":
            found[event.data["purpose"]] += 1
        elif event.type == "ConfigurationChanged":
            found[event.data["note"]] += 1
    return found


def doubled_work(events: Iterable[Event]) -> Iterator[str]:
    """Yield the work that started while the same model was at work, or never ended."""
    running: dict[tuple[str, str], int] = {}
    for event in events:
        for start, ends in ENDS.items():
            key = event.stream, start
            if event.type == start:
                if key in running:
                    yield f"#{event.position}: {start} of {event.stream} again"
                running[key] = event.position
            elif event.type in ends:
                running.pop(key, None)
    for (stream, start), position in running.items():
        yield f"#{position}: {start} of {stream} never ended"
