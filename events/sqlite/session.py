"""Connections to the file of a log: named queries, setup and migrations.

Every error of SQLite is translated here, every connection is set up by
``connection.sql``, and a file that is not a Herdbook log is never written.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import (
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from traceback import clear_frames
from typing import Any, Protocol

from herdbook.events.codec import text_or_bytes
from herdbook.events.errors import (
    NewerSchemaError,
    NotALogError,
    StoreClosedError,
    StoreUnavailableError,
)
from herdbook.events.sqlite.errors import SQLITE_ERRORS, InUseError, translate
from herdbook.events.sqlite.recorder import Row
from herdbook.events.sqlite.schema import (
    APPLICATION_ID,
    CONNECTION,
    MIGRATIONS,
    NEWEST,
    QUERIES,
)

OLDEST_SQLITE = (3, 38)
"""STRICT tables came with SQLite 3.37, the operator ``->>`` with 3.38."""

LOCK_WAIT_S = 5.0
"""Time that a statement waits for the lock of another process, seconds."""

RETRY_S = 0.01
"""Interval between two attempts to set up a file, seconds."""


class Connection(Protocol):
    """The members of ``aiosqlite.Connection`` that are used.

    Attributes:
        text_factory: Makes the value of a text column from its bytes; ``str`` does it
            without a call, and fails if they are not UTF-8.
    """

    text_factory: Callable[[bytes], Any]

    def execute_fetchall(
        self, sql: str, parameters: Iterable[Any] | None = None
    ) -> Awaitable[Iterable[Any]]:
        """Run a statement and fetch its rows, in one call to the thread."""
        ...

    def executemany(
        self, sql: str, parameters: Iterable[Iterable[Any]]
    ) -> Awaitable[object]:
        """Run a statement for each row of parameters, for all of them or for none."""
        ...

    def executescript(self, sql_script: str) -> Awaitable[object]:
        """Run statements without parameters."""
        ...

    async def rollback(self) -> None:
        """End the transaction, if there is one."""
        ...

    async def close(self) -> None:
        """Close the connection, after the running statement."""
        ...


class Session:
    """A connection that runs queries by name and translates the errors of SQLite.

    Texts are decoded by the module itself, until one of them is not UTF-8: from then on
    ``text_or_bytes`` decodes all of them, which takes 0.07 µs a text.
    """

    def __init__(self, connection: Connection, subject: str) -> None:
        self._connection = connection
        self._is_closed = False
        self._process = os.getpid()
        self.subject = subject

    async def run(self, query: str, /, **parameters: object) -> Sequence[Row]:
        """Run a query by its name and return its rows."""
        return await self.execute(QUERIES[query], **parameters)

    async def execute(self, sql: str, /, **parameters: object) -> Sequence[Row]:
        """Run one statement and return its rows, in one call to the thread."""
        self._check_usable()
        with translated(self.subject):
            return [*await self._fetch(sql, parameters)]

    async def run_many(self, query: str, rows: Sequence[Row], /) -> None:
        """Run a query for each row of parameters, for all of them or for none.

        It has a transaction of its own, unless there is one already.
        """
        await self.execute_many(QUERIES[query], rows)

    async def execute_many(self, sql: str, rows: Sequence[Row], /) -> None:
        """Run one statement for each row, in one call to the thread."""
        self._check_usable()
        with translated(self.subject):
            await self._connection.executemany(sql, rows)

    def _check_usable(self) -> None:
        if self._is_closed:
            raise StoreClosedError(self.subject, "is closed", "Open it again")
        if (
            os.getpid() != self._process
        ):  # the thread does not exist here, so the call would hang
            raise StoreClosedError(
                self.subject,
                f"was opened by process {self._process}, but this is a fork of it",
                "Open the log in this process",
            )

    async def _fetch(self, sql: str, parameters: dict[str, object]) -> Iterable[Row]:
        try:
            return await self._connection.execute_fetchall(sql, parameters)
        except sqlite3.OperationalError as error:
            if not _is_not_utf_8(error):
                raise
            # A failed statement keeps its read transaction, which blocks checkpoints,
            # until its cursor is gone: a local variable of the frames of the error.
            clear_frames(error.__traceback__)
        # For good: another statement of this connection may fail in the same way now.
        self._connection.text_factory = text_or_bytes
        return await self._connection.execute_fetchall(sql, parameters)

    async def rollback(self) -> None:
        """Roll back the transaction, if there is one."""
        with translated(self.subject):
            await self._connection.rollback()

    async def set_up(self) -> None:
        """Apply ``connection.sql``, and check that it had an effect."""
        with translated(self.subject):
            await self._connection.executescript(CONNECTION)
        journal = (await self.run("journal_mode"))[0][0]
        synchronous = (await self.run("synchronous"))[0][0]
        if (journal, synchronous) != ("wal", 2):
            raise StoreUnavailableError(
                self.subject,
                "is on a file system without support for a write-ahead log",
                "Move it to a local disk",
            )

    async def close(self) -> None:
        """Close the connection, after the running statement."""
        self._is_closed = True
        with translated(self.subject):
            await self._connection.close()


def _is_not_utf_8(error: sqlite3.OperationalError) -> bool:
    """Return whether the module could not decode a text; SQLite has no such error."""
    return getattr(error, "sqlite_errorcode", None) is None


@contextmanager
def translated(subject: str) -> Iterator[None]:
    """Translate the errors of SQLite that are raised in this context."""
    try:
        yield
    except SQLITE_ERRORS as error:
        raise translate(error, subject) from error


def check_library(version: tuple[int, ...]) -> None:
    """Check the version of SQLite.

    Raises:
        StoreUnavailableError: The version is too old.
    """
    if version < OLDEST_SQLITE:
        raise StoreUnavailableError(
            f"SQLite {'.'.join(map(str, version))}",
            "is too old",
            f"Use {'.'.join(map(str, OLDEST_SQLITE))} or newer",
        )


def not_a_log(session: Session) -> NotALogError:
    """Return the error for a file that is not a Herdbook log."""
    return NotALogError(
        session.subject,
        "is not a Herdbook log",
        "Use another file; this one was not changed",
    )


async def check_owner(session: Session) -> bool:
    """Return whether the file is a Herdbook log; False for a new file.

    Raises:
        NotALogError: The file belongs to another program.
    """
    # In this order: another process may create the log between the two queries.
    if (await session.run("page_count"))[0][0] == 0:
        return False
    if (await session.run("application_id"))[0][0] != APPLICATION_ID:
        raise not_a_log(session)
    return True


async def prepare(session: Session) -> None:
    """Create a log in a new file, or migrate an existing log to the newest schema.

    When several processes create a file at once, SQLite refuses some of them without
    waiting, since waiting would be a deadlock; they retry.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LOCK_WAIT_S
    while True:
        try:
            return await _prepare(session)
        except InUseError:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(RETRY_S)


async def _prepare(session: Session) -> None:
    if not await check_owner(session):
        # First, and not in the write-ahead log: the header of the main file must
        # have the application id from the start.
        await session.run("claim")
    schema = await _schema(session)
    await session.set_up()
    if schema < NEWEST:
        await migrate(session)
        # So that a copy of the main file without its -wal has the tables.
        await session.run("checkpoint")


async def _schema(session: Session) -> int:
    schema: int = (await session.run("user_version"))[0][0]
    if schema > NEWEST:
        raise NewerSchemaError(
            session.subject,
            f"has schema {schema}, but this version supports up to {NEWEST}",
            "Use a newer version of Herdbook",
        )
    return schema


async def migrate(session: Session) -> None:
    """Run the missing migrations, all or none, one process at a time."""
    try:
        await session.run("begin")
        for migration in MIGRATIONS[await _schema(session) :]:
            for statement in migration:
                await session.execute(statement)
        await session.run("commit")
    except BaseException:
        await session.rollback()
        raise
