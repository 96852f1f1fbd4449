"""The library as one uses it: statuses, availability, names, recommendation."""

from __future__ import annotations

import asyncio
from datetime import date
from pathlib import Path

import pytest
from support.manager_fixture import herd_of, pulled, recorded, served, told

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
    async with herd_of("none") as (_, herd):
        can = herd.registry.capabilities("qwen2.5-coder:7b")

        assert (can.context, can.tools, can.coding, can.vision) == (
            32768,
            True,
            True,
            False,
        )


async def test_own_registry_is_asked_before_the_model_is_there() -> None:
    herdling = {"source": "mine", "family": "llama", "context": 1234, "tools": True}
    source = {"title": "My own", "date": date(2026, 1, 1)}
    registry = ModelRegistry().with_catalogue(
        {"sources": {"mine": source}, "models": {"herdling": herdling}}
    )
    async with served("none") as place, place.herd(registry=registry) as herd:
        known = herd.registry.find("herdling:1b")

        assert known is not None
        assert known.family is ModelFamily.LLAMA
        assert (await herd.capabilities("herdling:1b"))["tools"].value


async def test_refresh_updates_the_statuses() -> None:
    async with herd_of("none") as (place, herd):
        assert await herd.all_statuses() == []
        await place.pulls(BIG)

        look = await herd.refresh()

        assert list(look.models) == [BIG]
        assert [status.name for status in await herd.all_statuses()] == [BIG]
        assert (await herd.get_status(BIG)).state is ModelState.AVAILABLE


async def test_statuses_come_by_name() -> None:
    async with herd_of() as (_, herd):
        names = [status.name for status in await herd.all_statuses()]

        assert names == sorted(names)
        assert len(names) == 9


async def test_states_of_a_models_whole_life_are_the_expected_ones() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry={"rate": 1e7}, runner_start_delay_s=30)
        seen = [(await herd.get_status(BIG)).lifecycle[:2]]
        for work in (herd.ensure_available(BIG), herd.load(BIG)):
            task = asyncio.create_task(work)
            await place.clock.sleep(2)
            seen.append((await herd.get_status(BIG)).lifecycle[:2])
            await task
            seen.append((await herd.get_status(BIG)).lifecycle[:2])
        await herd.delete(BIG)
        seen.append((await herd.get_status(BIG)).lifecycle[:2])

    assert seen == [
        (ModelState.NOT_PRESENT, None),
        (ModelState.LOADING, Activity.PULL),
        (ModelState.AVAILABLE, None),
        (ModelState.LOADING, Activity.LOAD),
        (ModelState.LOADED, None),
        (ModelState.NOT_PRESENT, None),
    ]


async def test_ensure_available_pulls_what_is_missing() -> None:
    async with herd_of("none") as (place, herd):
        status = await herd.ensure_available(BIG)

        assert status.state is ModelState.AVAILABLE
        assert place.has(BIG)
        assert (await told(herd, BIG))[:2] == ["PullStarted", "PullCompleted"]


async def test_ensure_available_asks_for_no_pull_of_what_is_there() -> None:
    async with herd_of() as (place, herd):
        before = (await herd.now()).position

        assert (await herd.ensure_available("plain")).present

        assert place.asked("/api/pull") == 0
        assert (await herd.now()).position == before


async def test_ensure_available_finds_what_somebody_else_has_pulled() -> None:
    async with herd_of("none") as (place, herd):
        await place.pulls(BIG)

        await herd.ensure_available(BIG)

        assert place.asked("/api/pull") == 1


async def test_ensure_available_pulls_again_what_somebody_has_deleted() -> None:
    async with herd_of() as (place, herd):
        await place.deletes("plain")

        assert (await herd.ensure_available("plain")).present

        assert place.asked("/api/pull") == 1


async def test_ensure_available_waits_for_the_pull_under_way() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry={"rate": 1e6})
        pulling = asyncio.create_task(pulled(herd, BIG))
        await place.clock.sleep(5)

        assert (await herd.ensure_available(BIG)).present

        await pulling
        assert place.asked("/api/pull") == 1


async def test_ensure_available_tells_that_its_pull_was_cancelled() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry={"rate": 1e6})
        waiting = asyncio.create_task(herd.ensure_available(BIG))
        await place.clock.sleep(5)
        await herd.cancel(BIG)

        with pytest.raises(OperationEndedError):
            await waiting


async def test_ensure_available_whose_caller_leaves_cancels_the_pull() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry={"rate": 1e6})
        waiting = asyncio.create_task(herd.ensure_available(BIG))
        await place.clock.sleep(5)
        waiting.cancel()
        await asyncio.wait([waiting])

        assert (await told(herd, BIG))[-1] == "PullCancelled"


async def test_ensure_available_needs_the_server() -> None:
    async with herd_of() as (place, herd):
        place.did(server="killed")

        with pytest.raises(NodeUnreachableError):
            await herd.ensure_available("plain")


async def test_pull_under_way_is_not_available_yet() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry={"rate": 1e6})
        pulling = asyncio.create_task(pulled(herd, BIG))
        await place.clock.sleep(5)

        assert not await herd.is_available(BIG)

        await pulling
        assert await herd.is_available(BIG)


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
async def test_all_spellings_of_a_name_are_one_model(name: str) -> None:
    async with herd_of() as (_, herd):
        status = await herd.mark_used(name)

        assert status.name == "plain:latest"
        assert (await told(herd, "plain:latest"))[-1] == "ModelUsed"


async def test_name_without_a_tag_is_the_latest() -> None:
    async with herd_of("none") as (_, herd):
        await herd.ensure_available("llama3.1")

        assert (await herd.get_status("llama3.1:latest")).present
        assert (await herd.get_status("llama3.1")).name == "llama3.1:latest"


async def test_pulled_name_is_spelled_as_the_server_spells_it() -> None:
    async with herd_of() as (_, herd):
        await herd.ensure_available("LLaMA3.2:3B")
        before = (await herd.now()).position

        look = await herd.refresh()

        (name,) = [name for name in look.models if name.lower() == "llama3.2:3b"]
        assert name == "llama3.2:3B"  # the server knew that spelling of the model
        assert (await told(herd, name))[0] == "PullStarted"
        assert await recorded(herd, after=before) == []


async def test_name_that_is_none_is_refused_before_anything_is_asked() -> None:
    async with herd_of() as (place, herd):
        asked = len(place.world.seen)
        for refused in (herd.load, herd.unload, herd.delete, herd.mark_used):
            with pytest.raises(InvalidNameError):
                await refused("../etc:x y")

        with pytest.raises(InvalidNameError):
            await pulled(herd, "../etc:x y")

        assert len(place.world.seen) == asked


async def test_older_server_is_asked_by_show_what_its_models_can_do() -> None:
    async with served(profile=sandbox.OLDER) as place, place.herd() as herd:
        status = await herd.get_status(NAME)

        assert (await herd.node_status()).server_version == "0.9.6"
        assert status.can("vision")
        assert status.capabilities["vision"].source is FactSource.SHOW
        assert status.context_trained == 8192


async def test_life_of_a_model_on_an_older_server_is_the_same() -> None:
    async with served("none", profile=sandbox.OLDER) as place, place.herd() as herd:
        await herd.ensure_available(BIG)
        status = await herd.load(BIG)
        assert status.context_in_effect is None
        await herd.unload(BIG)
        await pulled(herd, BIG)
        await herd.delete(BIG)

        types = await told(herd, BIG)

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


async def test_address_of_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served() as place:
        monkeypatch.setenv("OLLAMA_HOST", place.url)
        async with ModelManager.open(":memory:", clock=place.clock) as herd:
            assert (await herd.node_status()).url == place.url


async def test_nodes_of_one_log_are_kept_apart(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with served() as place:
        async with place.herd(log) as herd:
            assert len(await herd.all_statuses()) == 9
        async with ModelManager.open(
            log, ollama=place.url, node="other", clock=place.clock, refresh=False
        ) as other:
            assert await other.all_statuses() == []
            assert not (await other.node_status()).reached


async def test_node_whose_name_is_none_is_refused() -> None:
    async with served() as place:
        with pytest.raises(CallerError):
            async with ModelManager.open(":memory:", ollama=place.url, node="a/b"):
                pass


async def test_log_that_was_opened_twice_holds_together(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with served() as place:
        for _ in range(2):
            async with place.herd(log) as herd:
                await herd.load(NAME)
                await herd.unload(NAME)

        async with place.herd(log) as herd:
            assert (await herd.verify()).findings == ()
            assert (await told(herd, NAME)).count("ModelLoaded") == 2


async def test_pull_asked_for_while_a_cancel_ends_is_begun_anew() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry={"rate": 1e6})
        first = asyncio.create_task(pulled(herd, BIG))
        await place.clock.sleep(5)
        cancelling = asyncio.create_task(herd.cancel(BIG))
        again = asyncio.create_task(pulled(herd, BIG))
        await asyncio.wait([first, cancelling, again])

        assert isinstance(first.exception(), OperationEndedError)
        assert again.exception() is None
        assert (await herd.get_status(BIG)).present


async def test_load_asked_for_while_a_cancel_ends_is_begun_anew() -> None:
    async with herd_of() as (place, herd):
        place.did(runner_start_delay_s=30)
        first = asyncio.create_task(herd.load(NAME))
        await place.clock.sleep(5)
        cancelling = asyncio.create_task(herd.cancel(NAME))
        again = asyncio.create_task(herd.load(NAME))
        await asyncio.wait([first, cancelling, again])

        assert isinstance(first.exception(), OperationEndedError)
        assert again.result().state is ModelState.LOADED


async def test_not_found_says_how_to_fetch_it() -> None:
    async with herd_of() as (_, herd):
        with pytest.raises(ModelNotFoundError, match="herdbook pull nobody:1b"):
            await herd.load("nobody:1b")


async def test_failed_pull_keeps_its_message_for_who_looks_later() -> None:
    async with herd_of("none") as (place, herd):
        place.did(disk_bytes=1000)
        with pytest.raises(PullError) as failure:
            await herd.ensure_available(BIG)

        failed = (await herd.get_status(BIG)).last_failure

        assert failed is not None
        assert failed.message == str(failure.value)
        assert failed.at == place.clock.now()
