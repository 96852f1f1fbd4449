"""Actors, and the correlation of events."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from support.manager_fixture import pull_to_end, recorded_events, serve_manager

from herdbook.core import CallerError, acting_as
from herdbook.core.actor import current_actor, current_correlation, operation

NAME = "llava:7b"


def test_default_actor_is_used_unless_set() -> None:
    assert current_actor("library:python") == "library:python"


def test_actor_applies_only_inside_its_block() -> None:
    with acting_as("cli:ann"):
        with acting_as("api:ben"):
            assert current_actor("-") == "api:ben"
        assert current_actor("-") == "cli:ann"

    assert current_actor("-") == "-"


def test_operation_inside_another_is_part_of_it() -> None:
    with operation() as outer, operation() as inner:
        assert inner == outer == current_correlation()

    assert current_correlation() is None


def test_consecutive_operations_have_different_ids() -> None:
    with operation() as first:
        pass
    with operation() as second:
        pass

    assert first != second


def test_operation_id_is_bound_into_log_messages() -> None:
    with operation(model=NAME) as correlation_id:
        bound = structlog.contextvars.get_contextvars()

    assert bound == {"model": NAME, "correlation_id": correlation_id}
    assert structlog.contextvars.get_contextvars() == {}


def test_given_correlation_applies_only_inside_its_block() -> None:
    with acting_as("api:ben", correlation_id="request-1"):
        assert current_correlation() == "request-1"
        bound = structlog.contextvars.get_contextvars()

    assert bound == {"correlation_id": "request-1"}
    assert current_correlation() is None
    assert structlog.contextvars.get_contextvars() == {}


def test_operation_inside_a_block_with_a_correlation_is_part_of_it() -> None:
    with acting_as("api:ben", correlation_id="request-1"), operation() as inner:
        assert inner == "request-1"


def test_block_without_a_correlation_keeps_the_one_around_it() -> None:
    with acting_as("api:ben", correlation_id="request-1"), acting_as("reconciler"):
        assert current_correlation() == "request-1"


async def test_tasks_inherit_the_actor_but_do_not_change_it() -> None:
    async def act() -> str:
        with acting_as("api:ben"):
            await asyncio.sleep(0)
            return current_actor("-")

    with acting_as("cli:ann"):
        task = asyncio.create_task(act())
        await asyncio.sleep(0)

        assert current_actor("-") == "cli:ann"
        assert await task == "api:ben"


async def test_pull_is_recorded_with_the_actor_that_requested_it() -> None:
    async with serve_manager("none") as (_, manager):
        with manager.acting_as("api:ben"):
            await pull_to_end(manager, "plain")

        assert {e.actor for e in await recorded_events(manager, "plain:latest")} == {
            "api:ben"
        }


async def test_actor_of_the_manager_is_the_default() -> None:
    async with serve_manager() as (_, manager):
        await manager.mark_used(NAME)

        assert (await manager.get_status(NAME)).last_used_by == "library:python"


async def test_all_events_of_a_pull_share_one_correlation() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry={"rate": 1e6})
        await pull_to_end(manager, "llama3.2:1b")

        events = await recorded_events(manager, "llama3.2:1b")

        assert len(events) > 3
        assert len({e.correlation_id for e in events}) == 1
        assert events[0].correlation_id is not None


async def test_everything_in_a_block_has_its_correlation() -> None:
    async with serve_manager() as (_, manager):
        before = (await manager.now()).position
        with manager.acting_as("api:ben", correlation_id="request-1"):
            await manager.configure(NAME, {"num_ctx": 1024})
            await pull_to_end(manager, NAME)
            await manager.load(NAME)
            await manager.mark_used(NAME)

        events = await recorded_events(manager, after=before)

        expected = {"ConfigurationChanged", "ModelUpdated", "ModelLoaded"}
        assert expected < {e.type for e in events}
        assert {e.correlation_id for e in events} == {"request-1"}


@pytest.mark.parametrize("correlation_id", ["", "x" * 65, "two\nlines"])
async def test_correlation_that_cannot_be_recorded_is_refused_by_the_log(
    correlation_id: str,
) -> None:
    async with serve_manager() as (_, manager):
        before = (await manager.now()).position

        with (
            manager.acting_as("api:ben", correlation_id=correlation_id),
            pytest.raises(CallerError, match="correlation"),
        ):
            await manager.load(NAME)

        assert (await manager.now()).position == before


async def test_all_events_of_a_load_share_one_correlation() -> None:
    async with serve_manager() as (_, manager):
        await manager.load(NAME)

        *_, started, loaded = await recorded_events(manager, NAME)

        assert started.correlation_id == loaded.correlation_id is not None


async def test_unload_of_shared_weights_is_one_operation() -> None:
    async with serve_manager() as (_, manager):
        await manager.load("plain")
        before = (await manager.now()).position
        await manager.unload("plain")

        events = await recorded_events(manager, after=before)

        assert len(events) == 4
        assert len({e.correlation_id for e in events}) == 1


async def test_delete_and_its_unload_are_one_operation() -> None:
    async with serve_manager() as (_, manager):
        await manager.load(NAME)
        await manager.delete(NAME)

        *_, unloaded, deleted = await recorded_events(manager, NAME)

        assert unloaded.correlation_id == deleted.correlation_id is not None


async def test_concurrent_operations_have_different_ids() -> None:
    async with serve_manager("none") as (_, manager):
        await asyncio.gather(
            pull_to_end(manager, "plain"), pull_to_end(manager, "smollm2:135m")
        )

        ids = {
            name: {e.correlation_id for e in await recorded_events(manager, name)}
            for name in ("plain:latest", "smollm2:135m")
        }

        assert [len(one) for one in ids.values()] == [1, 1]
        assert ids["plain:latest"] != ids["smollm2:135m"]
