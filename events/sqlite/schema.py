"""The SQL of the SQLite store: queries by name, and migrations by number.

The SQL is in ``sql/*.sql`` and is read once, when this module is imported.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.resources import files

from herdbook.events.shared.named_queries import named_queries

APPLICATION_ID = 0x48455244
"""The application id in the header of a Herdbook log: ``HERD`` in ASCII."""

_SQL = files("herdbook.events.sqlite") / "sql"

CONNECTION = (_SQL / "connection.sql").read_text("utf-8")
"""The statements that set up every connection."""


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines():
        if line.startswith("--"):
            continue
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""


QUERIES = named_queries((_SQL / "queries.sql").read_text("utf-8"))
"""Queries by name."""

MIGRATIONS: tuple[tuple[str, ...], ...] = tuple(
    tuple(_statements((_SQL / "migrations" / name).read_text("utf-8")))
    for name in (
        "001_events.sql",
        "002_views.sql",
        "003_view_checksums.sql",
        "004_kept_views.sql",
        "005_archives.sql",
    )
)
"""The statements of each migration; the n-th migration creates schema n."""

NEWEST = len(MIGRATIONS)
"""The schema that this version writes."""
