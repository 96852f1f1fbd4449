"""Unloading and deleting, against a server over HTTP: seen at its runners."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.manager_fixture import Place, herd_of, last_fact, recorded, served, told

from herdbook.core import (
    BusyError,
    Cause,
    ManagerSettings,
    ModelManager,
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


async def runners(place: Place) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = (await place.somebody("GET", "/api/ps")).json()[
        "models"
    ]
    return shown


async def causes(herd: ModelManager, name: str, kind: str) -> list[str]:
    return [e.cause for e in await recorded(herd, name) if e.type == kind]


async def say(place: Place, name: str, words: int = 2000) -> None:
    """Have a model talk for a while: 11 ms a word."""
    await place.loads(name, prompt="hi", stream=False, options={"num_predict": words})


async def test_cloud_model_is_deleted_without_an_unload() -> None:
    async with served() as place:
        stub = {"from": "gpt-oss:120b", "remote_host": "https://ollama.com"}
        await place.somebody("POST", "/api/create", model="far:cloud", **stub)
        async with place.herd() as herd:
            await herd.delete("far:cloud")

            assert place.asked("/api/generate") == 0
            assert not place.has("far:cloud")


async def test_other_names_of_the_weights_become_loaded_and_unloaded_with_it() -> None:
    async with herd_of() as (_, herd):
        await herd.load("plain")
        loaded = await herd.get_status("update-me")
        assert loaded.state is ModelState.LOADED
        assert loaded.runner is not None
        assert loaded.runner.name == "plain:latest"

        await herd.unload("plain")

        assert (await herd.get_status("update-me")).state is ModelState.AVAILABLE
        other = "update-me:latest"
        assert await causes(herd, other, "ModelLoaded") == [Cause.SHARED]
        assert await causes(herd, other, "ModelUnloaded") == [Cause.SHARED]


async def test_unloading_another_name_of_the_weights_unloads_both() -> None:
    async with herd_of() as (place, herd):
        await herd.load("plain")

        assert await herd.unload("update-me") is UnloadResult.UNLOADED

        assert await runners(place) == []
        assert await causes(herd, "plain:latest", "ModelUnloaded") == [Cause.SHARED]
        assert await causes(herd, "update-me:latest", "ModelUnloaded") == [
            Cause.COMMAND
        ]


async def test_unload_is_recorded_as_requested() -> None:
    async with herd_of() as (place, herd):
        await herd.load(NAME)

        assert await herd.unload(NAME) is UnloadResult.UNLOADED

        gone = await last_fact(herd, facts.ModelUnloaded)
        assert gone == facts.ModelUnloaded(reason=UnloadReason.REQUESTED)
        assert await runners(place) == []


async def test_unload_waits_until_the_runner_is_gone() -> None:
    async with herd_of() as (place, herd):
        await herd.load(NAME)
        place.did(unload_lag_s=2)
        before = place.time.now()

        assert await herd.unload(NAME) is UnloadResult.UNLOADED

        assert place.time.now() - before >= 2


async def test_unload_while_a_request_runs_is_reported_as_deferred() -> None:
    async with herd_of() as (place, herd):
        await herd.load(NAME)
        talking = asyncio.create_task(say(place, NAME))
        await place.clock.sleep(1)

        assert await herd.unload(NAME) is UnloadResult.DEFERRED
        assert (await herd.get_status(NAME)).state is ModelState.LOADED

        await talking
        await herd.refresh()
        assert (await herd.get_status(NAME)).state is ModelState.AVAILABLE


async def test_unload_of_what_is_not_loaded_says_so_and_records_nothing() -> None:
    async with herd_of() as (place, herd):
        before = (await herd.now()).position

        assert await herd.unload(NAME) is UnloadResult.NOT_LOADED

        assert (await herd.now()).position == before
        assert place.asked("/api/generate") == 0


async def test_unload_waits_for_a_load_under_way() -> None:
    async with herd_of() as (place, herd):
        place.did(**SLOW_START)
        loading = asyncio.create_task(herd.load(NAME))
        await place.clock.sleep(3)

        assert await herd.unload(NAME) is UnloadResult.UNLOADED

        await loading
        assert await runners(place) == []
        assert (await told(herd, NAME))[-2:] == ["ModelLoaded", "ModelUnloaded"]


async def test_delete_unloads_first() -> None:
    async with herd_of() as (place, herd):
        await herd.load(OTHER)

        await herd.delete(OTHER)

        assert await runners(place) == []
        assert (await told(herd, OTHER))[-2:] == [
            "ModelUnloaded",
            "ModelDeleted",
        ]
        assert not place.has(OTHER)


async def test_delete_leaves_the_runner_that_others_need() -> None:
    async with herd_of() as (place, herd):
        await herd.load("plain")

        await herd.delete("plain")

        assert len(await runners(place)) == 1
        assert (await told(herd, "plain:latest"))[-1] == "ModelDeleted"
        assert (await herd.get_status("update-me")).state is ModelState.LOADED


async def test_deleted_fact_says_what_it_was() -> None:
    async with herd_of() as (_, herd):
        before = await herd.get_status(NAME)

        await herd.delete(NAME)

        deleted = await last_fact(herd, facts.ModelDeleted)
        assert deleted == facts.ModelDeleted(
            digest=before.digest, size_bytes=before.size_bytes
        )
        assert (await herd.get_status(NAME)).state is ModelState.NOT_PRESENT


async def test_delete_of_what_somebody_deleted_meanwhile_is_not_found() -> None:
    async with herd_of() as (place, herd):
        await place.deletes(NAME)

        with pytest.raises(ModelNotFoundError):
            await herd.delete(NAME)

        assert (await herd.get_status(NAME)).state is ModelState.NOT_PRESENT
        assert (await told(herd, NAME))[-1] == "ModelVanished"


async def test_delete_during_a_load_is_refused_as_busy() -> None:
    async with herd_of() as (place, herd):
        place.did(**SLOW_START)
        loading = asyncio.create_task(herd.load(NAME))
        await place.clock.sleep(3)

        with pytest.raises(BusyError):
            await herd.delete(NAME)

        await loading


async def test_delete_of_a_failed_pull_forgets_the_failure() -> None:
    async with herd_of("none") as (_, herd):
        with pytest.raises(OllamaError):
            await herd.ensure_available("nobody:1b")
        assert (await herd.get_status("nobody:1b")).state is ModelState.ERROR

        await herd.delete("nobody:1b")

        assert (await herd.get_status("nobody:1b")).state is ModelState.NOT_PRESENT


async def test_unload_of_a_slow_runner_is_deferred_after_its_time() -> None:
    settings = ManagerSettings(unload_timeout_s=1.0)
    async with herd_of(settings=settings) as (place, herd):
        await herd.load(NAME)
        place.did(unload_lag_s=30)

        assert await herd.unload(NAME) is UnloadResult.DEFERRED
