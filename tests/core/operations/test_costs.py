"""The cost of a deletion or an unload: what it frees, shown before it starts."""

from __future__ import annotations

import pytest
from support.manager_fixture import serve_manager

from herdbook.core import (
    CostSource,
    DeleteCost,
    Figure,
    ModelNotFoundError,
    ModelState,
    NodeUnreachableError,
    PullError,
    UnloadCost,
    UnloadResult,
)
from herdbook.core.operations.costs import of_delete, of_unload
from herdbook.events.lifecycle import Lifecycle
from herdbook.projections.status import ModelStatus

NAME = "llava:7b"


def a_status(state: ModelState) -> ModelStatus:
    """Return the status of a model of which little is known."""
    return ModelStatus(
        node="local", name="a:1b", lifecycle=Lifecycle(state, None, present=True)
    )


async def test_deletion_frees_the_listed_size() -> None:
    async with serve_manager() as (_, manager):
        size = (await manager.get_status(NAME)).size_bytes

        assert await manager.cost_of_delete(NAME) == DeleteCost(
            name=NAME,
            frees=Figure(size_bytes=size, source=CostSource.TAGS),
            shared_with=(),
            loaded=False,
        )


async def test_deletion_of_shared_weights_frees_next_to_nothing() -> None:
    async with serve_manager() as (_, manager):
        await manager.load("plain")

        cost = await manager.cost_of_delete("plain")

        assert cost.frees == Figure(
            size_bytes=0,
            source=CostSource.TAGS,
            note="other models have the same weights",
        )
        assert "update-me:latest" in cost.shared_with
        assert "plain:latest" not in cost.shared_with
        assert cost.loaded


async def test_deletion_of_an_absent_model_frees_nothing() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry={"corrupt": True})
        with pytest.raises(PullError):
            await manager.ensure_available("llama3.2:1b")

        cost = await manager.cost_of_delete("llama3.2:1b")

        assert cost.frees.size_bytes == 0
        assert cost.frees.note == "the server does not have it"
        await manager.delete("llama3.2:1b")


def test_unknown_size_is_not_guessed() -> None:
    status = a_status(ModelState.AVAILABLE)

    assert of_delete(status, [status]).frees == Figure(
        size_bytes=None,
        source=CostSource.UNKNOWN,
        note="the server does not report its size",
    )


async def test_unload_frees_the_memory_of_the_runner() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        (runner,) = server.world.runners.listed()

        assert await manager.cost_of_unload(NAME) == UnloadCost(
            name=NAME,
            frees=Figure(size_bytes=runner.size, source=CostSource.PS),
            also=(),
        )


async def test_unload_names_the_models_unloaded_with_it() -> None:
    async with serve_manager() as (_, manager):
        await manager.load("plain")
        position = (await manager.now()).position

        cost = await manager.cost_of_unload("plain")

        assert cost.also
        assert await manager.unload("plain") is UnloadResult.UNLOADED
        left = {
            entry.model
            for entry in await manager.history()
            if entry.position > position and entry.type == "ModelUnloaded"
        }
        assert {"plain:latest", *cost.also} == left


async def test_cost_of_an_unload_uses_the_current_runner() -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME)
        assert (await manager.cost_of_unload(NAME)).frees.size_bytes

        await server.unload(NAME)

        frees = (await manager.cost_of_unload(NAME)).frees
        assert frees == Figure(size_bytes=0, source=CostSource.PS)


async def test_unload_of_an_unloaded_model_frees_nothing() -> None:
    async with serve_manager() as (_, manager):
        cost = await manager.cost_of_unload("plain")

        assert (cost.frees.size_bytes, cost.also) == (0, ())


def test_unknown_runner_memory_is_not_guessed() -> None:
    status = a_status(ModelState.LOADED)

    assert of_unload(status, [status]).frees == Figure(
        size_bytes=None, source=CostSource.UNKNOWN, note="its runner was not seen"
    )


async def test_asking_for_the_cost_changes_nothing() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        before = (await manager.now()).position

        await manager.cost_of_delete(NAME)
        await manager.cost_of_unload(NAME)

        assert (await manager.now()).position == before
        assert server.request_count("/api/delete") == 0
        assert server.request_count("/api/generate") == 1


async def test_absent_model_frees_nothing() -> None:
    async with serve_manager("none") as (_, manager):
        for asked in (manager.cost_of_delete, manager.cost_of_unload):
            with pytest.raises(ModelNotFoundError):
                await asked(NAME)


async def test_cost_of_an_unload_requires_the_server() -> None:
    async with serve_manager() as (server, manager):
        server.apply(server="killed")

        with pytest.raises(NodeUnreachableError):
            await manager.cost_of_unload(NAME)
        assert (await manager.cost_of_delete(NAME)).frees.size_bytes
