"""Loads and unloads with faults: what is raised, and what is recorded."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from faults.cli_view import RunScenario, output_lines
from support.manager_fixture import SandboxServer, error_of

from herdbook import sandbox
from herdbook.cli.commands.models.load import unload
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
        "the server does not have enough memory",
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
        "model_damaged",
        "is damaged on the server's disk",
    ),
    "torn manifest": (
        {"manifest_damaged": NAME},
        "model_damaged",
        "is damaged on the server's disk",
    ),
    "strange file": (
        {"runner_dies_saying": "error loading model: it may be incompatible"},
        "incompatible",
        "this version of Ollama does not support its file",
    ),
    "proxy": (
        {"answer": LOAD | {"status": 502, "body": "<html>bad gateway</html>"}},
        "bad_answer",
        "is a proxy that cannot reach its server: HTTP 502",
    ),
    "refusal": (
        {"answer": LOAD | {"status": 403, "body": ""}},
        "refused",
        "was refused by the server",
    ),
    "full queue": (
        {"answer": LOAD | {"status": 503, "body": '{"error": "server busy"}'}},
        "server_busy",
        "the server's request queue is full",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_failed_load_is_reported_to_all_callers_and_recorded(
    fault: str, run_scenario: RunScenario
) -> None:
    step, kind, words = FAULTS[fault]
    errors: list[BaseException | None] = []

    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(**step)
        waiting = [asyncio.create_task(manager.load(NAME)) for _ in range(2)]
        errors.extend([await error_of(one) for one in waiting])
        assert server.request_count("/api/generate") >= 1

    result = run_scenario(scenario)

    assert [isinstance(error, HerdbookError) for error in errors] == [True] * 2
    assert str(errors[0]) == str(errors[1])
    failed = [one for one in result.sentences(NAME) if one.startswith("load failed: ")]
    assert len(failed) == 1
    assert words in failed[0]
    if fault == "torn manifest":  # the server does not list it any more
        assert result.last(NAME)[0] == "no longer on the server"
    else:
        assert result.shown(NAME)["state"] == ModelState.ERROR
        assert result.shown(NAME)["last_failure"]["kind"] == kind


def test_caller_waits_for_a_slow_load(run_scenario: RunScenario) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(runner_start_delay_s=200)
        assert (await manager.load(NAME)).state is ModelState.LOADED

    assert (
        run_scenario(scenario).last(NAME)[0].startswith("loaded in 3 min: 4k context")
    )


def test_load_is_aborted_when_its_last_caller_leaves(run_scenario: RunScenario) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(runner_start_delay_s=30)
        loading = asyncio.create_task(manager.load(NAME))
        await server.clock.sleep(3)
        loading.cancel()
        await asyncio.wait([loading])
        await server.clock.sleep(60)
        assert (await server.request("GET", "/api/ps")).json() == {"models": []}

    assert run_scenario(scenario).last(NAME) == ("load cancelled", "command")


def test_unload_during_a_load_waits_for_it(run_scenario: RunScenario) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(runner_start_delay_s=30)
        loading = asyncio.create_task(manager.load(NAME))
        await server.clock.sleep(3)
        assert await manager.unload(NAME) is UnloadResult.UNLOADED
        await loading

    result = run_scenario(scenario)

    assert result.sentences(NAME)[-2].startswith("loaded in 30 s")
    assert result.last(NAME) == ("unloaded: on request", "command")


def test_unload_during_the_load_of_another_instance_is_refused(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(runner_start_delay_s=30)
        async with server.open_manager(
            os.environ["HERDBOOK_DB"], actor="api:other"
        ) as other:
            loading = asyncio.create_task(other.load(NAME))
            await server.clock.sleep(3)
            with pytest.raises(BusyError, match="running load, started by api:other"):
                await manager.unload(NAME)
            await loading

    assert run_scenario(scenario).last(NAME)[0].startswith("loaded in 30 s")


def test_unload_of_a_model_in_use_is_deferred(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(NAME)
        options = {"num_predict": 2000}
        talk = server.load(NAME, prompt="hi", stream=False, options=options)
        talking = asyncio.create_task(talk)
        await server.clock.sleep(1)
        assert await output_lines(server, unload, NAME) == [
            f"{NAME} is in use; the server unloads it after the current request"
        ]
        assert (await manager.get_status(NAME)).state is ModelState.LOADED
        await talking

    assert run_scenario(scenario).last(NAME)[0].startswith("loaded in ")


async def full_queue(
    server: SandboxServer, *, for_s: float
) -> list[asyncio.Task[None]]:
    """Have others load: one is at it for so long, one waits, and no more may."""
    server.apply(runner_start_delay_s=for_s)
    loads = [asyncio.create_task(server.load(name)) for name in (OTHER, "qwen3:0.6b")]
    await server.clock.sleep(1)
    return loads


def test_load_is_retried_until_the_queue_has_room(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        theirs = await full_queue(server, for_s=5)
        assert (await manager.load(NAME)).state is ModelState.LOADED
        assert server.request_count("/api/generate") > 2
        await asyncio.gather(*theirs)

    result = run_scenario(scenario, sandbox_settings=sandbox.Settings(max_queue=1))

    assert result.sentences(NAME)[-2:][0] == "load started"
    assert result.last(NAME)[0].startswith("loaded in ")


def test_load_fails_if_the_queue_stays_full(run_scenario: RunScenario) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        theirs = await full_queue(server, for_s=200)
        with pytest.raises(BusyServerError):
            await manager.load(NAME)
        assert server.time.now() == pytest.approx(1 + 0.5 + 1 + 2 + 4 + 8, abs=0.5)
        await asyncio.gather(*theirs)

    result = run_scenario(scenario, sandbox_settings=sandbox.Settings(max_queue=1))

    assert "the server's request queue is full" in result.last(NAME)[0]


def test_load_fails_if_the_model_does_not_fit_into_memory(
    run_scenario: RunScenario,
) -> None:
    async def scenario(_: SandboxServer, manager: ModelManager) -> None:
        with pytest.raises(LoadFailedError):
            await manager.load(OTHER)

    result = run_scenario(
        scenario, sandbox_settings=sandbox.Settings(memory_bytes=100_000_000)
    )

    assert "Unload other models, or set a smaller num_ctx" in result.last(OTHER)[0]


def test_embedding_model_is_loaded_with_the_embedding_endpoint(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(EMBEDDING)
        assert (
            server.request_count("/api/embed"),
            server.request_count("/api/generate"),
        ) == (1, 0)
        await manager.unload(EMBEDDING)

    result = run_scenario(scenario)

    assert result.sentences(EMBEDDING)[-2].startswith("loaded in ")
    assert result.last(EMBEDDING) == ("unloaded: on request", "command")


def test_cloud_model_is_found_and_never_loaded(run_scenario: RunScenario) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        stub = {"from": "gpt-oss:120b", "remote_host": "https://ollama.com"}
        await server.request("POST", "/api/create", model="far:cloud", **stub)
        await manager.refresh()
        with pytest.raises(CloudModelError):
            await manager.load("far:cloud")

    result = run_scenario(scenario)

    found = result.sentences("far:cloud")[0]
    assert found.startswith("found: cloud model of https://ollama.com")
    assert result.shown("far:cloud")["state"] == "available"


@pytest.mark.parametrize(
    ("options", "keep_alive"),
    [({"num_ctx": "many"}, None), ({"top_k": [1]}, None), ({}, "5"), ({}, 1e30)],
)
def test_option_of_a_wrong_type_is_refused_before_a_request(
    options: dict[str, Any], keep_alive: Any, run_scenario: RunScenario
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        with pytest.raises(InvalidConfigurationError):
            await manager.load(NAME, options=options, keep_alive=keep_alive)
        assert server.request_count("/api/generate") == 0

    result = run_scenario(scenario)

    assert result.shown(NAME)["state"] == "available"
    assert result.sentences(NAME)[-1].startswith("capabilities: ")


def test_load_is_interrupted_if_the_server_dies_and_can_be_repeated(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(runner_start_delay_s=30)
        loading = asyncio.create_task(manager.load(NAME))
        await server.clock.sleep(3)
        server.apply(server="killed")
        assert isinstance(await error_of(loading), NodeUnreachableError)
        assert (await manager.get_status(NAME)).stale_since is not None
        server.apply(server="started", runner_start_delay_s=0)
        await manager.refresh()
        await manager.load(NAME)

    result = run_scenario(scenario)

    assert result.sentences(NAME)[-3:-1] == ["load interrupted", "load started"]
    assert result.shown(NAME)["state"] == "loaded"


def test_failed_reload_is_recorded_with_the_unload(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(NAME)
        server.apply(runner_dies_saying="out of memory")
        with pytest.raises(LoadFailedError):
            await manager.load(NAME, options={"num_ctx": 1024})

    result = run_scenario(scenario)

    unloaded, started, failed = result.sentences(NAME)[-3:]
    assert (unloaded, started) == ("unloaded: on request", "load started: num_ctx 1024")
    assert "the server does not have enough memory" in failed
    assert result.shown(NAME)["state"] == "error"


def test_reload_that_is_refused_leaves_the_model_loaded(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load(NAME)
        server.apply(answer=LOAD | {"status": 403, "body": ""})
        with pytest.raises(HerdbookError):
            await manager.load(NAME, options={"num_ctx": 1024})

    result = run_scenario(scenario, settings=ManagerSettings(busy_retries=0))

    assert result.shown(NAME)["state"] == "loaded"
    started, failed = result.sentences(NAME)[-2:]
    assert started == "reload started: num_ctx 1024"
    assert failed.startswith("reload failed: ")
