"""The SQL of the PostgreSQL store: queries by name, and migrations by number.

The SQL is in ``sql/*.sql`` and is read once, when this module is imported.
"""

from __future__ import annotations

from pathlib import Path

from herdbook.events.shared.named_queries import named_queries

_SQL = Path(__file__).with_name("sql")

QUERIES = {
    name: text.encode()
    for name, text in named_queries((_SQL / "queries.sql").read_text("utf-8")).items()
}
"""Queries by name, in the form that the driver takes."""

MIGRATIONS: tuple[bytes, ...] = tuple(
    (_SQL / "migrations" / name).read_bytes()
    for name in (
        "001_log.sql",
        "002_leases.sql",
        "003_faster_appends.sql",
        "004_append_events.sql",
        "005_head_is_at.sql",
    )
)
"""The scripts of the migrations; the n-th migration creates schema n."""

NEWEST = len(MIGRATIONS)
"""The schema that this version writes."""

TRIGGERS = frozenset(
    {
        "events_are_not_changed",
        "events_follow_the_head",
        "head_is_an_event",
        "head_is_not_deleted",
    }
)
"""The triggers that keep events from being changed."""
