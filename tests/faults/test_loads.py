"""Loads and unloads under bad weather: what is raised, and what the log says of it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from faults.cli_view import Lived, said
from support.manager_fixture import Place, end_of

from herdbook import sandbox
from herdbook.cli.commands.act import unload
from herdbook.core import (
    BusyError,
    BusyServerError,
    CloudModelError,
    HerdbookError,
    InvalidConfigurationError,
    LoadFailedError,
    ManagerSettings,
    ModelManager,
    ModelState,
    NodeUnreachableError,
    UnloadResult,
)

NAME = "llava:7b"
OTHER = "llama3.1:8b"
EMBEDDING = "nomic-embed-text:latest"
LOAD: dict[str, Any] = {"path": "/api/generate", "times": 0}

Step = dict[str, Any]

FAULTS: dict[str, tuple[Step, str, str]] = {
    "no memory": (
        {"runner_dies_saying": "cudaMalloc failed: out of memory"},
        "out_of_memory",
        "the server has not enough memory",
    ),
    "dying runner": (
        {"runner_dies_saying": "nothing of note"},
        "process_died",
        "llama-server process has terminated: exit status 1",
    ),
    "slow start": (
        {"runner_start_delay_s": 600},
        "load_stalled",
        "its process did not start in time",
    ),
    "silence": (
        {"answer": LOAD | {"hang": True}},
        "load_failed",
        "the server did not answer within 3600 s",
    ),
    "no weights": (
        {"weights_deleted": NAME},
        "model_not_found",
        "is not on the server",
    ),
    "torn manifest": (
        {"manifest_damaged": NAME},
        "model_damaged",
        "is damaged on the disk of the server",
    ),
    "strange file": (
        {"runner_dies_saying": "error loading model: it may be incompatible"},
        "incompatible",
        "this version of Ollama does not support its file",
    ),
    "proxy": (
        {"answer": LOAD | {"status": 502, "body": "<html>bad gateway</html>"}},
        "bad_answer",
        "gave an answer that cannot be read",
    ),
    "refusal": (
        {"answer": LOAD | {"status": 403, "body": ""}},
        "refused",
        "is refused by the server",
    ),
    "full queue": (
        {"answer": LOAD | {"status": 503, "body": '{"error": "server busy"}'}},
        "server_busy",
        "the request queue of the server is full",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_failed_load_is_told_to_all_who_wait_and_to_who_asks_later(
    fault: str, lived: Lived
) -> None:
    step, kind, words = FAULTS[fault]
    errors: list[BaseException | None] = []

    async def story(place: Place, herd: ModelManager) -> None:
        place.did(**step)
        waiting = [asyncio.create_task(herd.load(NAME)) for _ in range(2)]
        errors.extend([await end_of(one) for one in waiting])
        assert place.asked("/api/generate") >= 1

    told = lived(story)

    assert [isinstance(error, HerdbookError) for error in errors] == [True] * 2
    assert str(errors[0]) == str(errors[1])
    failed = [one for one in told.sentences(NAME) if one.startswith("load failed: ")]
    assert len(failed) == 1
    assert words in failed[0]
    if fault == "torn manifest":  # the server does not list it any more
        assert told.last(NAME)[0] == "no longer on the server"
    else:
        assert told.shown(NAME)["state"] == ModelState.ERROR
        assert told.shown(NAME)["last_failure"]["kind"] == kind


def test_slow_load_is_waited_for(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        place.did(runner_start_delay_s=200)
        assert (await herd.load(NAME)).state is ModelState.LOADED

    assert lived(story).last(NAME)[0].startswith("loaded in 3 min: 4k context")


def test_load_that_everybody_left_is_aborted(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        place.did(runner_start_delay_s=30)
        loading = asyncio.create_task(herd.load(NAME))
        await place.clock.sleep(3)
        loading.cancel()
        await asyncio.wait([loading])
        await place.clock.sleep(60)
        assert (await place.somebody("GET", "/api/ps")).json() == {"models": []}

    assert lived(story).last(NAME) == ("load cancelled", "command")


def test_unload_during_a_load_waits_for_it(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        place.did(runner_start_delay_s=30)
        loading = asyncio.create_task(herd.load(NAME))
        await place.clock.sleep(3)
        assert await herd.unload(NAME) is UnloadResult.UNLOADED
        await loading

    told = lived(story)

    assert told.sentences(NAME)[-2].startswith("loaded in 30 s")
    assert told.last(NAME) == ("unloaded: on request", "command")


def test_unload_during_the_load_of_another_herdbook_is_refused(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        place.did(runner_start_delay_s=30)
        async with place.herd(os.environ["HERDBOOK_DB"], actor="api:other") as other:
            loading = asyncio.create_task(other.load(NAME))
            await place.clock.sleep(3)
            with pytest.raises(BusyError, match="load under way for api:other"):
                await herd.unload(NAME)
            await loading

    assert lived(story).last(NAME)[0].startswith("loaded in 30 s")


def test_unload_of_a_busy_model_is_deferred_and_it_stays_loaded(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(NAME)
        options = {"num_predict": 2000}
        talk = place.loads(NAME, prompt="hi", stream=False, options=options)
        talking = asyncio.create_task(talk)
        await place.clock.sleep(1)
        assert await said(herd, unload, NAME) == [
            f"{NAME} is still in use; the server unloads it when that ends"
        ]
        assert (await herd.get_status(NAME)).state is ModelState.LOADED
        await talking

    assert lived(story).last(NAME)[0].startswith("loaded in ")


async def full_queue(place: Place, *, for_s: float) -> list[asyncio.Task[None]]:
    """Have others load: one is at it for so long, one waits, and no more may."""
    place.did(runner_start_delay_s=for_s)
    loads = [asyncio.create_task(place.loads(name)) for name in (OTHER, "qwen3:0.6b")]
    await place.clock.sleep(1)
    return loads


def test_load_is_asked_for_again_until_the_queue_has_room(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        theirs = await full_queue(place, for_s=5)
        assert (await herd.load(NAME)).state is ModelState.LOADED
        assert place.asked("/api/generate") > 2
        await asyncio.gather(*theirs)

    told = lived(story, server=sandbox.Settings(max_queue=1))

    assert told.sentences(NAME)[-2:][0] == "load started"
    assert told.last(NAME)[0].startswith("loaded in ")


def test_load_gives_up_on_a_queue_that_stays_full(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        theirs = await full_queue(place, for_s=200)
        with pytest.raises(BusyServerError):
            await herd.load(NAME)
        assert place.time.now() == pytest.approx(1 + 0.5 + 1 + 2 + 4 + 8, abs=0.5)
        await asyncio.gather(*theirs)

    told = lived(story, server=sandbox.Settings(max_queue=1))

    assert "the request queue of the server is full" in told.last(NAME)[0]


def test_model_that_does_not_fit_into_memory_says_so(lived: Lived) -> None:
    async def story(_: Place, herd: ModelManager) -> None:
        with pytest.raises(LoadFailedError):
            await herd.load(OTHER)

    told = lived(story, server=sandbox.Settings(memory_bytes=100_000_000))

    assert "Unload other models, or set a smaller num_ctx" in told.last(OTHER)[0]


def test_embedding_model_is_loaded_by_its_own_endpoint(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(EMBEDDING)
        assert (place.asked("/api/embed"), place.asked("/api/generate")) == (1, 0)
        await herd.unload(EMBEDDING)

    told = lived(story)

    assert told.sentences(EMBEDDING)[-2].startswith("loaded in ")
    assert told.last(EMBEDDING) == ("unloaded: on request", "command")


def test_cloud_model_is_found_and_never_loaded(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        stub = {"from": "gpt-oss:120b", "remote_host": "https://ollama.com"}
        await place.somebody("POST", "/api/create", model="far:cloud", **stub)
        await herd.refresh()
        with pytest.raises(CloudModelError):
            await herd.load("far:cloud")

    told = lived(story)

    found = told.sentences("far:cloud")[0]
    assert found.startswith("found: a cloud model of https://ollama.com")
    assert told.shown("far:cloud")["state"] == "available"


@pytest.mark.parametrize(
    ("options", "keep_alive"),
    [({"num_ctx": "many"}, None), ({"top_k": [1]}, None), ({}, "5"), ({}, 1e30)],
)
def test_option_of_a_wrong_type_is_refused_before_anything_is_asked(
    options: dict[str, Any], keep_alive: Any, lived: Lived
) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        with pytest.raises(InvalidConfigurationError):
            await herd.load(NAME, options=options, keep_alive=keep_alive)
        assert place.asked("/api/generate") == 0

    told = lived(story)

    assert told.shown(NAME)["state"] == "available"
    assert told.sentences(NAME)[-1].startswith("can: ")


def test_load_that_the_server_dies_in_is_interrupted_and_can_be_asked_again(
    lived: Lived,
) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        place.did(runner_start_delay_s=30)
        loading = asyncio.create_task(herd.load(NAME))
        await place.clock.sleep(3)
        place.did(server="killed")
        assert isinstance(await end_of(loading), NodeUnreachableError)
        assert (await herd.get_status(NAME)).stale_since is not None
        place.did(server="started", runner_start_delay_s=0)
        await herd.refresh()
        await herd.load(NAME)

    told = lived(story)

    assert told.sentences(NAME)[-3:-1] == ["load interrupted", "load started"]
    assert told.shown(NAME)["state"] == "loaded"


def test_reload_that_fails_says_so_and_that_the_model_is_not_loaded_any_more(
    lived: Lived,
) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(NAME)
        place.did(runner_dies_saying="out of memory")
        with pytest.raises(LoadFailedError):
            await herd.load(NAME, options={"num_ctx": 1024})

    told = lived(story)

    unloaded, started, failed = told.sentences(NAME)[-3:]
    assert (unloaded, started) == ("unloaded: on request", "load started: num_ctx 1024")
    assert "the server has not enough memory" in failed
    assert told.shown(NAME)["state"] == "error"


def test_reload_that_is_refused_leaves_the_model_loaded(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(NAME)
        place.did(answer=LOAD | {"status": 403, "body": ""})
        with pytest.raises(HerdbookError):
            await herd.load(NAME, options={"num_ctx": 1024})

    told = lived(story, settings=ManagerSettings(busy_retries=0))

    assert told.shown(NAME)["state"] == "loaded"
    assert told.last(NAME)[0].startswith("loaded in ")
