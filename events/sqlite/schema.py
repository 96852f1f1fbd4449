"""The SQL of the SQLite store: queries by name, and migrations by number.

All of it stands in ``sql/*.sql`` and is read once, when this is imported.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.resources import files

APPLICATION_ID = 0x48455244
"""What SQLite keeps in the header of a file that is ours: ``HERD``."""

_SQL = files("herdbook.events.sqlite") / "sql"

CONNECTION = (_SQL / "connection.sql").read_text("utf-8")
"""What is run on every connection first."""


def _named(text: str) -> Iterator[tuple[str, str]]:
    for part in text.split("-- name: ")[1:]:
        name, _, body = part.partition("\n")
        lines = [line for line in body.splitlines() if not line.startswith("--")]
        yield name, "\n".join(lines).strip()


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines():
        if line.startswith("--"):
            continue
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""


QUERIES = dict(_named((_SQL / "queries.sql").read_text("utf-8")))
"""Every query by its name."""

MIGRATIONS: tuple[tuple[str, ...], ...] = tuple(
    tuple(_statements((_SQL / "migrations" / name).read_text("utf-8")))
    for name in ("001_events.sql", "002_views.sql", "003_view_checksums.sql")
)
"""The statements of each migration; the n-th makes a database of schema n."""

NEWEST = len(MIGRATIONS)
"""The schema that this version writes."""
