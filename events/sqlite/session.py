"""A connection to a log's file: queries by name, and a file made ready.

No error of SQLite passes this seam untranslated, no connection is used that is
not set up as ``connection.sql`` says, and no file is written that is not ours.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

from herdbook.events.errors import (
    CorruptLogError,
    NewerSchemaError,
    NotALogError,
    StoreClosedError,
    StoreUnavailableError,
)
from herdbook.events.sqlite.errors import SQLITE_ERRORS, InUseError, translate
from herdbook.events.sqlite.schema import (
    APPLICATION_ID,
    CONNECTION,
    MIGRATIONS,
    NEWEST,
    QUERIES,
)
from herdbook.events.sqlite.writer import Row

E = TypeVar("E")

OLDEST_SQLITE = (3, 38)
"""STRICT tables came with SQLite 3.37, the operator ``->>`` with 3.38."""

LOCK_WAIT_S = 5.0
"""Seconds that a statement waits for another process's lock."""

RETRY_S = 0.01
"""Seconds between two attempts to make a file ready."""

PAGE = 1000
"""Events that are read at once."""


class Connection(Protocol):
    """What is used of an ``aiosqlite.Connection``."""

    def execute_fetchall(
        self, sql: str, parameters: Iterable[Any] | None = None
    ) -> Awaitable[Iterable[Sequence[Any]]]:
        """Run a statement and fetch its rows, in one hop to the thread."""
        ...

    def executescript(self, sql_script: str) -> Awaitable[object]:
        """Run statements without parameters."""
        ...

    async def rollback(self) -> None:
        """End the transaction, if there is one."""
        ...

    async def close(self) -> None:
        """Close it, after what it is at."""
        ...


class Session:
    """A connection that runs queries by name: the seam where SQLite's errors end."""

    def __init__(self, connection: Connection, subject: str) -> None:
        self._connection = connection
        self._is_closed = False
        self._process = os.getpid()
        self.subject = subject

    async def run(self, query: str, /, **parameters: object) -> Sequence[Row]:
        """Run a query by its name and return its rows."""
        return await self.execute(QUERIES[query], **parameters)

    async def execute(self, sql: str, /, **parameters: object) -> Sequence[Row]:
        """Run one statement and return its rows, in one hop to the thread."""
        if self._is_closed:
            raise StoreClosedError(self.subject, "is closed", "Open it again")
        if os.getpid() != self._process:  # its thread is not here, so it would hang
            raise StoreClosedError(
                self.subject,
                f"was opened by process {self._process}; this one is a fork of it",
                "Open the log in this process",
            )
        with translated(self.subject):
            rows = await self._connection.execute_fetchall(sql, parameters)
        return [tuple(row) for row in rows]

    async def rollback(self) -> None:
        """End the transaction, if there is one, and keep nothing of it."""
        with translated(self.subject):
            await self._connection.rollback()

    async def set_up(self) -> None:
        """Set what ``connection.sql`` says, and see that it took."""
        with translated(self.subject):
            await self._connection.executescript(CONNECTION)
        journal = (await self.run("journal_mode"))[0][0]
        synchronous = (await self.run("synchronous"))[0][0]
        if (journal, synchronous) != ("wal", 2):
            raise StoreUnavailableError(
                self.subject,
                "is where no write-ahead log can be kept",
                "Keep it on a local disk",
            )

    async def close(self) -> None:
        """Close the connection, after what it is at."""
        self._is_closed = True
        with translated(self.subject):
            await self._connection.close()


@contextmanager
def translated(subject: str) -> Iterator[None]:
    """Raise our errors for those of SQLite."""
    try:
        yield
    except SQLITE_ERRORS as error:
        raise translate(error, subject) from error


class Pages(NamedTuple):
    """A read in pages, so that no read holds a transaction open.

    Attributes:
        query: Name of the query of a page; it has ``:after`` and ``:limit``.
        after: Where the first page goes on from.
        limit: At most this many rows in all.
        key: The column that the next page goes on from.
    """

    query: str
    after: int
    limit: int | None
    key: int = 0

    async def read(
        self, session: Session, make: Callable[[Row], E], **parameters: object
    ) -> AsyncGenerator[E, None]:
        """Give what is made of each row, in order."""
        after = self.after
        left = sys.maxsize if self.limit is None else self.limit
        while left > 0:
            size = min(PAGE, left)
            rows = await session.run(self.query, after=after, limit=size, **parameters)
            for row in rows:
                yield make(row)
            if len(rows) < size:
                return
            last = rows[-1][self.key]
            if type(last) is not int or last <= after:  # or this would never end
                raise CorruptLogError(
                    session.subject, "is not in order", "Run: herdbook verify"
                )
            after = last
            left -= size


def check_library(version: tuple[int, ...]) -> None:
    """Refuse a SQLite that cannot keep a log.

    Raises:
        StoreUnavailableError: It is too old.
    """
    if version < OLDEST_SQLITE:
        raise StoreUnavailableError(
            f"SQLite {'.'.join(map(str, version))}",
            "is too old for a log",
            f"Use {'.'.join(map(str, OLDEST_SQLITE))} or newer",
        )


def not_ours(session: Session) -> NotALogError:
    """Return the error for a file that is something else."""
    return NotALogError(
        session.subject,
        "is not a Herdbook log",
        "Name another file; this one is left as it is",
    )


async def check_owner(session: Session) -> bool:
    """Return whether the file is ours already; a new one is nobody's.

    Raises:
        NotALogError: It is another program's.
    """
    # In this order: another process may be making the log between the two.
    if (await session.run("page_count"))[0][0] == 0:
        return False
    if (await session.run("application_id"))[0][0] != APPLICATION_ID:
        raise not_ours(session)
    return True


async def prepare(session: Session) -> None:
    """Make the file a log of the newest schema, whatever it was before.

    Where several processes make a new file at once, SQLite refuses some of them
    without waiting, since waiting would lock them for ever; they try again.
    """
    loop = asyncio.get_running_loop()
    patience = loop.time() + LOCK_WAIT_S
    while True:
        try:
            return await _prepare(session)
        except InUseError:
            if loop.time() > patience:
                raise
        await asyncio.sleep(RETRY_S)


async def _prepare(session: Session) -> None:
    if not await check_owner(session):
        # Before anything else, and not in the write-ahead log: a file that is ours
        # says so in its own header at every moment of its life.
        await session.run("claim")
    schema = await _schema(session)
    await session.set_up()
    if schema < NEWEST:
        await migrate(session)
        # So that the main file alone, copied without its -wal, has its tables.
        await session.run("checkpoint")


async def _schema(session: Session) -> int:
    schema: int = (await session.run("user_version"))[0][0]
    if schema > NEWEST:
        raise NewerSchemaError(
            session.subject,
            f"has schema {schema}; this version knows {NEWEST}",
            "Use a newer version of Herdbook",
        )
    return schema


async def migrate(session: Session) -> None:
    """Run what migrations are missing, all or none, one process at a time."""
    try:
        await session.run("begin")
        for migration in MIGRATIONS[await _schema(session) :]:
            for statement in migration:
                await session.execute(statement)
        await session.run("commit")
    except BaseException:
        await session.rollback()
        raise
