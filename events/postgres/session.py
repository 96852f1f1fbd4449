"""Connections to a PostgreSQL server: named queries, time limits and reconnection.

Every error of the driver is translated here. A session connects when it is first used,
and again after its connection was lost. It has one statement under way at a time, and
each statement is a transaction of its own.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import sql
from psycopg.errors import UndefinedFunction, UndefinedTable
from psycopg.pq import TransactionStatus

from herdbook.events.errors import StoreClosedError, StoreUnavailableError
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.answers import answering
from herdbook.events.postgres.errors import (
    CHECK_ADDRESS,
    READ_ONLY,
    USE_PRIMARY,
    ConnectionLostError,
    NoConnectionError,
    NotPermittedError,
    translate_connecting,
)
from herdbook.events.postgres.parameters import (
    SETTINGS,
    STATEMENT_S,
    connection_parameters,
)
from herdbook.events.postgres.schema import QUERIES

T = TypeVar("T")

Row: TypeAlias = tuple[Any, ...]
"""A row of a query; its types are those of the columns."""

OLDEST_SERVER = 150_000
"""PostgreSQL 15; older versions are not tested."""

FIRST_WITH_TRANSACTION_TIMEOUT = 170_000
"""PostgreSQL 17."""

PATIENCE_S = 10.0
"""Time that a call waits for a lost server to return, seconds."""

FIRST_WAIT_S = 0.05
"""Time until the second attempt to connect, seconds; it doubles with each."""

LONGEST_WAIT_S = 0.8
"""Longest time between two attempts to connect, seconds."""

ANSWER_S = STATEMENT_S + 5.0
"""Time until a connection without an answer counts as lost, seconds."""


class Session:
    """A connection that runs queries by name and reconnects.

    Args:
        address: Address of the log.
        is_durable: Whether commits must survive a crash of the server.
        instance: Id of an instance; each connection takes its lock.
        answer_s: Time until a connection without an answer counts as lost, seconds; by
            default ``ANSWER_S``.

    Attributes:
        subject: Address of the log, without its password.
        connected_at: When the present connection was made, by the loop's clock.
        lost_since: When the server could not be reached first; None while it can. Calls
            wait for it no longer than ``PATIENCE_S`` from then on.
    """

    def __init__(
        self,
        address: PostgresAddress,
        *,
        is_durable: bool = True,
        instance: str | None = None,
        answer_s: float | None = None,
    ) -> None:
        self._address = address
        self._parameters = connection_parameters(address)
        self._is_durable = is_durable
        self._instance = instance
        self._answer_s = answer_s
        self._connection: psycopg.AsyncConnection[Row] | None = None
        self._turn = asyncio.Lock()
        self._is_closed = False
        self._process = os.getpid()
        self.subject = str(address)
        self.connected_at = 0.0
        self.lost_since: float | None = None
        self._failed_at = 0.0
        self._failure: StoreUnavailableError | None = None

    async def run(self, query: str, /, **parameters: object) -> Sequence[Row]:
        """Run a query by its name, and again if the connection is lost.

        For queries that may be repeated.

        Raises:
            StoreError: The query failed, or the server does not return in time.
        """
        return await retry_connecting(
            lambda: self.once(query, **parameters), since=self.lost_since
        )

    async def once(self, query: str, /, **parameters: object) -> Sequence[Row]:
        """Run a query by its name, once.

        Raises:
            NoConnectionError: There is no connection; the query was not sent.
            ConnectionLostError: The connection was lost while the query ran.
            StoreError: The query failed.
        """
        rows = await self._execute(QUERIES[query], parameters)
        self.lost_since = None
        return rows

    async def script(self, text: bytes) -> None:
        """Run statements without parameters."""
        await self._execute(text, None)

    async def _execute(
        self, statement: bytes, parameters: dict[str, object] | None
    ) -> Sequence[Row]:
        async with self._turn:
            connection = await self._connected()
            with self._noticing_loss(connection):
                try:
                    cursor = await connection.execute(statement, parameters)
                except (UndefinedTable, UndefinedFunction):
                    await self._check_schema(connection)
                    raise
                return await cursor.fetchall() if cursor.description else []

    async def _check_schema(self, connection: psycopg.AsyncConnection[Row]) -> None:
        """Find out why a table was not found: PostgreSQL skips schemas without USAGE.

        Raises:
            StoreUnavailableError: The schema is gone, or this user may not use it.
        """
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            return
        schema = self._address.schema
        cursor = await connection.execute(QUERIES["schema_usage"], {"schema": schema})
        row = await cursor.fetchone()
        if row is None:
            raise StoreUnavailableError(
                self.subject,
                f"no longer has the schema {schema!r}",
                "It was dropped or renamed: correct the address, or restore a backup",
            )
        if row != (True,):
            raise NotPermittedError(
                self.subject,
                "does not permit this user to use the log",
                f"GRANT USAGE ON SCHEMA {schema} to the user",
            )

    async def notified(self, within_s: float) -> None:
        """Wait for a notification, or until a time has passed.

        Raises:
            StoreUnavailableError: The connection was lost.
        """
        async with self._turn:
            connection = await self._connected()
            with self._noticing_loss(connection):
                async for _ in connection.notifies(timeout=within_s, stop_after=1):
                    pass  # more that arrived at once are read too

    async def listen(self, channel: str) -> None:
        """Receive the notifications of a channel on the present connection."""
        async with self._turn:
            connection = await self._connected()
            with self._noticing_loss(connection):
                await connection.execute(
                    sql.SQL("LISTEN {}").format(sql.Identifier(channel))
                )

    async def connect(self) -> None:
        """Connect, unless the session is connected.

        Raises:
            StoreUnavailableError: The server is not reachable or refuses.
        """
        async with self._turn:
            await self._connected()

    def drop(self) -> None:
        """Close the connection without waiting; the next call connects again."""
        connection, self._connection = self._connection, None
        if connection is not None and os.getpid() == self._process:
            connection.pgconn.finish()

    async def close(self) -> None:
        """Close the connection, after the running statement; safe to call twice."""
        self._is_closed = True
        async with self._turn:
            self.drop()

    @property
    def _limit_s(self) -> float:
        return ANSWER_S if self._answer_s is None else self._answer_s

    async def _connected(self) -> psycopg.AsyncConnection[Row]:
        if self._is_closed:
            raise StoreClosedError(self.subject, "is closed", "Open it again")
        if os.getpid() != self._process:  # both would speak on one connection
            raise StoreClosedError(
                self.subject,
                f"was opened by process {self._process}, but this is a fork of it",
                "Open the log in this process",
            )
        if self._connection is not None and not self._connection.closed:
            return self._connection
        self._check_outage()
        try:
            connection = await psycopg.AsyncConnection.connect(
                **self._parameters, autocommit=True
            )
        except (psycopg.Error, OSError) as error:
            raise self._unreachable(error) from None
        try:
            with answering(connection, self._limit_s, self.subject):
                await self._set_up(connection)
        except ConnectionLostError as error:  # nothing was sent yet
            connection.pgconn.finish()
            self._failure = NoConnectionError(self.subject, error.state, CHECK_ADDRESS)
            self._note_loss()
            raise self._failure from None
        except BaseException:
            connection.pgconn.finish()
            raise
        self._connection = connection
        self.connected_at = asyncio.get_running_loop().time()
        return connection

    def _check_outage(self) -> None:
        """Fail at once if a long outage was found shortly before.

        Otherwise each of many callers would wait for an attempt of its own.

        Raises:
            StoreUnavailableError: The last attempt failed so.
        """
        now = asyncio.get_running_loop().time()
        if (
            self._failure is not None
            and self.lost_since is not None
            and now - self.lost_since > PATIENCE_S
            and now - self._failed_at < LONGEST_WAIT_S
        ):
            raise self._failure.with_traceback(None)

    def _unreachable(self, error: Exception) -> StoreUnavailableError:
        self._failure = translate_connecting(error, self.subject)
        self._note_loss()
        return self._failure

    def _note_loss(self) -> None:
        self._failed_at = asyncio.get_running_loop().time()
        if self.lost_since is None:
            self.lost_since = self._failed_at

    async def _set_up(self, connection: psycopg.AsyncConnection[Row]) -> None:
        row = await (await connection.execute(QUERIES["server"])).fetchone()
        version, encoding, read_only, is_shared, _ = row or (0, "", "", False, "")
        if version < OLDEST_SERVER:
            raise StoreUnavailableError(
                f"PostgreSQL {version // 10_000}",
                "is too old",
                f"Use {OLDEST_SERVER // 10_000} or newer",
            )
        if encoding != "UTF8":
            raise StoreUnavailableError(
                self.subject,
                f"has the encoding {encoding}",
                "Create a database with the encoding UTF8",
            )
        if read_only != "off":
            raise NoConnectionError(self.subject, READ_ONLY, USE_PRIMARY)
        if is_shared:
            raise StoreUnavailableError(
                self.subject,
                "is behind a proxy that gives one session to several clients",
                "Set pool_mode = session in PgBouncer, or use the server's own address",
            )
        await connection.execute(SETTINGS)
        if version >= FIRST_WITH_TRANSACTION_TIMEOUT:
            await connection.execute("SET transaction_timeout = 0")
        parameters = {"schema": self._address.schema}
        await connection.execute(QUERIES["search_path"], parameters)
        if self._is_durable:
            await connection.execute(QUERIES["durable"])
        else:
            await connection.execute("SET synchronous_commit = off")
        if self._instance is not None:
            await self._hold(connection, {"id": self._instance})

    async def _hold(
        self, connection: psycopg.AsyncConnection[Row], instance: dict[str, str]
    ) -> None:
        """Take the lock of an instance on a new connection.

        The server may not have noticed yet that the last connection was lost. Nobody
        else takes this lock, so that connection is ended.
        """
        held = await connection.execute(QUERIES["hold_instance"], instance)
        if await held.fetchone() != (True,):
            await connection.execute(QUERIES["end_holder"], instance)
            raise NoConnectionError(
                self.subject, "still has the last session of this instance"
            )

    @contextmanager
    def _noticing_loss(
        self, connection: psycopg.AsyncConnection[Row]
    ) -> Iterator[None]:
        """Translate errors; drop a connection that is lost or in an unknown state."""
        try:
            with answering(connection, self._limit_s, self.subject):
                yield
        except ConnectionLostError:
            self.drop()
            self._note_loss()
            raise
        except BaseException:
            if connection.info.transaction_status is TransactionStatus.ACTIVE:
                self.drop()  # cancelled while the statement ran
            raise


class Backoff:
    """The times between attempts to reach a lost server, up to a deadline.

    Args:
        since: When the server was lost, by the loop's clock; by default now.
    """

    def __init__(self, since: float | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        began = self._loop.time() if since is None else since
        self._deadline = began + PATIENCE_S
        self._wait_s = FIRST_WAIT_S

    @property
    def is_over(self) -> bool:
        """Whether there is no time for another attempt."""
        return self._loop.time() >= self._deadline

    async def wait(self) -> None:
        """Wait before the next attempt, a random time, so that clients spread."""
        wait_s = self._wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        await asyncio.sleep(wait_s)


async def retry_connecting(
    attempt: Callable[[], Awaitable[T]], *, since: float | None = None
) -> T:
    """Repeat an attempt while the server cannot be reached, for a limited time.

    Raises:
        StoreError: The attempt failed for another reason, or still at the end.
    """
    backoff = Backoff(since)
    while True:
        try:
            return await attempt()
        except (ConnectionLostError, NoConnectionError):
            if backoff.is_over:
                raise
        await backoff.wait()
