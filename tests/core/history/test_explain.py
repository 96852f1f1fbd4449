"""Explanations: the event that caused the state of a model, and its causes."""

from __future__ import annotations

import pytest
from support.manager_fixture import serve_manager

from herdbook import sandbox
from herdbook.core import HerdbookError, ModelManager, ModelState
from herdbook.core.history.explain import Link


async def why(manager: ModelManager, name: str) -> list[tuple[Link, str | None, str]]:
    """Return how each event belongs there, whose it is and what it says."""
    found = (await manager.why(name)).ancestors
    positions = [each.entry.position for each in found]
    assert positions == sorted(set(positions))
    return [(each.link, each.entry.model, each.entry.type) for each in found]


def mine(name: str, *pairs: tuple[Link, str]) -> list[tuple[Link, str | None, str]]:
    return [(link, name, kind) for link, kind in pairs]


FOUND = (
    (Link.ARRIVAL, "ModelDiscovered"),
    (Link.OPERATION, "CapabilitiesDetected"),
)


async def test_discovered_model_is_explained_by_its_discovery() -> None:
    async with serve_manager() as (_, manager):
        found = await why(manager, "llava:7b")

    assert found == mine(
        "llava:7b",
        (Link.STATE, "ModelDiscovered"),
        (Link.OPERATION, "CapabilitiesDetected"),
    )


async def test_unknown_model_has_no_explanation() -> None:
    async with serve_manager() as (_, manager):
        lineage = await manager.why("mistral")

    assert lineage.status.state is ModelState.NOT_PRESENT
    assert lineage.ancestors == ()


async def test_loaded_model_is_explained_by_its_load_and_settings() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure("llava:7b", {"num_ctx": 512, "pinned": True})
        await manager.configure("llava:7b", {"num_ctx": 1024}, unset=["pinned"])
        await manager.mark_used("qwen3:0.6b")
        await manager.load("llava:7b")
        found = await why(manager, "llava:7b")

    assert found == mine(
        "llava:7b",
        *FOUND,
        (Link.SETTING, "ConfigurationChanged"),
        (Link.OPERATION, "LoadStarted"),
        (Link.STATE, "ModelLoaded"),
    )


async def test_pulled_model_is_explained_by_its_pull_without_progress() -> None:
    async with serve_manager() as (_, manager):
        async for _progress in manager.pull("llama3.1:latest"):
            pass
        found = await why(manager, "llama3.1:latest")

    assert found == mine(
        "llama3.1:latest",
        (Link.OPERATION, "PullStarted"),
        (Link.STATE, "PullCompleted"),
        (Link.OPERATION, "CapabilitiesDetected"),
    )


async def test_unloaded_model_is_explained_by_its_earlier_load() -> None:
    async with serve_manager() as (_, manager):
        await manager.load("llava:7b")
        await manager.unload("llava:7b")
        found = await why(manager, "llava:7b")

    assert found == mine(
        "llava:7b",
        *FOUND,
        (Link.OPERATION, "LoadStarted"),
        (Link.MEMORY, "ModelLoaded"),
        (Link.STATE, "ModelUnloaded"),
    )


async def test_evicted_model_is_explained_by_the_load_of_the_other_model() -> None:
    async with serve_manager(sandbox_settings=sandbox.Settings(max_loaded=1)) as (
        server,
        manager,
    ):
        await manager.load("llava:7b")
        await server.load("llama3.1:8b")
        await manager.refresh()
        found = await why(manager, "llava:7b")

    assert (Link.STATE, "llava:7b", "ModelUnloaded") in found
    assert (Link.OTHER, "llama3.1:8b", "ModelLoaded") in found


async def test_failed_load_is_explained_by_its_request() -> None:
    async with serve_manager() as (server, manager):
        server.apply(runner_dies_saying="out of memory")
        with pytest.raises(HerdbookError):
            await manager.load("llava:7b")
        found = await why(manager, "llava:7b")

    assert found == mine(
        "llava:7b",
        *FOUND,
        (Link.OPERATION, "LoadStarted"),
        (Link.STATE, "LoadFailed"),
    )


async def test_failed_pull_is_not_explained_by_an_earlier_life_of_the_model() -> None:
    async with serve_manager() as (server, manager):
        await server.delete("llava:7b")
        await manager.refresh()
        with pytest.raises(HerdbookError):
            async for _progress in manager.pull("llava:7b-no-such"):
                pass
        server.apply(disk_bytes=1)
        with pytest.raises(HerdbookError):
            async for _progress in manager.pull("llava:7b"):
                pass
        found = await why(manager, "llava:7b")

    assert found == mine(
        "llava:7b", (Link.OPERATION, "PullStarted"), (Link.STATE, "PullFailed")
    )


async def test_shared_weights_are_explained_by_the_name_that_was_loaded() -> None:
    async with serve_manager() as (_, manager):
        await manager.load("plain")
        found = await why(manager, "update-me")

    assert found == [
        *mine("update-me:latest", *FOUND),
        (Link.OTHER, "plain:latest", "LoadStarted"),
        (Link.OTHER, "plain:latest", "ModelLoaded"),
        (Link.STATE, "update-me:latest", "ModelLoaded"),
    ]


async def test_shared_unload_is_explained_by_the_name_that_was_unloaded() -> None:
    async with serve_manager() as (_, manager):
        await manager.load("plain")
        await manager.unload("plain")
        found = await why(manager, "update-me")

    assert (Link.OTHER, "plain:latest", "ModelUnloaded") in found
    assert found[-1] != (Link.OTHER, "plain:latest", "LoadStarted")


async def test_explanation_includes_a_restart_of_the_server() -> None:
    async with serve_manager() as (server, manager):
        await manager.load("llava:7b")
        server.apply(server="killed")
        with pytest.raises(HerdbookError):
            await manager.refresh()
        server.apply(server="started")
        await manager.refresh()
        found = (await manager.why("llava:7b")).ancestors

    result = [(each.link, each.entry.type) for each in found]
    assert result[-3:] == [
        (Link.NODE, "NodeLost"),
        (Link.NODE, "NodeReached"),
        (Link.STATE, "ModelUnloaded"),
    ]


async def test_explanation_includes_a_change_of_the_runner() -> None:
    async with serve_manager() as (server, manager):
        await manager.load("llava:7b")
        await server.load("llava:7b", options={"num_ctx": 256})
        await manager.refresh()
        found = await why(manager, "llava:7b")

    assert (Link.MEMORY, "llava:7b", "RunnerChanged") in found


async def test_past_explanation_and_statistics_are_those_of_that_time() -> None:
    async with serve_manager("some") as (server, manager):
        await manager.load("gemma3:4b")
        then = (await manager.now()).position
        known, counted = (
            await manager.why("gemma3:4b"),
            await manager.statistics("gemma3:4b"),
        )

        await manager.unload("gemma3:4b")
        await manager.configure("gemma3:4b", {"num_ctx": 1024})
        await server.delete("gemma3:4b")
        await manager.refresh()

        moment = await manager.as_of(then)
        assert await manager.why("gemma3:4b", moment) == known
        assert moment.statistics("gemma3:4b") == counted
        assert await manager.why("gemma3:4b") != known
        assert await manager.statistics("gemma3:4b") != counted


async def test_removed_setting_is_followed_by_its_removal() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure("llava:7b", {"num_ctx": 512, "temperature": 0.5})
        await manager.configure("llava:7b", unset=["temperature"])
        found = (await manager.why("llava:7b")).ancestors

    sentences = [each.entry.sentence for each in found if each.link is Link.SETTING]
    assert sentences == [
        "num_ctx set to 512 (was: not set), temperature set to 0.5 (was: not set)",
        "temperature removed (was: 0.5)",
    ]


async def test_removed_setting_does_not_explain_a_model() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure("llava:7b", {"num_ctx": 512})
        await manager.configure("llava:7b", unset=["num_ctx"])
        found = await why(manager, "llava:7b")

    assert Link.SETTING not in {link for link, *_ in found}
