"""Why a model is as it is: its state's own event, and what that goes back to."""

from __future__ import annotations

import pytest
from support.manager_fixture import herd_of

from herdbook import sandbox
from herdbook.core import HerdbookError, ModelManager, ModelState
from herdbook.core.history.explain import Link


async def why(herd: ModelManager, name: str) -> list[tuple[Link, str | None, str]]:
    """Return how each event belongs there, whose it is and what it says."""
    found = (await herd.why(name)).ancestors
    positions = [each.entry.position for each in found]
    assert positions == sorted(set(positions))
    return [(each.link, each.entry.model, each.entry.type) for each in found]


def mine(name: str, *pairs: tuple[Link, str]) -> list[tuple[Link, str | None, str]]:
    return [(link, name, kind) for link, kind in pairs]


FOUND = (
    (Link.ARRIVAL, "ModelDiscovered"),
    (Link.OPERATION, "CapabilitiesDetected"),
)


async def test_model_that_was_found_goes_back_to_that() -> None:
    async with herd_of() as (_, herd):
        found = await why(herd, "llava:7b")

    assert found == mine(
        "llava:7b",
        (Link.STATE, "ModelDiscovered"),
        (Link.OPERATION, "CapabilitiesDetected"),
    )


async def test_nothing_led_to_a_model_that_nobody_has_seen() -> None:
    async with herd_of() as (_, herd):
        lineage = await herd.why("mistral")

    assert lineage.status.state is ModelState.NOT_PRESENT
    assert lineage.ancestors == ()


async def test_loaded_model_goes_back_to_its_load_and_settings() -> None:
    async with herd_of() as (_, herd):
        await herd.configure("llava:7b", {"num_ctx": 512, "pinned": True})
        await herd.configure("llava:7b", {"num_ctx": 1024}, unset=["pinned"])
        await herd.mark_used("qwen3:0.6b")
        await herd.load("llava:7b")
        found = await why(herd, "llava:7b")

    assert found == mine(
        "llava:7b",
        *FOUND,
        (Link.SETTING, "ConfigurationChanged"),
        (Link.OPERATION, "LoadStarted"),
        (Link.STATE, "ModelLoaded"),
    )


async def test_pulled_model_goes_back_to_its_pull_without_progress() -> None:
    async with herd_of() as (_, herd):
        async for _progress in herd.pull("llama3.1:latest"):
            pass
        found = await why(herd, "llama3.1:latest")

    assert found == mine(
        "llama3.1:latest",
        (Link.OPERATION, "PullStarted"),
        (Link.STATE, "PullCompleted"),
        (Link.OPERATION, "CapabilitiesDetected"),
    )


async def test_unloaded_model_goes_back_to_the_load_before() -> None:
    async with herd_of() as (_, herd):
        await herd.load("llava:7b")
        await herd.unload("llava:7b")
        found = await why(herd, "llava:7b")

    assert found == mine(
        "llava:7b",
        *FOUND,
        (Link.OPERATION, "LoadStarted"),
        (Link.MEMORY, "ModelLoaded"),
        (Link.STATE, "ModelUnloaded"),
    )


async def test_evicted_model_goes_back_to_the_load_of_the_other() -> None:
    async with herd_of(server=sandbox.Settings(max_loaded=1)) as (place, herd):
        await herd.load("llava:7b")
        await place.loads("llama3.1:8b")
        await herd.refresh()
        found = await why(herd, "llava:7b")

    assert (Link.STATE, "llava:7b", "ModelUnloaded") in found
    assert (Link.OTHER, "llama3.1:8b", "ModelLoaded") in found


async def test_failed_load_goes_back_to_who_asked_for_it() -> None:
    async with herd_of() as (place, herd):
        place.did(runner_dies_saying="out of memory")
        with pytest.raises(HerdbookError):
            await herd.load("llava:7b")
        found = await why(herd, "llava:7b")

    assert found == mine(
        "llava:7b",
        *FOUND,
        (Link.OPERATION, "LoadStarted"),
        (Link.STATE, "LoadFailed"),
    )


async def test_failed_pull_does_not_go_back_to_an_earlier_life() -> None:
    async with herd_of() as (place, herd):
        await place.deletes("llava:7b")
        await herd.refresh()
        with pytest.raises(HerdbookError):
            async for _progress in herd.pull("llava:7b-no-such"):
                pass
        place.did(disk_bytes=1)
        with pytest.raises(HerdbookError):
            async for _progress in herd.pull("llava:7b"):
                pass
        found = await why(herd, "llava:7b")

    assert found == mine(
        "llava:7b", (Link.OPERATION, "PullStarted"), (Link.STATE, "PullFailed")
    )


async def test_model_of_shared_weights_goes_back_to_the_name_that_was_loaded() -> None:
    async with herd_of() as (_, herd):
        await herd.load("plain")
        found = await why(herd, "update-me")

    assert found == [
        *mine("update-me:latest", *FOUND),
        (Link.OTHER, "plain:latest", "LoadStarted"),
        (Link.OTHER, "plain:latest", "ModelLoaded"),
        (Link.STATE, "update-me:latest", "ModelLoaded"),
    ]


async def test_shared_unload_goes_back_to_the_name_that_was_unloaded() -> None:
    async with herd_of() as (_, herd):
        await herd.load("plain")
        await herd.unload("plain")
        found = await why(herd, "update-me")

    assert (Link.OTHER, "plain:latest", "ModelUnloaded") in found
    assert found[-1] != (Link.OTHER, "plain:latest", "LoadStarted")


async def test_restart_of_the_server_stands_in_the_lineage() -> None:
    async with herd_of() as (place, herd):
        await herd.load("llava:7b")
        place.did(server="killed")
        with pytest.raises(HerdbookError):
            await herd.refresh()
        place.did(server="started")
        await herd.refresh()
        found = (await herd.why("llava:7b")).ancestors

    told = [(each.link, each.entry.type) for each in found]
    assert told[-3:] == [
        (Link.NODE, "NodeLost"),
        (Link.NODE, "NodeReached"),
        (Link.STATE, "ModelUnloaded"),
    ]


async def test_change_of_the_runner_stands_in_the_lineage() -> None:
    async with herd_of() as (place, herd):
        await herd.load("llava:7b")
        await place.loads("llava:7b", options={"num_ctx": 256})
        await herd.refresh()
        found = await why(herd, "llava:7b")

    assert found[-1] == (Link.MEMORY, "llava:7b", "RunnerChanged")


async def test_lineage_and_figures_of_the_past_are_those_of_then() -> None:
    async with herd_of("some") as (place, herd):
        await herd.load("gemma3:4b")
        then = (await herd.now()).position
        known, counted = await herd.why("gemma3:4b"), await herd.statistics("gemma3:4b")

        await herd.unload("gemma3:4b")
        await herd.configure("gemma3:4b", {"num_ctx": 1024})
        await place.deletes("gemma3:4b")
        await herd.refresh()

        moment = await herd.as_of(then)
        assert await herd.why("gemma3:4b", moment) == known
        assert moment.statistics("gemma3:4b") == counted
        assert await herd.why("gemma3:4b") != known
        assert await herd.statistics("gemma3:4b") != counted
