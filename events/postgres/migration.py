"""Create the log in a database, or migrate it; several instances may start at once."""

from __future__ import annotations

from psycopg import sql

from herdbook.events.errors import NewerSchemaError, NotALogError, StoreUnavailableError
from herdbook.events.postgres.schema import MIGRATIONS, NEWEST
from herdbook.events.postgres.session import Session


async def migrate(session: Session, schema: str) -> None:
    """Create the log in a schema of the database, or run the missing migrations.

    All or none of them take effect, and one instance runs them at a time.

    Raises:
        NotALogError: Another program uses the schema; it was not changed.
        NewerSchemaError: A newer version wrote the log; it was not changed.
        StoreUnavailableError: The user may not create the log.
    """
    if await log_version(session, schema) == NEWEST:
        return
    try:
        await session.once("begin")
        await session.once("lock_migrations", schema=schema)
        found = await log_version(session, schema)
        if found == 0:
            create = sql.SQL("CREATE SCHEMA IF NOT EXISTS {}")
            await session.script(create.format(sql.Identifier(schema)).as_bytes())
        for migration in MIGRATIONS[found:]:
            await session.script(migration)
        await session.once("set_schema_version", version=NEWEST)
        await session.once("commit")
    except BaseException:
        session.drop()  # the transaction ends with its connection
        raise


async def log_version(session: Session, schema: str) -> int:
    """Return the number of the log's schema; 0 if there is no log.

    Raises:
        NotALogError: Another program uses the schema.
        NewerSchemaError: A newer version wrote the log.
    """
    exists, tables, is_log = (await session.once("tables", schema=schema))[0]
    if not is_log:
        if exists and tables:
            raise NotALogError(
                session.subject,
                f"has the tables of another program in the schema {schema!r}",
                "Choose another schema: add ?schema=NAME to the address",
            )
        return 0
    rows = await session.once("schema_version")
    version: int = rows[0][0] if rows else 0
    if version > NEWEST:
        raise NewerSchemaError(
            session.subject,
            f"has schema {version}, but this version supports up to {NEWEST}",
            "Use a newer version of Herdbook",
        )
    if not rows:
        raise StoreUnavailableError(
            session.subject, "has no schema version", "Run: herdbook verify"
        )
    return version
