"""Examine a log in a database; nothing is written, and no log is created."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime

import msgspec

from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.migration import log_version
from herdbook.events.postgres.recorder import read_head
from herdbook.events.postgres.schema import TRIGGERS
from herdbook.events.postgres.session import Session
from herdbook.events.store import Head

NEWEST_EVENTS = 1000
"""Number of events whose times are read."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a log.

    Attributes:
        server: Version of the server.
        is_encrypted: Whether the connection uses TLS.
        is_local: Whether the server is on this computer.
        answer_s: Time of one round trip, seconds.
        unsafe: Settings of the server with which a crash may lose events.
        schema: Number of the log's schema.
        size_bytes: Bytes of its tables.
        missing: Triggers that are missing or disabled.
        head: The end of the log, from its head row.
        last: Its newest event.
        recorded_at: When the newest events were recorded, in order of position.
        others: Number of instances that use the log.
    """

    server: str
    is_encrypted: bool
    is_local: bool
    answer_s: float
    unsafe: tuple[str, ...]
    schema: int
    size_bytes: int
    missing: tuple[str, ...]
    head: Head
    last: Head
    recorded_at: tuple[datetime, ...]
    others: int


async def log_exists(address: PostgresAddress) -> bool:
    """Return whether there is a log at an address.

    Raises:
        StoreError: The database cannot be read, or another program uses the schema.
    """
    async with _session(address) as session:
        return await log_version(session, address.schema) > 0


async def examine(address: PostgresAddress) -> Condition | None:
    """Examine a log; None if there is none.

    Raises:
        StoreError: The database cannot be read, or another program uses the schema.
    """
    async with _session(address) as session:
        schema = await log_version(session, address.schema)
        if schema == 0:
            return None
        began = time.perf_counter()
        server, encrypted, local, fsync, pages = (await session.once("connection"))[0]
        answer_s = time.perf_counter() - began
        unsafe = {"fsync": fsync, "full_page_writes": pages}
        newest = await session.once("newest")
        enabled = {name for (name,) in await session.once("triggers")}
        return Condition(
            server=server,
            is_encrypted=bool(encrypted),
            is_local=local,
            answer_s=answer_s,
            unsafe=tuple(name for name, value in unsafe.items() if value != "on"),
            schema=schema,
            size_bytes=(await session.once("size"))[0][0],
            missing=tuple(sorted(TRIGGERS - enabled)),
            head=await read_head(session),
            last=Head(*newest[0]) if newest else Head(),
            recorded_at=await _recorded_at(session),
            others=len(await session.once("living", grace_s=0)),
        )


async def _recorded_at(session: Session) -> tuple[datetime, ...]:
    """Return the valid times; ``verify`` reports the others."""
    rows = await session.once("recorded_at", limit=NEWEST_EVENTS)
    times = []
    for (text,) in reversed(rows):
        with suppress(ValueError):
            times.append(datetime.fromisoformat(text))
    return tuple(time for time in times if time.tzinfo is not None)


@asynccontextmanager
async def _session(address: PostgresAddress) -> AsyncIterator[Session]:
    session = Session(address)
    try:
        await session.connect()
        yield session
    finally:
        await session.close()
