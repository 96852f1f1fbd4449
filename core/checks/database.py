"""Checks of a log in a PostgreSQL database; nothing is written.

Each check returns a result, also if all is well. A missing log is not created.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from herdbook.core.checks.log import check_clock, check_head, check_instances, failed
from herdbook.core.diagnosis import Diagnosis, Level, diagnosis
from herdbook.core.errors import HerdbookError
from herdbook.core.log.storage import from_postgres_extra
from herdbook.events.postgres.address import PostgresAddress
from herdbook.projections.sentences import bytes_text

if TYPE_CHECKING:
    from herdbook.events.postgres.condition import Condition

SLOW_ANSWER_S = 0.02
"""Time of a round trip above which each command is noticeably slower, seconds."""


async def check_database(address: PostgresAddress, now: datetime) -> list[Diagnosis]:
    """Check a log in a database, and its server.

    Args:
        address: The address of the log.
        now: The current time, UTC.
    """
    try:
        with from_postgres_extra():
            # Imported late: the driver is an extra.
            from herdbook.events.postgres.condition import examine  # noqa: PLC0415
        condition = await examine(address)
    except HerdbookError as error:
        return [failed("log", error)]
    if condition is None:
        what = (
            f"{address} has no log yet; the first command that needs it creates it "
            f"in the schema {address.schema!r}"
        )
        return [diagnosis("log", what, level=Level.NOTICE)]
    return [*_log(address, condition, now)]


def _log(
    address: PostgresAddress, condition: Condition, now: datetime
) -> Iterator[Diagnosis]:
    yield diagnosis(
        "log",
        f"{address}, {bytes_text(condition.size_bytes)}, schema {condition.schema}, "
        f"{condition.last.position:,} events; to check each event: herdbook verify",
    )
    yield _server(condition)
    yield _connection(condition)
    yield _durability(condition)
    yield _triggers(condition)
    yield check_instances(condition.others)
    yield check_head(condition.head, condition.last)
    yield check_clock(condition.recorded_at, now)


def _server(condition: Condition) -> Diagnosis:
    what = (
        f"PostgreSQL {condition.server} answers in {condition.answer_s * 1000:.1f} ms"
    )
    if condition.answer_s <= SLOW_ANSWER_S:
        return diagnosis("database", what)
    return diagnosis(
        "database",
        what,
        "Run Herdbook closer to the database: each command waits for it",
        level=Level.NOTICE,
    )


def _connection(condition: Condition) -> Diagnosis:
    if condition.is_encrypted:
        return diagnosis("connection", "encrypted with TLS")
    if condition.is_local:
        return diagnosis("connection", "on this computer")
    return diagnosis(
        "connection",
        "is not encrypted",
        "Add sslmode=verify-full to the address",
        level=Level.WARNING,
    )


def _durability(condition: Condition) -> Diagnosis:
    if not condition.unsafe:
        return diagnosis("durability", "the server writes each commit to its disk")
    return diagnosis(
        "durability",
        f"the server runs with {' = off, '.join(condition.unsafe)} = off: if its "
        "machine crashes, events may be lost or damaged",
        "Turn it on in postgresql.conf",
        level=Level.WARNING,
    )


def _triggers(condition: Condition) -> Diagnosis:
    if not condition.missing:
        return diagnosis("triggers", "complete: events cannot be changed or deleted")
    return diagnosis(
        "triggers",
        f"missing or disabled: {', '.join(condition.missing)}",
        "The database was altered. Run herdbook verify to find other changes, or "
        "restore a backup",
        level=Level.PROBLEM,
    )
