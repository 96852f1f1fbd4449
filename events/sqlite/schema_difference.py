"""Compare the tables, indexes and triggers of a file with those of the migrations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from herdbook.events.codec import column_text


class SchemaDifference(NamedTuple):
    """How the schema of a file differs from the migrations.

    Attributes:
        altered: Names that are missing, were changed, or were added to a table of the
            log, such as a trigger.
        foreign: Names of other programs' tables and their indexes, as replication and
            backup tools add them. They do not affect the log.
    """

    altered: tuple[str, ...]
    foreign: tuple[str, ...]


def compare(
    found: Iterable[tuple[object, object, object]],
    expected: Iterable[tuple[object, object, object]],
) -> SchemaDifference:
    """Compare two results of the query ``schema``: rows of name, SQL and table."""
    present = {column_text(name): (sql, table) for name, sql, table in found}
    created = {column_text(name): (sql, table) for name, sql, table in expected}
    tables = {table for _, table in created.values()}
    foreign = sorted(
        name
        for name, (_, table) in present.items()
        if name not in created and table not in tables
    )
    altered = sorted(
        name
        for name in present.keys() | created.keys()
        if present.get(name) != created.get(name) and name not in foreign
    )
    return SchemaDifference(tuple(altered), tuple(foreign))
