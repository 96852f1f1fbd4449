"""The library as programs use it: statuses, availability, names, recommendation."""

from __future__ import annotations

import asyncio
from datetime import date
from pathlib import Path

import pytest
from support.manager_fixture import (
    event_types,
    pull_to_end,
    recorded_events,
    serve_manager,
    serve_sandbox,
)

from herdbook import sandbox
from herdbook.core import (
    CallerError,
    FactSource,
    InvalidNameError,
    ModelFamily,
    ModelManager,
    ModelNotFoundError,
    ModelRegistry,
    ModelState,
    NodeUnreachableError,
    OperationEndedError,
    PullError,
)
from herdbook.events.lifecycle import Activity

NAME = "llava:7b"
BIG = "llama3.2:1b"


async def test_registry_returns_the_capabilities_of_a_known_model() -> None:
    async with serve_manager("none") as (_, manager):
        can = manager.registry.capabilities("qwen2.5-coder:7b")

        assert (can.context, can.tools, can.coding, can.vision) == (
            32768,
            True,
            True,
            False,
        )


async def test_custom_registry_is_used_before_the_model_exists() -> None:
    herdling = {"source": "mine", "family": "llama", "context": 1234, "tools": True}
    source = {"title": "My own", "date": date(2026, 1, 1)}
    registry = ModelRegistry().with_catalogue(
        {"sources": {"mine": source}, "models": {"herdling": herdling}}
    )
    async with (
        serve_sandbox("none") as server,
        server.open_manager(registry=registry) as manager,
    ):
        known = manager.registry.find("herdling:1b")

        assert known is not None
        assert known.family is ModelFamily.LLAMA
        assert (await manager.capabilities("herdling:1b"))["tools"].value


async def test_refresh_updates_the_statuses() -> None:
    async with serve_manager("none") as (server, manager):
        assert await manager.all_statuses() == []
        await server.pull(BIG)

        look = await manager.refresh()

        assert list(look.models) == [BIG]
        assert [status.name for status in await manager.all_statuses()] == [BIG]
        assert (await manager.get_status(BIG)).state is ModelState.AVAILABLE


async def test_statuses_are_sorted_by_name() -> None:
    async with serve_manager() as (_, manager):
        names = [status.name for status in await manager.all_statuses()]

        assert names == sorted(names)
        assert len(names) == 9


async def test_states_of_the_whole_life_of_a_model_are_as_expected() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry={"rate": 1e7}, runner_start_delay_s=30)
        seen = [(await manager.get_status(BIG)).lifecycle[:2]]
        for work in (manager.ensure_available(BIG), manager.load(BIG)):
            task = asyncio.create_task(work)
            await server.clock.sleep(2)
            seen.append((await manager.get_status(BIG)).lifecycle[:2])
            await task
            seen.append((await manager.get_status(BIG)).lifecycle[:2])
        await manager.delete(BIG)
        seen.append((await manager.get_status(BIG)).lifecycle[:2])

    assert seen == [
        (ModelState.NOT_PRESENT, None),
        (ModelState.LOADING, Activity.PULL),
        (ModelState.AVAILABLE, None),
        (ModelState.LOADING, Activity.LOAD),
        (ModelState.LOADED, None),
        (ModelState.NOT_PRESENT, None),
    ]


async def test_ensure_available_pulls_what_is_missing() -> None:
    async with serve_manager("none") as (server, manager):
        status = await manager.ensure_available(BIG)

        assert status.state is ModelState.AVAILABLE
        assert server.has_model(BIG)
        assert (await event_types(manager, BIG))[:2] == ["PullStarted", "PullCompleted"]


async def test_ensure_available_does_not_pull_a_present_model() -> None:
    async with serve_manager() as (server, manager):
        before = (await manager.now()).position

        assert (await manager.ensure_available("plain")).present

        assert server.request_count("/api/pull") == 0
        assert (await manager.now()).position == before


async def test_ensure_available_finds_a_model_pulled_by_others() -> None:
    async with serve_manager("none") as (server, manager):
        await server.pull(BIG)

        await manager.ensure_available(BIG)

        assert server.request_count("/api/pull") == 1


async def test_ensure_available_pulls_a_deleted_model_again() -> None:
    async with serve_manager() as (server, manager):
        await server.delete("plain")

        assert (await manager.ensure_available("plain")).present

        assert server.request_count("/api/pull") == 1


async def test_ensure_available_waits_for_the_running_pull() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry={"rate": 1e6})
        pulling = asyncio.create_task(pull_to_end(manager, BIG))
        await server.clock.sleep(5)

        assert (await manager.ensure_available(BIG)).present

        await pulling
        assert server.request_count("/api/pull") == 1


async def test_ensure_available_raises_if_its_pull_is_cancelled() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry={"rate": 1e6})
        waiting = asyncio.create_task(manager.ensure_available(BIG))
        await server.clock.sleep(5)
        await manager.cancel(BIG)

        with pytest.raises(OperationEndedError):
            await waiting


async def test_ensure_available_whose_caller_leaves_cancels_the_pull() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry={"rate": 1e6})
        waiting = asyncio.create_task(manager.ensure_available(BIG))
        await server.clock.sleep(5)
        waiting.cancel()
        await asyncio.wait([waiting])

        assert (await event_types(manager, BIG))[-1] == "PullCancelled"


async def test_ensure_available_requires_the_server() -> None:
    async with serve_manager() as (server, manager):
        server.apply(server="killed")

        with pytest.raises(NodeUnreachableError):
            await manager.ensure_available("plain")


async def test_model_being_pulled_is_not_available_yet() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry={"rate": 1e6})
        pulling = asyncio.create_task(pull_to_end(manager, BIG))
        await server.clock.sleep(5)

        assert not await manager.is_available(BIG)

        await pulling
        assert await manager.is_available(BIG)


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "plain:latest",
        "PLAIN",
        "library/plain",
        "registry.ollama.ai/library/plain",
    ],
)
async def test_all_spellings_of_a_name_mean_the_same_model(name: str) -> None:
    async with serve_manager() as (_, manager):
        status = await manager.mark_used(name)

        assert status.name == "plain:latest"
        assert (await event_types(manager, "plain:latest"))[-1] == "ModelUsed"


async def test_name_without_a_tag_means_latest() -> None:
    async with serve_manager("none") as (_, manager):
        await manager.ensure_available("llama3.1")

        assert (await manager.get_status("llama3.1:latest")).present
        assert (await manager.get_status("llama3.1")).name == "llama3.1:latest"


async def test_pulled_name_is_spelled_as_the_server_spells_it() -> None:
    async with serve_manager() as (_, manager):
        await manager.ensure_available("LLaMA3.2:3B")
        before = (await manager.now()).position

        look = await manager.refresh()

        (name,) = [name for name in look.models if name.lower() == "llama3.2:3b"]
        assert name == "llama3.2:3B"  # the server knew that spelling of the model
        assert (await event_types(manager, name))[0] == "PullStarted"
        assert await recorded_events(manager, after=before) == []


async def test_invalid_name_is_refused_before_any_request() -> None:
    async with serve_manager() as (server, manager):
        asked = len(server.world.seen)
        for refused in (
            manager.load,
            manager.unload,
            manager.delete,
            manager.mark_used,
        ):
            with pytest.raises(InvalidNameError):
                await refused("../etc:x y")

        with pytest.raises(InvalidNameError):
            await pull_to_end(manager, "../etc:x y")

        assert len(server.world.seen) == asked


async def test_capabilities_on_an_older_server_come_from_show() -> None:
    async with (
        serve_sandbox(profile=sandbox.OLDER) as server,
        server.open_manager() as manager,
    ):
        status = await manager.get_status(NAME)

        assert (await manager.node_status()).server_version == "0.9.6"
        assert status.can("vision")
        assert status.capabilities["vision"].source is FactSource.SHOW
        assert status.context_trained == 8192


async def test_older_server_gives_the_same_states() -> None:
    async with (
        serve_sandbox("none", profile=sandbox.OLDER) as server,
        server.open_manager() as manager,
    ):
        await manager.ensure_available(BIG)
        status = await manager.load(BIG)
        assert status.context_in_effect is None
        await manager.unload(BIG)
        await pull_to_end(manager, BIG)
        await manager.delete(BIG)

        types = await event_types(manager, BIG)

        assert [t for t in types if t != "CapabilitiesDetected"] == [
            "PullStarted",
            "PullCompleted",
            "LoadStarted",
            "ModelLoaded",
            "ModelUnloaded",
            "UpdateStarted",
            "UpdateUnchanged",
            "ModelDeleted",
        ]


async def test_address_from_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve_sandbox() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        async with ModelManager.open(":memory:", clock=server.clock) as manager:
            assert (await manager.node_status()).url == server.url


async def test_nodes_in_one_log_are_separate(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server:
        async with server.open_manager(log) as manager:
            assert len(await manager.all_statuses()) == 9
        async with ModelManager.open(
            log, ollama=server.url, node="other", clock=server.clock, refresh=False
        ) as other:
            assert await other.all_statuses() == []
            assert not (await other.node_status()).reached


async def test_invalid_node_name_is_refused() -> None:
    async with serve_sandbox() as server:
        with pytest.raises(CallerError):
            async with ModelManager.open(":memory:", ollama=server.url, node="a/b"):
                pass


async def test_log_that_is_opened_twice_stays_consistent(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server:
        for _ in range(2):
            async with server.open_manager(log) as manager:
                await manager.load(NAME)
                await manager.unload(NAME)

        async with server.open_manager(log) as manager:
            assert (await manager.verify()).findings == ()
            assert (await event_types(manager, NAME)).count("ModelLoaded") == 2


async def test_pull_requested_during_a_cancellation_starts_again() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry={"rate": 1e6})
        first = asyncio.create_task(pull_to_end(manager, BIG))
        await server.clock.sleep(5)
        cancelling = asyncio.create_task(manager.cancel(BIG))
        again = asyncio.create_task(pull_to_end(manager, BIG))
        await asyncio.wait([first, cancelling, again])

        assert isinstance(first.exception(), OperationEndedError)
        assert again.exception() is None
        assert (await manager.get_status(BIG)).present


async def test_load_requested_during_a_cancellation_starts_again() -> None:
    async with serve_manager() as (server, manager):
        server.apply(runner_start_delay_s=30)
        first = asyncio.create_task(manager.load(NAME))
        await server.clock.sleep(5)
        cancelling = asyncio.create_task(manager.cancel(NAME))
        again = asyncio.create_task(manager.load(NAME))
        await asyncio.wait([first, cancelling, again])

        assert isinstance(first.exception(), OperationEndedError)
        assert again.result().state is ModelState.LOADED


async def test_error_for_a_missing_model_says_what_to_do() -> None:
    async with serve_manager() as (_, manager):
        with pytest.raises(ModelNotFoundError, match="Pull it first"):
            await manager.load("nobody:1b")
        with pytest.raises(ModelNotFoundError, match="Check the name"):
            await manager.unload("nobody:1b")
        with pytest.raises(ModelNotFoundError, match=f"Did you mean {NAME}"):
            await manager.load(NAME.replace("l", "", 1))


async def test_failed_pull_keeps_its_message() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(disk_bytes=1000)
        with pytest.raises(PullError) as failure:
            await manager.ensure_available(BIG)

        failed = (await manager.get_status(BIG)).last_failure

        assert failed is not None
        assert failed.message == str(failure.value)
        assert failed.at == server.clock.now()
