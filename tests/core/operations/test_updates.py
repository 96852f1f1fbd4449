"""Updates of present models: what changes, and what stays."""

from __future__ import annotations

import asyncio

import pytest
from support.manager_fixture import (
    error_of,
    event_types,
    last_fact,
    pull_to_end,
    serve_manager,
)

from herdbook.core import (
    ModelState,
    OperationEndedError,
    PullError,
)
from herdbook.events import facts
from herdbook.events.lifecycle import Activity

BIG = "llama3.2:1b"
SLOW = {"rate": 1e6}


async def test_unchanged_update_is_recorded_as_unchanged() -> None:
    async with serve_manager() as (_, manager):
        await pull_to_end(manager, "plain")

        assert (await event_types(manager, "plain:latest"))[-2:] == [
            "UpdateStarted",
            "UpdateUnchanged",
        ]
        unchanged = await last_fact(manager, facts.UpdateUnchanged)
        status = await manager.get_status("plain")
        assert isinstance(unchanged, facts.UpdateUnchanged)
        assert unchanged.digest == status.digest
        assert not status.updating


async def test_update_to_another_digest_is_recorded_with_both() -> None:
    async with serve_manager() as (server, manager):
        before = await manager.get_status("update-me")
        alias = {"library/update-me:latest": "library/update-me:v2"}
        server.apply(registry={"alias": alias})
        await pull_to_end(manager, "update-me")

        updated = await last_fact(manager, facts.ModelUpdated)

        assert isinstance(updated, facts.ModelUpdated)
        assert updated.previous_digest == before.digest
        status = await manager.get_status("update-me")
        assert status.digest == updated.digest != before.digest
        assert status.detected_digest == status.digest


async def test_loaded_model_stays_loaded_during_an_update() -> None:
    async with serve_manager() as (server, manager):
        await manager.load("plain", keep_alive=-1)
        server.time.stride_s = 1.0
        alias = {"library/plain:latest": f"library/{BIG}"}
        server.apply(registry={"alias": alias, **SLOW})
        pulling = asyncio.create_task(pull_to_end(manager, "plain"))
        await server.clock.sleep(30)

        status = await manager.get_status("plain")

        assert (status.state, status.activity) == (ModelState.LOADED, Activity.UPDATE)
        await pulling
        assert "UpdateProgressed" in await event_types(manager, "plain:latest")


async def test_failed_update_leaves_the_model_as_it_was() -> None:
    async with serve_manager() as (server, manager):
        server.apply(registry={"manifest_status": 500})
        with pytest.raises(PullError):
            await pull_to_end(manager, "plain")

        status = await manager.get_status("plain")

        assert (await event_types(manager, "plain:latest"))[-1] == "UpdateFailed"
        assert status.state is ModelState.AVAILABLE
        assert status.last_failure is not None
        assert status.last_failure.kind == "registry_failed"


async def test_cancelled_update_leaves_the_model_as_it_was() -> None:
    async with serve_manager() as (server, manager):
        server.apply(registry={"latency_s": 30})
        pulling = asyncio.create_task(pull_to_end(manager, "plain"))
        await server.clock.sleep(5)

        assert await manager.cancel("plain")

        assert isinstance(await error_of(pulling), OperationEndedError)
        assert (await event_types(manager, "plain:latest"))[-1] == "UpdateCancelled"
        assert (await manager.get_status("plain")).state is ModelState.AVAILABLE


async def test_update_restores_a_model_deleted_during_it() -> None:
    async with serve_manager() as (server, manager):
        server.apply(registry={"latency_s": 15})
        pulling = asyncio.create_task(pull_to_end(manager, "plain"))
        await server.clock.sleep(5)
        await server.delete("plain")
        await manager.refresh()
        assert not await manager.is_available("plain")

        assert (await pulling)[-1].status == "success"

        types = await event_types(manager, "plain:latest")
        assert types[2:5] == ["UpdateStarted", "ModelVanished", "ModelDiscovered"]
        assert await manager.is_available("plain")


async def test_cancelled_update_of_a_vanished_model_has_no_end_event() -> None:
    async with serve_manager() as (server, manager):
        server.apply(registry={"latency_s": 15})
        pulling = asyncio.create_task(pull_to_end(manager, "plain"))
        await server.clock.sleep(5)
        await server.delete("plain")
        await manager.refresh()

        assert await manager.cancel("plain")

        assert isinstance(await error_of(pulling), OperationEndedError)
        assert (await event_types(manager, "plain:latest"))[-1] == "ModelVanished"
