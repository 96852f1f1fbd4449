"""From a time to a position in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.core.history.position_at import (
    CLOCK_DIFFERENCE,
    position_at,
    position_before,
)
from herdbook.events.errors import CallerError
from herdbook.events.memory import MemoryEventStore
from herdbook.events.store import ANY
from herdbook.events.testing.base import OCCURRED_AT, event


async def recorded_at(seconds: Sequence[int]) -> MemoryEventStore:
    """Return a log whose events were recorded at these seconds."""
    times = iter(seconds)
    store = MemoryEventStore(clock=lambda: OCCURRED_AT + timedelta(seconds=next(times)))
    for _ in seconds:
        await store.append("model/n/m", [event()], ANY)
    return store


@given(st.lists(st.integers(0, 20), max_size=12).map(sorted), st.integers(-1, 21))
def test_position_is_the_last_one_by_then(seconds: list[int], at: int) -> None:
    async def position() -> int:
        store = await recorded_at(seconds)
        return await position_at(store, OCCURRED_AT + timedelta(seconds=at))

    assert asyncio.run(position()) == sum(second <= at for second in seconds)


async def test_time_may_be_in_any_zone() -> None:
    store = await recorded_at([0, 10])
    zone = timezone(timedelta(hours=5))
    moment = OCCURRED_AT.astimezone(zone) + timedelta(seconds=5)
    assert await position_at(store, moment) == 1


async def test_time_without_a_zone_is_refused() -> None:
    with pytest.raises(CallerError):
        await position_at(MemoryEventStore(), OCCURRED_AT.replace(tzinfo=None))


async def test_clock_that_was_set_back_gives_one_of_the_places() -> None:
    store = await recorded_at([1, 5, 9, 3, 7, 11])
    at = await position_at(store, OCCURRED_AT + timedelta(seconds=6))
    assert at in {2, 4}  # recorded by then, and the next one was not


@given(
    st.lists(st.integers(0, 200), max_size=12).map(sorted),
    st.lists(st.integers(0, int(CLOCK_DIFFERENCE.total_seconds() / 60)), min_size=12),
    st.integers(-1, 260),
)
def test_events_since_a_time_follow_although_clocks_differ(
    minutes: list[int], differences: list[int], at: int
) -> None:
    recorded = [60 * sum(both) for both in zip(minutes, differences, strict=False)]

    async def before() -> int:
        store = await recorded_at(recorded)
        return await position_before(store, OCCURRED_AT + timedelta(minutes=at))

    assert all(second < 60 * at for second in recorded[: asyncio.run(before())])


async def test_everything_follows_the_start_of_time() -> None:
    store = await recorded_at([1])
    assert await position_before(store, datetime.min.replace(tzinfo=UTC)) == 0
    assert await position_before(store, 1) == 0
    assert await position_before(store, 2) == 1
