"""The newest events that an append returns: the same as a read, or none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.postgres.fixture import administrator

from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.store import PostgresEventStore
from herdbook.events.recorded import RecordedEvent
from herdbook.events.testing.base import event, log_of

DAMAGED = """
INSERT INTO events
SELECT
    position + 1, stream, version + 1, 'new', type, schema, data, occurred_at,
    recorded_at, %s, cause, correlation_id, causation_id, hash
FROM events ORDER BY position DESC LIMIT 1
"""


@asynccontextmanager
async def busy(
    address: PostgresAddress,
) -> AsyncIterator[tuple[PostgresEventStore, PostgresEventStore]]:
    """Open two stores that know of each other's appends."""
    async with (
        await PostgresEventStore.open(address) as one,
        await PostgresEventStore.open(address) as two,
    ):
        for number in range(2):
            await one.append("model/n/one", [event()], number)
            await two.append("model/n/two", [event()], number)
        yield one, two


async def read(
    store: PostgresEventStore, after: int, limit: int
) -> list[RecordedEvent]:
    return [event async for event in store.read_all(after=after, limit=limit)]


async def test_events_of_others_are_read_without_a_query(
    address: PostgresAddress,
) -> None:
    async with busy(address) as (one, two):
        await two.append("model/n/two", [event("a\n\x1f"), event("ü")], 2)
        await two.append("model/n/two", [event()], 4)
        (own,) = await one.append("model/n/one", [event()], 2)
        log = await log_of(two)
        await one._reading.close()  # so a query would fail

        assert own.position == 8
        assert await read(one, 4, 3) == log[4:7]
        assert await read(one, 3, 5) == log[3:]
        assert await read(one, 6, 1) == [log[6]]


async def test_subscription_gets_them_too(address: PostgresAddress) -> None:
    async with busy(address) as (one, two):
        await two.append("model/n/two", [event()], 2)
        await one.append("model/n/one", [event()], 2)
        events = one.subscribe(3)
        await one._reading.close()
        heard = [await anext(events) for _ in range(3)]
        await events.aclose()

        assert heard == (await log_of(two))[3:]


@pytest.mark.parametrize("actor", ["a\nb", "a\x1fb"])
async def test_damaged_event_is_left_to_a_query(
    actor: str, address: PostgresAddress
) -> None:
    async with busy(address) as (one, _), administrator(address) as connection:
        await connection.execute(DAMAGED, (actor,))
        await connection.commit()
        await one.append("model/n/one", [event()], 2)

        found = await read(one, 4, 2)
        assert [each.position for each in found] == [5, 6]
        assert found[0].actor == actor


async def test_events_further_back_are_left_to_a_query(
    address: PostgresAddress,
) -> None:
    async with busy(address) as (one, two):
        await two.append("model/n/two", [event() for _ in range(1001)], 2)
        await one.append("model/n/one", [event()], 2)
        log = await log_of(two)

        assert await read(one, 4, 1002) == log[4:]
        assert await read(one, 0, 2) == log[:2]
