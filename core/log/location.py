"""Where a log is: in a file, in memory, or in a PostgreSQL database."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeAlias

from herdbook.events.postgres.address import PostgresAddress, is_postgres

MEMORY: Final = ":memory:"
"""The name of a log that is only in memory."""

LogLocation: TypeAlias = Path | PostgresAddress
"""A file or a database. As text, neither shows a password."""


def log_location(log: str | LogLocation) -> LogLocation:
    """Return the location that a text names: a path, or ``postgresql://``.

    Raises:
        CallerError: The address of the database is not valid.
    """
    if isinstance(log, str):
        return PostgresAddress(log) if is_postgres(log) else Path(log)
    return log
