"""The SQL of the SQLite store: queries by name, migrations by number, and the schema.

The SQL is in ``sql/*.sql`` and is read once, when this module is imported.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from herdbook.events.codec import column_text
from herdbook.events.shared.named_queries import named_queries

APPLICATION_ID = 0x48455244
"""The application id in the header of a Herdbook log: ``HERD`` in ASCII."""

_SQL = Path(__file__).with_name("sql")

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


class SchemaDifference(NamedTuple):
    """How the schema of a file differs from the migrations.

    Attributes:
        altered: Names that are missing or were changed.
        added: Names that were added to a table of the log, such as a trigger.
        foreign: Names of other programs' tables and their indexes, as replication and
            backup tools add them. They do not affect the log.
    """

    altered: tuple[str, ...]
    added: tuple[str, ...]
    foreign: tuple[str, ...]


def compare(
    found: Iterable[tuple[object, object, object]],
    expected: Iterable[tuple[object, object, object]],
) -> SchemaDifference:
    """Compare two results of the query ``schema``: rows of name, SQL and table."""
    present = {column_text(name): (sql, table) for name, sql, table in found}
    created = {column_text(name): (sql, table) for name, sql, table in expected}
    tables = {table for _, table in created.values()}
    others = {
        name: table for name, (_, table) in present.items() if name not in created
    }
    altered = [name for name in created if present.get(name) != created[name]]
    added = [name for name, table in others.items() if table in tables]
    foreign = [name for name, table in others.items() if table not in tables]
    return SchemaDifference(
        tuple(sorted(altered)), tuple(sorted(added)), tuple(sorted(foreign))
    )
