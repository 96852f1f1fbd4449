"""Deciding, appending and moving together, over a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import suppress

import pytest

from herdbook.core.actor import acting_as, operation
from herdbook.core.clock import ManualClock
from herdbook.core.errors import BusyError
from herdbook.core.repository import LiveViews, ModelRepository
from herdbook.core.views import Views
from herdbook.events.errors import IllegalTransitionError, WrongExpectedVersionError
from herdbook.events.facts import (
    ConfigurationChanged,
    ModelDiscovered,
    ModelUsed,
    ModelVanished,
    NodeReached,
    PullCompleted,
)
from herdbook.events.instances import Fence
from herdbook.events.lifecycle import ModelState
from herdbook.events.memory import MemoryEventStore
from herdbook.events.recorded import Cause, NewEvent, RecordedEvent
from herdbook.events.store import ANY, ExpectedVersion

FOUND = ModelDiscovered(digest="a" * 64, size_bytes=10)


def a_register(store: MemoryEventStore) -> ModelRepository:
    clock = ManualClock()
    return ModelRepository(
        LiveViews(store, Views()), node="local", clock=clock, actor="library:test"
    )


async def test_recorded_facts_update_the_views_immediately() -> None:
    register = a_register(MemoryEventStore())

    recorded = await register.record("a:1", [FOUND], cause=Cause.OBSERVED)

    status = register.status("a:1")
    assert status is not None
    assert status.state is ModelState.AVAILABLE
    assert [event.position for event in recorded] == [1]
    assert register.views.position == 1


async def test_illegal_facts_change_neither_log_nor_views() -> None:
    store = MemoryEventStore()
    register = a_register(store)

    with pytest.raises(IllegalTransitionError):
        await register.record("a:1", [FOUND, FOUND], cause=Cause.OBSERVED)

    assert (await store.head()).position == 0
    assert register.status("a:1") is None


async def test_repositories_on_one_log_decide_again_after_a_conflict() -> None:
    store = MemoryEventStore()
    one, other = a_register(store), a_register(store)
    await one.record("a:1", [FOUND], cause=Cause.OBSERVED)

    await other.record("a:1", [ModelVanished()], cause=Cause.OBSERVED)

    assert other.version("a:1") == 2
    await one.catch_up()
    assert one.views.status.dump() == other.views.status.dump()


class CountingStore(MemoryEventStore):
    """A log that counts what is read of it."""

    read = 0

    async def read_all(
        self,
        *,
        after: int = 0,
        limit: int | None = None,
        stream_prefix: str = "",
        types: Collection[str] | None = None,
    ) -> AsyncGenerator[RecordedEvent, None]:
        events = super().read_all(
            after=after, limit=limit, stream_prefix=stream_prefix, types=types
        )
        async for event in events:
            self.read += 1
            await asyncio.sleep(0)
            yield event


async def test_only_events_of_others_are_read_and_each_once() -> None:
    store = CountingStore()
    one, other = a_register(store), a_register(store)
    for number in range(5):
        await other.record(f"a{number}:1", [FOUND], cause=Cause.OBSERVED)

    await asyncio.gather(
        *(one.record(f"b{n}:1", [FOUND], cause=Cause.OBSERVED) for n in range(5))
    )

    assert (store.read, one.views.position) == (5, 10)
    replayed = Views()
    await replayed.replay(store)
    assert one.views.status.dump() == replayed.status.dump()


async def test_read_that_is_cancelled_is_continued_by_the_next_command() -> None:
    store = CountingStore()
    one, other = a_register(store), a_register(store)
    for number in range(5):
        await other.record(f"a{number}:1", [FOUND], cause=Cause.OBSERVED)
    reading = asyncio.create_task(one.catch_up())
    waiting = asyncio.create_task(one.catch_up())
    while store.read < 2:
        await asyncio.sleep(0)

    reading.cancel()
    await waiting

    assert one.views.position == 5
    assert reading.cancelled()


async def test_facts_decided_at_a_version_are_not_decided_again() -> None:
    store = MemoryEventStore()
    one, other = a_register(store), a_register(store)
    await one.record("a:1", [FOUND], cause=Cause.OBSERVED)

    with pytest.raises(WrongExpectedVersionError):
        await other.record("a:1", [FOUND], cause=Cause.OBSERVED, at_version=0)

    assert (await store.head()).position == 1


async def test_concurrent_commands_on_many_models_leave_views_equal_to_a_replay() -> (
    None
):
    store = MemoryEventStore()
    register = a_register(store)

    await asyncio.gather(
        *(
            register.record(f"m{number % 7}:1", [fact], cause=Cause.COMMAND)
            for number in range(7)
            for fact in [FOUND]
        )
    )
    await asyncio.gather(
        *(
            register.record(f"m{number % 7}:1", [ModelUsed()], cause=Cause.COMMAND)
            for number in range(70)
        )
    )

    replayed = Views()
    await replayed.replay(store)
    assert replayed.status.dump() == register.views.status.dump()
    assert replayed.recommendation.dump() == register.views.recommendation.dump()
    assert replayed.position == 77


async def test_actor_and_operation_of_the_caller_are_recorded() -> None:
    store = MemoryEventStore()
    register = a_register(store)

    with acting_as("api:agents"), operation(model="a:1") as correlation_id:
        await register.record("a:1", [FOUND], cause=Cause.COMMAND)
    await register.record("a:1", [ModelUsed()], cause=Cause.COMMAND)

    events = [event async for event in store.read_all()]
    assert [event.actor for event in events] == ["api:agents", "library:test"]
    assert [event.correlation_id for event in events] == [correlation_id, None]


async def test_cancelled_command_is_recorded_or_not_and_the_views_agree() -> None:
    store = MemoryEventStore()
    register = a_register(store)
    command = asyncio.ensure_future(
        register.record("a:1", [FOUND], cause=Cause.OBSERVED)
    )
    await asyncio.sleep(0)
    command.cancel()
    with suppress(asyncio.CancelledError):
        await command

    await register.catch_up()

    recorded = (await store.head()).position
    assert register.version("a:1") == recorded
    after = ModelVanished() if recorded else FOUND
    await register.record("a:1", [after], cause=Cause.OBSERVED)
    assert register.version("a:1") == recorded + 1


async def test_node_has_its_own_stream() -> None:
    store = MemoryEventStore()
    register = a_register(store)

    await register.record_node(
        NodeReached(version="1", url="http://a"), cause=Cause.OBSERVED
    )

    assert register.node_status().reached
    assert await store.stream_version("node/local") == 1


class AlwaysBeaten(MemoryEventStore):
    """A store where somebody else is always faster."""

    async def append(
        self,
        stream: str,
        events: Sequence[NewEvent],
        expected_version: ExpectedVersion,
        *,
        fence: Fence | None = None,
    ) -> tuple[RecordedEvent, ...]:
        other = NewEvent(
            fact=ConfigurationChanged(note="faster"),
            occurred_at=events[0].occurred_at,
            actor="cli:other",
            cause=Cause.CONFIGURATION,
        )
        await super().append(stream, [other], ANY)
        return await super().append(stream, events, expected_version, fence=fence)


async def test_repeated_conflicts_end_with_an_error() -> None:
    register = a_register(AlwaysBeaten())

    with pytest.raises(BusyError, match="changed 20 times"):
        await register.record("a:1", [FOUND], cause=Cause.OBSERVED)


async def test_pull_completed_without_a_start_is_refused() -> None:
    register = a_register(MemoryEventStore())
    fact = PullCompleted(digest="a" * 64, size_bytes=1)

    with pytest.raises(IllegalTransitionError, match="not present"):
        await register.record("a:1", [fact], cause=Cause.COMMAND)
