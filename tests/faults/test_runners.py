"""What happens to runners: through server, reconciler, log, view and command line.

Each test ends with what ``herdbook history`` shows: a sentence and its cause.
"""

from __future__ import annotations

import asyncio
from typing import Any

from faults.cli_view import RunScenario
from support.manager_fixture import SandboxServer

from herdbook import sandbox
from herdbook.core import ManagerSettings, ModelManager, UnloadResult

NAME = "llava:7b"
OTHER = "llama3.1:8b"
PLAIN = "plain:latest"
ALIAS = "llama3.2:1b"
ONE_PLACE = sandbox.Settings(max_loaded=1)


async def names_in_memory(server: SandboxServer) -> list[str]:
    """Return the names that the server's runners go by."""
    shown: Any = (await server.request("GET", "/api/ps")).json()
    return [runner["name"] for runner in shown["models"]]


async def says_a_lot(server: SandboxServer, name: str) -> None:
    """Let a model generate an answer for 22 s."""
    await server.load(name, prompt="hi", stream=False, options={"num_predict": 2000})


async def replaced(server: SandboxServer, name: str, by: str) -> None:
    """Have somebody pull a name that now stands for another model."""
    server.apply(registry={"alias": {f"library/{name}": f"library/{by}"}})
    await server.pull(name)


def test_names_of_the_same_weights_are_loaded_and_unloaded_together(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await server.load(PLAIN)
        await manager.refresh()
        assert await names_in_memory(server) == [PLAIN]
        await server.unload(ALIAS)
        await manager.refresh()

    result = run_scenario(scenario)

    assert result.last(PLAIN) == ("unloaded: on request", "observed")
    assert result.last(ALIAS) == ("unloaded: on request", "shared")
    assert result.sentences(ALIAS)[-2].startswith("loaded: 4k context")
    assert "unloaded: on request same weights, observed" in result.screen(ALIAS)


def test_load_with_other_parameters_replaces_the_runner_of_all_names(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        twin: dict[str, Any] = {"from": PLAIN, "parameters": {"num_ctx": 1024}}
        await server.request("POST", "/api/create", model="twin", **twin)
        await manager.load(PLAIN)
        await server.load("twin")
        await manager.refresh()

    result = run_scenario(scenario)

    assert result.last(PLAIN)[0].startswith("reloaded: 1k context")
    assert result.shown(PLAIN)["context"]["in_effect"] == 1024
    assert result.shown("twin")["state"] == "loaded"


def test_model_stays_loaded_if_an_update_keeps_its_weights(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load("update-me")
        await replaced(server, "update-me:latest", by="update-me:v2")
        await manager.refresh()

    result = run_scenario(scenario)
    shown = result.shown("update-me")

    assert shown["state"] == "loaded"
    assert shown["runner"]["digest"] != shown["digest"]
    assert any(said.startswith("updated: ") for said in result.sentences("update-me"))
    assert not any("unloaded" in said for said in result.sentences("update-me"))


def test_update_to_other_weights_unloads_the_model(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(PLAIN)
        await replaced(server, PLAIN, by=OTHER)
        await manager.refresh()

    result = run_scenario(scenario)

    sentence = "unloaded: the model was replaced"
    assert result.last(PLAIN) == (sentence, "observed")
    assert result.shown(PLAIN)["state"] == "available"
    assert result.shown(ALIAS)["state"] == "loaded"


def test_runner_with_the_digest_of_the_model_counts_if_two_have_its_name(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(PLAIN)
        await replaced(server, PLAIN, by=OTHER)
        await server.load(PLAIN)
        assert await names_in_memory(server) == [PLAIN, PLAIN]
        await manager.refresh()

    result = run_scenario(scenario)
    plain, alias = result.shown(PLAIN), result.shown(ALIAS)

    assert plain["runner"]["digest"] == plain["digest"]
    assert alias["runner"]["name"] == PLAIN
    assert alias["runner"]["digest"] != plain["digest"]


def test_runner_of_a_deleted_model_belongs_to_no_model(
    run_scenario: RunScenario,
) -> None:
    found = []

    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(NAME)
        await server.delete(NAME)
        await manager.refresh()
        assert await names_in_memory(server) == [NAME]
        found.extend([one.what for one in await manager.doctor()])

    result = run_scenario(scenario)

    assert result.last(NAME) == ("no longer on the server", "observed")
    assert result.shown(NAME)["runner"] is None
    assert any(f"in memory for {NAME}, which was deleted" in what for what in found)


def test_model_that_is_pulled_again_while_its_runner_exists_is_loaded(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(PLAIN)
        await server.delete(PLAIN)
        await manager.refresh()
        await server.pull(PLAIN)
        await manager.refresh()

    result = run_scenario(scenario)

    assert result.sentences(PLAIN)[-4] == "no longer on the server"
    assert result.sentences(PLAIN)[-1].startswith("loaded: 4k context")


def test_dead_runner_is_listed_until_the_next_request(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(NAME)
        server.apply(runner="killed")
        await manager.refresh()
        assert await names_in_memory(server) == [NAME]
        await server.load(NAME)
        await manager.refresh()

    result = run_scenario(scenario)

    assert result.sentences(NAME)[-2].startswith("loaded in ")
    assert result.last(NAME) == ("used by another program", "observed")
    assert result.shown(NAME)["state"] == "loaded"


def test_eviction_names_the_model_that_needed_the_memory(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(NAME)
        await server.load(OTHER)
        await manager.refresh()

    result = run_scenario(scenario, sandbox_settings=ONE_PLACE)

    assert result.last(NAME) == (
        f"unloaded: evicted to make room for {OTHER}",
        "eviction",
    )
    sentence = f"evicted to make room for {OTHER} observed"
    assert sentence in result.screen(NAME)


def test_model_without_expiry_can_be_evicted(run_scenario: RunScenario) -> None:
    async def scenario(_: SandboxServer, manager: ModelManager) -> None:
        await manager.load(NAME, keep_alive=-1)
        await manager.load(OTHER)

    result = run_scenario(scenario, sandbox_settings=ONE_PLACE)

    assert result.sentences(NAME)[-2].endswith("no expiry")
    assert result.last(NAME)[0] == f"unloaded: evicted to make room for {OTHER}"


def test_eviction_names_a_model_that_was_reloaded_with_more_memory(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(OTHER)
        await manager.load(NAME)
        await server.load(OTHER, options={"num_ctx": 8192})
        await manager.refresh()

    result = run_scenario(
        scenario, sandbox_settings=sandbox.Settings(memory_bytes=473_000_000)
    )

    assert result.last(NAME)[0] == f"unloaded: evicted to make room for {OTHER}"


def test_eviction_names_a_load_that_is_still_running(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(NAME)
        server.apply(runner_start_delay_s=30)
        loading = asyncio.create_task(manager.load(OTHER))
        await server.clock.sleep(5)
        assert await names_in_memory(server) == []
        await manager.refresh()
        await loading

    result = run_scenario(scenario, sandbox_settings=ONE_PLACE)

    assert result.last(NAME) == (
        f"unloaded: evicted to make room for {OTHER}",
        "eviction",
    )


async def refresh_during_load(
    server: SandboxServer, manager: ModelManager, name: str, **settings: object
) -> None:
    """Refresh while another program loads a model and no runner is in memory."""
    server.apply(runner_start_delay_s=1)
    loading = asyncio.create_task(server.load(name, **settings))
    await server.clock.sleep(0.5)
    assert await names_in_memory(server) == []
    await manager.refresh()
    await loading


def test_eviction_names_a_load_of_another_program_that_ends_soon(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(NAME)
        await refresh_during_load(server, manager, OTHER)

    result = run_scenario(scenario, sandbox_settings=ONE_PLACE)

    assert result.last(NAME) == (
        f"unloaded: evicted to make room for {OTHER}",
        "eviction",
    )


def test_reload_by_another_program_that_ends_soon_is_not_an_unload(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(NAME)
        await refresh_during_load(server, manager, NAME, options={"num_ctx": 1024})

    result = run_scenario(scenario)

    assert not any("unloaded" in said for said in result.sentences(NAME))
    assert any(said.startswith("reloaded: 1k") for said in result.sentences(NAME))


def test_pinned_model_waits_for_the_load_that_evicted_it(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.configure(NAME, {"pinned": True})
        await manager.load(NAME)
        server.apply(runner_start_delay_s=30)
        loading = asyncio.create_task(manager.load(OTHER, keep_alive=60))
        await loading
        server.apply(runner_start_delay_s=0)
        await server.clock.sleep(30)
        assert await names_in_memory(server) == [OTHER]
        await server.clock.sleep(60)

    settings = ManagerSettings(reconcile_every_s=10)
    result = run_scenario(scenario, sandbox_settings=ONE_PLACE, settings=settings)

    assert result.shown(NAME)["state"] == "loaded"
    assert result.sentences(NAME).count("load started") == 2


def test_runner_expires_when_keep_alive_ends(run_scenario: RunScenario) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(NAME, keep_alive="10m")
        server.time.advance(601)
        await manager.refresh()

    result = run_scenario(scenario)

    assert result.last(NAME) == ("unloaded: keep-alive expired", "expiry")


def test_restart_of_the_server_unloads_all_models(run_scenario: RunScenario) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(NAME)
        await manager.load(OTHER)
        server.apply(server="killed")
        server.apply(server="started")
        await manager.refresh()

    result = run_scenario(scenario)

    for name in (NAME, OTHER):
        assert result.last(name) == ("unloaded: the server restarted", "restart")


def test_deferred_unload_is_recorded_as_requested(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(NAME)
        talking = asyncio.create_task(says_a_lot(server, NAME))
        await server.clock.sleep(1)
        assert await manager.unload(NAME) is UnloadResult.DEFERRED
        await talking
        await manager.refresh()

    result = run_scenario(scenario)

    assert result.last(NAME) == ("unloaded: on request", "observed")


def test_reload_with_other_options_is_not_recorded_as_an_unload(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(PLAIN)
        server.apply(runner_start_delay_s=30)
        loading = asyncio.create_task(manager.load(PLAIN, options={"num_ctx": 1024}))
        await server.clock.sleep(5)
        assert await names_in_memory(server) == []
        await manager.refresh()
        await loading

    result = run_scenario(scenario)

    for name in (PLAIN, ALIAS):
        assert not any("unloaded" in said for said in result.sentences(name))
        took = " in 30 s" if name == PLAIN else ""
        assert result.last(name)[0].startswith(f"reloaded{took}: 1k context")
