"""Unloads and deletions against a server over HTTP, checked against its runners."""

from __future__ import annotations

import asyncio

import pytest
from support.manager_fixture import (
    SandboxServer,
    causes_of,
    event_types,
    last_fact,
    serve_manager,
    serve_sandbox,
)

from herdbook.core import (
    BusyError,
    Cause,
    ManagerSettings,
    ModelNotFoundError,
    ModelState,
    OllamaError,
    UnloadReason,
    UnloadResult,
)
from herdbook.events import facts

NAME = "llava:7b"
OTHER = "llama3.1:8b"
SLOW_START = {"runner_start_delay_s": 30}


async def say(server: SandboxServer, name: str, words: int = 2000) -> None:
    """Let a model generate an answer: 11 ms for each word."""
    await server.load(name, prompt="hi", stream=False, options={"num_predict": words})


async def test_cloud_model_is_deleted_without_an_unload() -> None:
    async with serve_sandbox() as server:
        stub = {"from": "gpt-oss:120b", "remote_host": "https://ollama.com"}
        await server.request("POST", "/api/create", model="far:cloud", **stub)
        async with server.open_manager() as manager:
            await manager.delete("far:cloud")

            assert server.request_count("/api/generate") == 0
            assert not server.has_model("far:cloud")


async def test_other_names_of_the_weights_become_loaded_and_unloaded_with_it() -> None:
    async with serve_manager() as (_, manager):
        await manager.load("plain")
        loaded = await manager.get_status("update-me")
        assert loaded.state is ModelState.LOADED
        assert loaded.runner is not None
        assert loaded.runner.name == "plain:latest"

        await manager.unload("plain")

        assert (await manager.get_status("update-me")).state is ModelState.AVAILABLE
        other = "update-me:latest"
        assert await causes_of(manager, other, "ModelLoaded") == [Cause.SHARED]
        assert await causes_of(manager, other, "ModelUnloaded") == [Cause.SHARED]


async def test_unloading_another_name_of_the_weights_unloads_both() -> None:
    async with serve_manager() as (server, manager):
        await manager.load("plain")

        assert await manager.unload("update-me") is UnloadResult.UNLOADED

        assert await server.listed_runners() == []
        assert await causes_of(manager, "plain:latest", "ModelUnloaded") == [
            Cause.SHARED
        ]
        assert await causes_of(manager, "update-me:latest", "ModelUnloaded") == [
            Cause.COMMAND
        ]


async def test_unload_is_recorded_with_the_cause_requested() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)

        assert await manager.unload(NAME) is UnloadResult.UNLOADED

        gone = await last_fact(manager, facts.ModelUnloaded)
        assert gone == facts.ModelUnloaded(reason=UnloadReason.REQUESTED)
        assert await server.listed_runners() == []


async def test_unload_waits_until_the_runner_is_gone() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        server.apply(unload_lag_s=2)
        before = server.time.now()

        assert await manager.unload(NAME) is UnloadResult.UNLOADED

        assert server.time.now() - before >= 2


async def test_unload_while_a_request_runs_is_reported_as_deferred() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        talking = asyncio.create_task(say(server, NAME))
        await server.clock.sleep(1)

        assert await manager.unload(NAME) is UnloadResult.DEFERRED
        assert (await manager.get_status(NAME)).state is ModelState.LOADED

        await talking
        await manager.refresh()
        assert (await manager.get_status(NAME)).state is ModelState.AVAILABLE


async def test_unload_of_an_unloaded_model_records_nothing() -> None:
    async with serve_manager() as (server, manager):
        before = (await manager.now()).position

        assert await manager.unload(NAME) is UnloadResult.NOT_LOADED

        assert (await manager.now()).position == before
        assert server.request_count("/api/generate") == 0


async def test_unload_waits_for_a_running_load() -> None:
    async with serve_manager() as (server, manager):
        server.apply(**SLOW_START)
        loading = asyncio.create_task(manager.load(NAME))
        await server.clock.sleep(3)

        assert await manager.unload(NAME) is UnloadResult.UNLOADED

        await loading
        assert await server.listed_runners() == []
        assert (await event_types(manager, NAME))[-2:] == [
            "ModelLoaded",
            "ModelUnloaded",
        ]


async def test_delete_unloads_first() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(OTHER)

        await manager.delete(OTHER)

        assert await server.listed_runners() == []
        assert (await event_types(manager, OTHER))[-2:] == [
            "ModelUnloaded",
            "ModelDeleted",
        ]
        assert not server.has_model(OTHER)


async def test_delete_keeps_a_runner_that_other_names_need() -> None:
    async with serve_manager() as (server, manager):
        await manager.load("plain")

        await manager.delete("plain")

        assert len(await server.listed_runners()) == 1
        assert (await event_types(manager, "plain:latest"))[-1] == "ModelDeleted"
        assert (await manager.get_status("update-me")).state is ModelState.LOADED


async def test_deletion_fact_has_the_details_of_the_model() -> None:
    async with serve_manager() as (_, manager):
        before = await manager.get_status(NAME)

        await manager.delete(NAME)

        deleted = await last_fact(manager, facts.ModelDeleted)
        assert deleted == facts.ModelDeleted(
            digest=before.digest, size_bytes=before.size_bytes
        )
        assert (await manager.get_status(NAME)).state is ModelState.NOT_PRESENT


async def test_delete_of_an_already_deleted_model_is_not_found() -> None:
    async with serve_manager() as (server, manager):
        await server.delete(NAME)

        with pytest.raises(ModelNotFoundError):
            await manager.delete(NAME)

        assert (await manager.get_status(NAME)).state is ModelState.NOT_PRESENT
        assert (await event_types(manager, NAME))[-1] == "ModelVanished"


async def test_delete_during_a_load_is_refused_as_busy() -> None:
    async with serve_manager() as (server, manager):
        server.apply(**SLOW_START)
        loading = asyncio.create_task(manager.load(NAME))
        await server.clock.sleep(3)

        with pytest.raises(BusyError):
            await manager.delete(NAME)

        await loading


async def test_delete_of_a_failed_pull_dismisses_the_failure() -> None:
    async with serve_manager("none") as (_, manager):
        with pytest.raises(OllamaError):
            await manager.ensure_available("nobody:1b")
        assert (await manager.get_status("nobody:1b")).state is ModelState.ERROR

        await manager.delete("nobody:1b")

        assert (await manager.get_status("nobody:1b")).state is ModelState.NOT_PRESENT


async def test_slow_unload_is_deferred_after_its_timeout() -> None:
    settings = ManagerSettings(unload_timeout_s=1.0)
    async with serve_manager(settings=settings) as (server, manager):
        await manager.load(NAME)
        server.apply(unload_lag_s=30)

        assert await manager.unload(NAME) is UnloadResult.DEFERRED
