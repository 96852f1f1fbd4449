"""What happens to runners: through server, reconciler, log, view and command line.

Each story ends with what ``herdbook history`` tells a person: a sentence, its cause.
"""

from __future__ import annotations

import asyncio
from typing import Any

from faults.cli_view import Lived
from support.manager_fixture import Place

from herdbook import sandbox
from herdbook.core import ManagerSettings, ModelManager, UnloadResult

NAME = "llava:7b"
OTHER = "llama3.1:8b"
PLAIN = "plain:latest"
ALIAS = "llama3.2:1b"
ONE_PLACE = sandbox.Settings(max_loaded=1)


async def names_in_memory(place: Place) -> list[str]:
    """Return the names that the server's runners go by."""
    shown: Any = (await place.somebody("GET", "/api/ps")).json()
    return [runner["name"] for runner in shown["models"]]


async def says_a_lot(place: Place, name: str) -> None:
    """Have a model talk for 22 s."""
    await place.loads(name, prompt="hi", stream=False, options={"num_predict": 2000})


async def replaced(place: Place, name: str, by: str) -> None:
    """Have somebody pull a name that now stands for another model."""
    place.did(registry={"alias": {f"library/{name}": f"library/{by}"}})
    await place.pulls(name)


def test_alias_is_loaded_and_unloaded_with_the_name_that_was_asked_for(
    lived: Lived,
) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await place.loads(PLAIN)
        await herd.refresh()
        assert await names_in_memory(place) == [PLAIN]
        await place.unloads(ALIAS)
        await herd.refresh()

    told = lived(story)

    assert told.last(PLAIN) == ("unloaded: on request", "observed")
    assert told.last(ALIAS) == ("unloaded: on request", "shared")
    assert told.sentences(ALIAS)[-2].startswith("loaded: 4k context")
    assert "unloaded: on request same weights, seen by" in told.screen(ALIAS)


def test_same_weights_with_other_parameters_change_the_runner_of_both(
    lived: Lived,
) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        twin: dict[str, Any] = {"from": PLAIN, "parameters": {"num_ctx": 1024}}
        await place.somebody("POST", "/api/create", model="twin", **twin)
        await herd.load(PLAIN)
        await place.loads("twin")
        await herd.refresh()

    told = lived(story)

    assert told.last(PLAIN)[0].startswith("its runner changed: twin:latest, 1k context")
    assert told.shown(PLAIN)["context"]["in_effect"] == 1024
    assert told.shown("twin")["state"] == "loaded"


def test_runner_of_an_older_digest_still_holds_the_model_of_its_weights(
    lived: Lived,
) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load("update-me")
        await replaced(place, "update-me:latest", by="update-me:v2")
        await herd.refresh()

    told = lived(story)
    shown = told.shown("update-me")

    assert shown["state"] == "loaded"
    assert shown["runner"]["digest"] != shown["digest"]
    assert any(said.startswith("updated: ") for said in told.sentences("update-me"))
    assert not any("unloaded" in said for said in told.sentences("update-me"))


def test_runner_of_an_older_digest_is_no_more_the_models_with_other_weights(
    lived: Lived,
) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(PLAIN)
        await replaced(place, PLAIN, by=OTHER)
        await herd.refresh()

    told = lived(story)

    sentence = "unloaded: the model was replaced by another of its name"
    assert told.last(PLAIN) == (sentence, "observed")
    assert told.shown(PLAIN)["state"] == "available"
    assert told.shown(ALIAS)["state"] == "loaded"


def test_name_that_two_runners_bear_is_loaded_in_the_one_of_its_digest(
    lived: Lived,
) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(PLAIN)
        await replaced(place, PLAIN, by=OTHER)
        await place.loads(PLAIN)
        assert await names_in_memory(place) == [PLAIN, PLAIN]
        await herd.refresh()

    told = lived(story)
    plain, alias = told.shown(PLAIN), told.shown(ALIAS)

    assert plain["runner"]["digest"] == plain["digest"]
    assert alias["runner"]["name"] == PLAIN
    assert alias["runner"]["digest"] != plain["digest"]


def test_runner_of_a_deleted_model_is_memory_of_nobody(lived: Lived) -> None:
    found = []

    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(NAME)
        await place.deletes(NAME)
        await herd.refresh()
        assert await names_in_memory(place) == [NAME]
        found.extend([one.what for one in await herd.doctor()])

    told = lived(story)

    assert told.last(NAME) == ("no longer on the server", "observed")
    assert told.shown(NAME)["runner"] is None
    assert any(f"in memory for {NAME}, which is not there" in what for what in found)


def test_model_that_comes_back_while_its_runner_is_there_is_loaded(
    lived: Lived,
) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(PLAIN)
        await place.deletes(PLAIN)
        await herd.refresh()
        await place.pulls(PLAIN)
        await herd.refresh()

    told = lived(story)

    assert told.sentences(PLAIN)[-4] == "no longer on the server"
    assert told.sentences(PLAIN)[-1].startswith("loaded: 4k context")


def test_dead_runner_is_in_memory_for_the_server_until_it_is_asked(
    lived: Lived,
) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(NAME)
        place.did(runner="killed")
        await herd.refresh()
        assert await names_in_memory(place) == [NAME]
        await place.loads(NAME)
        await herd.refresh()

    told = lived(story)

    assert told.sentences(NAME)[-1].startswith("loaded in ")
    assert told.shown(NAME)["state"] == "loaded"


def test_eviction_names_who_needed_the_room(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(NAME)
        await place.loads(OTHER)
        await herd.refresh()

    told = lived(story, server=ONE_PLACE)

    assert told.last(NAME) == (
        f"unloaded: evicted to make room for {OTHER}",
        "eviction",
    )
    assert f"evicted to make room for {OTHER} evicted, seen by" in told.screen(NAME)


def test_what_was_kept_for_ever_is_evicted_as_well(lived: Lived) -> None:
    async def story(_: Place, herd: ModelManager) -> None:
        await herd.load(NAME, keep_alive=-1)
        await herd.load(OTHER)

    told = lived(story, server=ONE_PLACE)

    assert told.sentences(NAME)[-2].endswith("kept for ever")
    assert told.last(NAME)[0] == f"unloaded: evicted to make room for {OTHER}"


def test_runner_that_became_bigger_is_who_needed_the_room(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(OTHER)
        await herd.load(NAME)
        await place.loads(OTHER, options={"num_ctx": 8192})
        await herd.refresh()

    told = lived(story, server=sandbox.Settings(memory_bytes=473_000_000))

    assert told.last(NAME)[0] == f"unloaded: evicted to make room for {OTHER}"


def test_load_under_way_is_who_needed_the_room_it_has_not_taken_yet(
    lived: Lived,
) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(NAME)
        place.did(runner_start_delay_s=30)
        loading = asyncio.create_task(herd.load(OTHER))
        await place.clock.sleep(5)
        assert await names_in_memory(place) == []
        await herd.refresh()
        await loading

    told = lived(story, server=ONE_PLACE)

    assert told.last(NAME) == (
        f"unloaded: evicted to make room for {OTHER}",
        "eviction",
    )


def test_pinned_model_waits_for_the_load_that_evicted_it(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.configure(NAME, {"pinned": True})
        await herd.load(NAME)
        place.did(runner_start_delay_s=30)
        loading = asyncio.create_task(herd.load(OTHER, keep_alive=60))
        await loading
        place.did(runner_start_delay_s=0)
        await place.clock.sleep(30)
        assert await names_in_memory(place) == [OTHER]
        await place.clock.sleep(60)

    settings = ManagerSettings(reconcile_every_s=10)
    told = lived(story, server=ONE_PLACE, settings=settings)

    assert told.shown(NAME)["state"] == "loaded"
    assert told.sentences(NAME).count("load started") == 2


def test_runner_whose_time_is_over_has_expired(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(NAME, keep_alive="10m")
        place.time.advance(601)
        await herd.refresh()

    told = lived(story)

    assert told.last(NAME) == ("unloaded: its keep-alive was over", "expiry")


def test_restart_of_the_server_empties_its_memory(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(NAME)
        await herd.load(OTHER)
        place.did(server="killed")
        place.did(server="started")
        await herd.refresh()

    told = lived(story)

    for name in (NAME, OTHER):
        assert told.last(name) == ("unloaded: the server was restarted", "restart")


def test_unload_that_was_deferred_is_told_as_our_request(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(NAME)
        talking = asyncio.create_task(says_a_lot(place, NAME))
        await place.clock.sleep(1)
        assert await herd.unload(NAME) is UnloadResult.DEFERRED
        await talking
        await herd.refresh()

    told = lived(story)

    assert told.last(NAME) == ("unloaded: on request", "observed")


def test_reload_with_other_options_is_no_unload(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        await herd.load(PLAIN)
        place.did(runner_start_delay_s=30)
        loading = asyncio.create_task(herd.load(PLAIN, options={"num_ctx": 1024}))
        await place.clock.sleep(5)
        assert await names_in_memory(place) == []
        await herd.refresh()
        await loading

    told = lived(story)

    for name in (PLAIN, ALIAS):
        assert not any("unloaded" in said for said in told.sentences(name))
        assert told.last(name)[0].startswith(f"its runner changed: {PLAIN}, 1k context")
