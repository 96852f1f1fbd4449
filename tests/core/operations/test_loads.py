"""Loads against a server over HTTP, checked against its runners."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.manager_fixture import (
    causes_of,
    event_types,
    last_fact,
    serve_manager,
    serve_sandbox,
)

from herdbook import sandbox
from herdbook.core import (
    CapabilityMissingError,
    Cause,
    CloudModelError,
    InvalidConfigurationError,
    LoadFailedError,
    ManagerSettings,
    ModelDamagedError,
    ModelNotFoundError,
    ModelState,
    NodeUnreachableError,
    OllamaError,
    OperationEndedError,
    UnloadReason,
)
from herdbook.events import facts

NAME = "llava:7b"
OTHER = "llama3.1:8b"
NO_RUNNERS: dict[str, Any] = {
    "path": "/api/ps",
    "status": 200,
    "body": '{"models": []}',
    "times": 120,
}


SLOW_START = {"runner_start_delay_s": 30}


async def test_loaded_model_is_confirmed_by_its_runner() -> None:
    async with serve_manager() as (server, manager):
        status = await manager.load(NAME)

        (runner,) = await server.listed_runners()
        assert status.state is ModelState.LOADED
        assert status.runner is not None
        assert status.runner.digest == runner["digest"]
        assert status.context_in_effect == runner["context_length"]
        assert (await event_types(manager, NAME))[-2:] == ["LoadStarted", "ModelLoaded"]


async def test_duration_of_a_load_is_recorded() -> None:
    async with serve_manager() as (server, manager):
        server.apply(runner_start_delay_s=7)
        await manager.load(NAME)

        loaded = await last_fact(manager, facts.ModelLoaded)

        assert isinstance(loaded, facts.ModelLoaded)
        assert loaded.duration_s == pytest.approx(7.25, abs=0.1)


async def test_load_without_a_runner_is_a_failure() -> None:
    async with serve_manager() as (server, manager):
        server.apply(answer=NO_RUNNERS)

        with pytest.raises(LoadFailedError, match="no runner"):
            await manager.load(NAME)

        assert "LoadFailed" in await event_types(manager, NAME)


async def test_load_that_was_evicted_before_it_was_observed_is_repeated() -> None:
    """The load has succeeded for the server, so the model did not fail."""
    one_place = sandbox.Settings(max_loaded=1)
    async with serve_manager(sandbox_settings=one_place) as (server, manager):
        loads = iter([(0.0, 2.0)])  # the first answer is on its way for 2 s
        server.world.delays = lambda path: (
            next(loads, (0.0, 0.0)) if path == "/api/generate" else (0.0, 0.0)
        )
        loading = asyncio.create_task(manager.load(NAME))
        await server.wait_until(lambda: any(server.world.runners.listed()))
        await server.load(OTHER)

        status = await loading

        (runner,) = await server.listed_runners()
        assert status.state is ModelState.LOADED
        assert runner["name"] == NAME
        assert "LoadFailed" not in await event_types(manager, NAME)


async def test_configured_options_and_keep_alive_are_applied() -> None:
    async with serve_manager() as (server, manager):
        await manager.configure(NAME, {"num_ctx": 1024, "keep_alive": "1h"})

        status = await manager.load(NAME)

        assert status.context_in_effect == 1024
        assert status.runner is not None
        assert status.runner.expires_at is not None
        left = status.runner.expires_at - server.clock.now()
        assert left.total_seconds() == pytest.approx(3600, abs=1)
        started = await last_fact(manager, facts.LoadStarted)
        assert isinstance(started, facts.LoadStarted)
        assert (started.options["num_ctx"], started.keep_alive) == (1024, "1h")


async def test_options_of_the_call_go_before_the_configured_ones() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure(NAME, {"num_ctx": 1024, "keep_alive": "1h"})

        status = await manager.load(NAME, options={"num_ctx": 512}, keep_alive=-1)

        assert status.context_in_effect == 512
        assert status.runner is not None
        assert status.runner.expires_at is not None
        assert status.runner.expires_at.year > 2300


@pytest.mark.parametrize(
    ("options", "keep_alive"),
    [
        ({"num_ctx": "many"}, None),
        ({"num_context": 512}, None),
        ({"pinned": True}, None),
        ({}, "5"),
        ({}, "-1"),
        ({}, 1e30),
        ({}, 0),
        ({}, "0s"),
    ],
)
async def test_refused_request_is_not_a_failure_of_the_model(
    options: dict[str, facts.Setting], keep_alive: str | float | None
) -> None:
    async with serve_manager() as (server, manager):
        before = (await manager.now()).position

        with pytest.raises(InvalidConfigurationError):
            await manager.load(NAME, options=options, keep_alive=keep_alive)

        assert (await manager.now()).position == before
        assert server.request_count("/api/generate") == 0


@pytest.mark.parametrize("keep_alive", ["1h30m", 60, 0.5, -1, "-1m"])
async def test_keep_alive_that_the_server_accepts_loads(
    keep_alive: str | float,
) -> None:
    async with serve_manager() as (_, manager):
        status = await manager.load(
            NAME, options={"top_k": 5, "temperature": 0}, keep_alive=keep_alive
        )

        assert status.state is ModelState.LOADED


async def test_loading_a_loaded_model_with_another_context_changes_its_runner() -> None:
    async with serve_manager() as (_, manager):
        await manager.load(NAME)

        status = await manager.load(NAME, options={"num_ctx": 512})

        assert status.context_in_effect == 512
        assert (await event_types(manager, NAME))[-3:] == [
            "ModelLoaded",
            "ReloadStarted",
            "ReloadCompleted",
        ]


async def test_loading_a_loaded_model_again_records_nothing() -> None:
    async with serve_manager() as (_, manager):
        await manager.load(NAME)
        before = (await manager.now()).position

        await manager.load(NAME)

        assert (await manager.now()).position == before


async def test_embedding_model_is_loaded_with_the_embedding_endpoint() -> None:
    async with serve_manager() as (server, manager):
        status = await manager.load("nomic-embed-text")

        assert status.state is ModelState.LOADED
        assert (
            server.request_count("/api/embed"),
            server.request_count("/api/generate"),
        ) == (1, 0)


async def test_embedding_model_detected_as_completion_model_is_loaded() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure("nomic-embed-text", {"capability.embedding": False})

        status = await manager.load("nomic-embed-text")

        assert status.state is ModelState.LOADED


async def test_model_without_weights_cannot_be_loaded() -> None:
    async with serve_manager() as (server, manager):
        server.apply(weights_deleted=NAME)

        with pytest.raises(ModelDamagedError, match="Pull it again"):
            await manager.load(NAME)

        failed = await last_fact(manager, facts.LoadFailed)
        assert isinstance(failed, facts.LoadFailed)
        assert failed.kind == "model_damaged"


async def test_cloud_model_is_refused_without_a_request() -> None:
    async with serve_sandbox() as server:
        stub = {"from": "gpt-oss:120b", "remote_host": "https://ollama.com"}
        await server.request("POST", "/api/create", model="far:cloud", **stub)
        async with server.open_manager() as manager:
            status = await manager.get_status("far:cloud")
            assert status.remote_host

            with pytest.raises(CloudModelError):
                await manager.load("far:cloud")

            assert server.request_count("/api/generate") == 0


LOAD_FAILURES: dict[str, dict[str, object]] = {
    "process_died": {"runner_dies_saying": "nothing of note"},
    "out_of_memory": {"runner_dies_saying": "cudaMalloc failed: out of memory"},
    "load_stalled": {"runner_start_delay_s": 600},
}


@pytest.mark.parametrize("kind", LOAD_FAILURES)
async def test_failed_load_is_recorded_with_its_kind(kind: str) -> None:
    async with serve_manager() as (server, manager):
        server.apply(**LOAD_FAILURES[kind])

        with pytest.raises(LoadFailedError) as failure:
            await manager.load(NAME)

        failed = await last_fact(manager, facts.LoadFailed)
        assert isinstance(failed, facts.LoadFailed)
        assert (failed.kind, failed.message) == (kind, str(failure.value))
        assert (await manager.get_status(NAME)).state is ModelState.ERROR


async def test_load_after_a_failure_succeeds_and_clears_it() -> None:
    async with serve_manager() as (server, manager):
        server.apply(runner_dies_saying="out of memory")
        with pytest.raises(LoadFailedError):
            await manager.load(NAME)
        server.apply(runner_dies_saying=None)

        status = await manager.load(NAME)

        assert (status.state, status.last_failure) == (ModelState.LOADED, None)


async def test_load_is_interrupted_when_the_server_dies() -> None:
    async with serve_manager() as (server, manager):
        server.apply(**SLOW_START)
        loading = asyncio.create_task(manager.load(NAME))
        await server.clock.sleep(3)
        server.apply(server="killed")

        with pytest.raises(NodeUnreachableError):
            await loading

        assert "LoadInterrupted" in await event_types(manager, NAME)
        assert (await manager.get_status(NAME)).stale_since is not None


async def test_cancelled_load_is_recorded_and_aborted() -> None:
    async with serve_manager() as (server, manager):
        server.apply(**SLOW_START)
        loading = asyncio.create_task(manager.load(NAME))
        await server.clock.sleep(3)
        assert (await manager.get_status(NAME)).state is ModelState.LOADING

        assert await manager.cancel(NAME)

        with pytest.raises(OperationEndedError):
            await loading
        assert (await event_types(manager, NAME))[-1] == "LoadCancelled"
        await server.clock.sleep(60)
        assert await server.listed_runners() == []


async def test_load_whose_caller_leaves_is_cancelled() -> None:
    async with serve_manager() as (server, manager):
        server.apply(**SLOW_START)
        loading = asyncio.create_task(manager.load(NAME))
        await server.clock.sleep(3)

        loading.cancel()
        await asyncio.wait([loading])

        assert (await event_types(manager, NAME))[-1] == "LoadCancelled"


async def test_concurrent_callers_share_one_load() -> None:
    async with serve_manager() as (server, manager):
        await asyncio.gather(manager.load(NAME), manager.load(NAME))

        assert (await event_types(manager, NAME)).count("LoadStarted") == 1
        assert server.request_count("/api/generate") == 1


@pytest.mark.parametrize("verb", ["load", "unload", "delete", "mark_used"])
async def test_model_missing_on_the_server_is_not_found(verb: str) -> None:
    async with serve_manager() as (_, manager):
        before = (await manager.now()).position

        with pytest.raises(ModelNotFoundError):
            await getattr(manager, verb)("nobody:1b")

        assert (await manager.now()).position == before


async def test_closing_the_manager_interrupts_the_load() -> None:
    async with serve_sandbox() as server:
        async with server.open_manager() as manager:
            server.apply(**SLOW_START)
            loading = asyncio.create_task(manager.load(NAME))
            await server.clock.sleep(3)
            store = manager._storage.store
            await manager._close()
            types = [event.type async for event in store.read_all()]

        assert types[-1] == "LoadInterrupted"
        await asyncio.wait([loading])
        assert isinstance(loading.exception(), OperationEndedError)


async def test_load_records_the_model_that_it_evicts() -> None:
    one_place = sandbox.Settings(max_loaded=1)
    async with serve_manager(sandbox_settings=one_place) as (_, manager):
        await manager.load(NAME)

        await manager.load(OTHER)

        gone = await last_fact(manager, facts.ModelUnloaded)
        assert gone == facts.ModelUnloaded(
            reason=UnloadReason.EVICTED, evicted_by=OTHER
        )
        assert await causes_of(manager, NAME, "ModelUnloaded") == [Cause.EVICTION]


async def test_busy_server_is_retried_and_then_fails_the_load() -> None:
    settings = sandbox.Settings(max_queue=0)
    async with serve_manager(sandbox_settings=settings) as (server, manager):
        with pytest.raises(OllamaError) as failure:
            await manager.load(NAME)

        assert failure.value.kind == "server_busy"
        assert (
            server.request_count("/api/generate") == 1 + ManagerSettings().busy_retries
        )
        assert server.clock.monotonic() >= 0.5 + 1 + 2 + 4 + 8


async def test_unsupported_capability_fails_the_load() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure(NAME, {"capability.embedding": True})

        status = await manager.load(NAME)  # today's server loads it for embeddings too

        assert status.state is ModelState.LOADED


async def test_embedding_refused_by_the_server_is_recorded() -> None:
    async with serve_manager() as (server, manager):
        said = '{"error": "this model does not support embeddings"}'
        server.apply(answer={"path": "/api/embed", "status": 501, "body": said})

        with pytest.raises(CapabilityMissingError):
            await manager.load("nomic-embed-text")

        failed = await last_fact(manager, facts.LoadFailed)
        assert isinstance(failed, facts.LoadFailed)
        assert failed.kind == "capability_missing"
