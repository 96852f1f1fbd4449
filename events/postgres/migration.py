"""Create the log in a database, or migrate it; several instances may start at once."""

from __future__ import annotations

from typing import NamedTuple

from psycopg import sql

from herdbook.events.errors import NewerSchemaError, NotALogError, StoreUnavailableError
from herdbook.events.postgres.errors import NotPermittedError, said
from herdbook.events.postgres.schema import MIGRATIONS, NEWEST
from herdbook.events.postgres.session import Session


class _Found(NamedTuple):
    """What a database has at the address of a log.

    Attributes:
        has_schema: Whether the schema exists.
        version: Number of the log's schema; 0 if there is no log.
        is_renamed: Whether the schema had another name when the log was created.
    """

    has_schema: bool
    version: int = 0
    is_renamed: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether nothing is to be done."""
        return self.version == NEWEST and not self.is_renamed


async def migrate(session: Session, schema: str) -> None:
    """Create the log in a schema of the database, or run the missing migrations.

    All or none of them take effect, and one instance runs them at a time.

    Raises:
        NotALogError: Another program uses the schema; it was not changed.
        NewerSchemaError: A newer version wrote the log; it was not changed.
        StoreUnavailableError: The user may not create the log.
    """
    found = await _find(session, schema)
    if found.is_ready:
        return
    try:
        await session.once("begin")
        await session.once("lock_migrations", schema=schema)
        found = await _find(session, schema)
        # CREATE SCHEMA IF NOT EXISTS needs permission even where the schema exists.
        if not found.has_schema:
            create = sql.SQL("CREATE SCHEMA {}")
            await session.script(create.format(sql.Identifier(schema)).as_bytes())
        if found.is_renamed:
            await session.once("use_renamed_schema")
        for migration in MIGRATIONS[found.version :]:
            await session.script(migration)
        await session.once("set_schema_version", version=NEWEST)
        await session.once("commit")
    except NotPermittedError as error:
        session.drop()
        raise _may_not(session.subject, found, error) from error
    except BaseException:
        session.drop()  # the transaction ends with its connection
        raise


def _may_not(subject: str, found: _Found, error: Exception) -> NotPermittedError:
    """Return the error of a user who may not create or migrate the log."""
    reason = said(error)
    if found.version:
        return NotPermittedError(
            subject,
            "must be migrated, which this user may not do",
            f"Start this version once with the user that owns the log{reason}",
        )
    return NotPermittedError(
        subject,
        "does not permit this user to create the log",
        "GRANT CREATE ON DATABASE to the user, or name a schema that the user owns"
        f"{reason}",
    )


async def log_version(session: Session, schema: str) -> int:
    """Return the number of the log's schema; 0 if there is no log.

    Raises:
        NotALogError: Another program uses the schema.
        NewerSchemaError: A newer version wrote the log.
    """
    return (await _find(session, schema)).version


async def _find(session: Session, schema: str) -> _Found:
    exists, tables, is_log = (await session.once("tables", schema=schema))[0]
    if not is_log:
        if exists and tables:
            raise NotALogError(
                session.subject,
                f"has the tables of another program in the schema {schema!r}",
                "Choose another schema: add ?schema=NAME to the address",
            )
        return _Found(exists)
    rows = await session.once("schema_version")
    if not rows:
        raise StoreUnavailableError(
            session.subject, "has no schema version", "Run: herdbook verify"
        )
    version, is_renamed = rows[0]
    if version > NEWEST:
        raise NewerSchemaError(
            session.subject,
            f"has schema {version}, but this version supports up to {NEWEST}",
            "Use a newer version of Herdbook",
        )
    return _Found(exists, version, is_renamed)
