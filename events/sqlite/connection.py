"""Connections to a log file, and the checks of a file that need one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite

from herdbook.events.codec import column_text
from herdbook.events.errors import CorruptLogError, StoreError
from herdbook.events.sqlite.archived import ArchivedSession
from herdbook.events.sqlite.log_file import Access
from herdbook.events.sqlite.recorder import read_head
from herdbook.events.sqlite.schema import compare
from herdbook.events.sqlite.session import (
    LOCK_WAIT_S,
    check_owner,
    migrate,
    not_a_log,
    translated,
)
from herdbook.events.sqlite.wal import check_wal, needs_check
from herdbook.events.store import Head


class _Connection(sqlite3.Connection):
    """A connection whose ``executemany`` is one transaction, in one call to its thread.

    One statement that takes all rows as JSON would be atomic by itself, but SQLite
    takes as long to parse the JSON as to insert the rows.
    """

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        """Run a statement for each row of parameters, for all of them or for none.

        Returns:
            A closed cursor.
        """
        if self.in_transaction:
            return self._run(sql, parameters)
        self.execute("BEGIN IMMEDIATE")
        try:
            cursor = self._run(sql, parameters)
            self.execute("COMMIT")
        except BaseException:
            self.rollback()
            raise
        return cursor

    def _run(self, sql: str, parameters: Iterable[Any]) -> sqlite3.Cursor:
        cursor = super().executemany(sql, parameters)
        # It would keep the statement, and reset it when it is dropped in another
        # thread, where this one may run the statement again.
        cursor.close()
        return cursor


@asynccontextmanager
async def connected(
    path: Path | None,
    options: str = Access.WRITE.value,
    archive_directory: Path | None = None,
) -> AsyncGenerator[ArchivedSession, None]:
    """Connect to a file, or to a database in memory if there is no path."""
    uri = f"{_uri(path)}?{options}" if path else "file::memory:"
    connection = aiosqlite.connect(
        uri, uri=True, isolation_level=None, timeout=LOCK_WAIT_S, factory=_Connection
    )
    directory = archive_directory or (path.parent if path else Path())
    session = ArchivedSession(connection, str(path), directory)
    try:
        with translated(session.subject):
            await connection
    except BaseException:
        await _stopped(connection)
        raise
    connection.text_factory = str
    try:
        yield session
    finally:
        await session.close()


async def _stopped(connection: aiosqlite.Connection) -> None:
    """Wait for the thread of a connection that could not be opened.

    The thread reports to the event loop as its last step, and fails if that is closed.
    """
    thread: Any = getattr(connection, "_thread", connection)  # itself before 0.22
    while thread.is_alive():  # noqa: ASYNC110 - a thread sets no event when it ends
        await asyncio.sleep(0.001)


def _uri(path: Path) -> str:
    return path.absolute().as_uri()


async def check_wal_in_thread(path: Path) -> None:
    """Check the write-ahead log in a thread, since that may take a second."""
    if not needs_check(path):
        return
    with ThreadPoolExecutor(1) as thread:
        await asyncio.get_running_loop().run_in_executor(thread, check_wal, path)


async def check_is_log(path: Path) -> None:
    """Check that a file is a log, without a lock, recovery or write-ahead log.

    Raises:
        NotALogError: The file is not a Herdbook log.
        CorruptLogError: Its tables cannot be read, not even with its write-ahead log.
    """
    try:
        async with connected(path, Access.IMMUTABLE.value) as session:
            if not await check_owner(session):  # too short for a database
                raise not_a_log(session)
    except CorruptLogError:  # a log looks damaged while it is written
        # Read-only: unlike others, the connection keeps the -wal when it is closed.
        async with connected(path, "mode=ro") as session:
            await session.run("page_count")


async def head_of_file(path: Path) -> Head | None:
    """Return the end of the log in the main file alone; None if it cannot be read."""
    try:
        async with connected(path, Access.IMMUTABLE.value) as session:
            return await read_head(session)
    except StoreError:  # during a checkpoint, or without tables yet
        return None


async def check_file(path: Path, options: str) -> list[str]:
    """Return the problems of a log file, in words; empty for a sound file."""
    async with connected(path, options) as session:
        findings = [column_text(row[0]) for row in await session.run("integrity")]
        found = await session.run("schema")
        names = [name for (name,) in await session.run("view_names")]
    async with connected(None) as pristine:
        await migrate(pristine)
        difference = compare(found, await pristine.run("schema"))
    return [
        *(text for text in findings if text != "ok"),
        *(
            f"the snapshot {column_text(name)} is ignored: its name is not UTF-8"
            for name in names
            if isinstance(name, bytes)
        ),
        *(
            f"schema object {name} is missing or was changed"
            for name in difference.altered
        ),
        *(
            f"schema object {name} was added to a table of the log"
            for name in difference.added
        ),
    ]
