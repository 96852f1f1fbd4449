"""Pulls with faults: what the callers get, and what is recorded."""

from __future__ import annotations

import asyncio
import json
import os
import re
from typing import Any

import pytest
from faults.cli_view import RunScenario, ScenarioResult
from support.manager_fixture import SandboxServer, error_of, pull_to_end, start_pull

from herdbook.core import (
    ManagerSettings,
    ModelManager,
    ModelState,
    OllamaError,
    PullError,
    StalledError,
)

BIG = "llama3.2:1b"
SLOW = {"rate": 1e6}
PULL: dict[str, Any] = {"path": "/api/pull", "status": 200}

Step = dict[str, Any]

REFUSALS: dict[str, tuple[Step, str, str]] = {
    "401": ({"manifest_status": 401}, "authentication", "denies access to this server"),
    "403": ({"manifest_status": 403}, "authentication", "denies access to this server"),
    "404": ({"manifest_status": 404}, "not_in_registry", "does not have it"),
    "412": ({"manifest_status": 412}, "server_too_old", "a newer version of Ollama"),
    "429": ({"manifest_status": 429}, "rate_limit", "is limiting requests"),
    "500": ({"manifest_status": 500}, "registry_failed", "the registry failed ("),
    "502": ({"manifest_status": 502}, "registry_failed", "the registry failed ("),
    "503": ({"manifest_status": 503}, "registry_failed", "the registry failed ("),
    "no network": ({"unreachable": "i/o timeout"}, "registry_unreachable", "timeout"),
    "blob 500": ({"blob_status": 500}, "stalled", "no data arrived for 20 s"),
    "resets": ({"reset_after": 30_000}, "stalled", "no data arrived for 20 s"),
    "silence": ({"stall_after": 0}, "stalled", "no data arrived for 20 s"),
    "wrong bytes": ({"corrupt": True}, "digest_mismatch", "does not match its digest"),
}
FAULTS: dict[str, tuple[Step, str, str]] = {
    **{name: ({"registry": r[0]}, r[1], r[2]) for name, r in REFUSALS.items()},
    "full disk": ({"disk_bytes": 500_000_000}, "disk_full", "is full"),
    "dead server": ({"server": "killed"}, "node_unreachable", "cannot be reached"),
    "cut": (
        {"answer": PULL | {"after_lines": 1, "cut": True}},
        "pull_cut",
        "the connection to the server broke",
    ),
    "strange words": (
        {"answer": PULL | {"body": '{"error": "the moon is full"}\n'}},
        "pull_refused",
        "the moon is full",
    ),
    "nonsense": (
        {"answer": PULL | {"body": "<html>\n"}},
        "bad_answer",
        "an answer that cannot be read",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_failed_pull_is_reported_to_all_callers_and_recorded(
    fault: str, run_scenario: RunScenario
) -> None:
    step, kind, words = FAULTS[fault]
    errors: list[BaseException | None] = []

    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(**step)
        waiting = [asyncio.create_task(pull_to_end(manager, BIG)) for _ in range(3)]
        errors.extend([await error_of(one) for one in waiting])
        attempts = 1 + (kind == "stalled") * ManagerSettings().max_stalls
        assert server.request_count("/api/pull") == attempts

    result = run_scenario(scenario, models="none")

    assert len({str(error) for error in errors}) == 1
    assert [isinstance(error, OllamaError) for error in errors] == [True] * 3
    sentence, cause = result.last(BIG)
    assert sentence.startswith("pull failed")
    assert words in sentence
    assert cause == "command"
    assert result.shown(BIG)["last_failure"]["kind"] == kind


def steps(result: ScenarioResult, name: str = BIG) -> list[str]:
    """Return the first two words of each sentence: what happened, in short."""
    return [" ".join(said.split()[:2]) for said in result.sentences(name)]


def test_pull_completes_when_connections_are_cut(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(registry={"cut_after": 50_000_000})
        progress = await pull_to_end(manager, BIG)
        assert progress[-1].refetched_bytes == 0

    result = run_scenario(scenario, models="none")

    assert steps(result) == ["pull started", "pulled in", "capabilities: completion,"]


def test_progress_does_not_decrease_when_reset_connections_lose_data(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.time.stride_s = 0.5
        server.apply(registry={"rate": 5e6, "reset_after": 40_000_000})
        pulling = asyncio.create_task(pull_to_end(manager, BIG))
        await server.clock.sleep(9)
        server.apply(registry={"rate": 5e6})
        result = [one.completed_bytes for one in await pulling]
        assert result == sorted(result)

    result = run_scenario(scenario, models="none")

    shares = [said for said in result.sentences(BIG) if said.startswith("pull at ")]
    assert len(shares) >= 1
    assert result.sentences(BIG)[-2].startswith("pulled in ")


def test_stalled_pull_is_restarted_before_the_server_discards_data(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.time.stride_s = 1.0
        server.apply(registry={"rate": 5e6, "stall_after": 40_000_000})
        progress = await pull_to_end(manager, BIG)
        assert progress[-1].refetched_bytes == 0
        assert server.request_count("/api/pull") == 3

    result = run_scenario(scenario, models="none")

    assert steps(result)[-2:] == ["pulled in", "capabilities: completion,"]


def test_repeated_data_does_not_count_as_progress(run_scenario: RunScenario) -> None:
    layer = {"status": "pulling x", "digest": "sha256:" + "a" * 64, "total": 1000}
    lines = [layer | {"completed": done} for done in (0, 100, 200)]
    body = "".join(f"{json.dumps(line)}\n" for line in lines)

    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(answer=PULL | {"body": body, "hang": True, "times": 0})
        with pytest.raises(StalledError):
            await pull_to_end(manager, BIG)
        assert server.request_count("/api/pull") == 1 + ManagerSettings().max_stalls

    result = run_scenario(scenario, models="none")

    assert "no data arrived for 20 s" in result.last(BIG)[0]


def test_pull_works_again_after_a_restart_of_the_server(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(registry=SLOW)
        pulling = asyncio.create_task(pull_to_end(manager, BIG))
        await server.clock.sleep(30)
        server.apply(server="killed")
        assert isinstance(await error_of(pulling), OllamaError)
        assert not (await manager.node_status()).reached
        server.apply(server="started")
        await pull_to_end(manager, BIG)
        await manager.refresh()

    result = run_scenario(scenario, models="none")

    said = " | ".join(result.sentences(BIG))
    # How much had arrived when the server died depends on when it was scheduled.
    assert re.search(r"pull failed at [34]\d\d MB of 1\.3 GB", said)
    assert "the connection to the server broke" in said
    assert steps(result)[-2:] == ["pulled in", "capabilities: completion,"]
    node = result.herdbook("history", "--no-refresh").out
    assert "lost: " in node
    assert node.count("reached at") == 2


def test_pull_right_after_a_cancel_is_repeated(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(registry=SLOW, cancel_lag_s=0.003)
        await start_pull(manager, BIG)
        await pull_to_end(manager, BIG)
        assert server.request_count("/api/pull") == 3

    result = run_scenario(scenario, models="none")

    assert [step for step in steps(result) if step != "pull at"] == [
        "pull started",
        "pull cancelled",
        "pull started",
        "pulled in",
        "capabilities: completion,",
    ]


def test_two_instances_pull_a_model_once(run_scenario: RunScenario) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(registry={"rate": 5e6})
        async with server.open_manager(
            os.environ["HERDBOOK_DB"], actor="api:other"
        ) as other:
            mine = asyncio.create_task(pull_to_end(manager, BIG))
            await server.clock.sleep(5)
            theirs = asyncio.create_task(other.ensure_available(BIG))
            await mine
            assert (await theirs).present
        assert server.request_count("/api/pull") == 1

    result = run_scenario(scenario, models="none")

    assert result.sentences(BIG).count("pull started") == 1


def test_follower_of_another_instances_pull_gets_its_error(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(registry=SLOW, disk_bytes=30_000_000)
        async with server.open_manager(
            os.environ["HERDBOOK_DB"], actor="api:other"
        ) as other:
            mine = asyncio.create_task(pull_to_end(manager, BIG))
            await server.clock.sleep(2)
            theirs = asyncio.create_task(pull_to_end(other, BIG))
            ends = [await error_of(one) for one in (mine, theirs)]
            assert str(ends[0]) == str(ends[1])
            for end in ends:
                assert isinstance(end, PullError)
                assert end.kind == "disk_full"

    result = run_scenario(scenario, models="none")

    assert result.sentences(BIG).count("pull started") == 1


@pytest.mark.parametrize("leaves", ["they", "we"])
def test_pull_shares_the_download_of_another_client(
    leaves: str, run_scenario: RunScenario
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(registry={"rate": 5e6})
        theirs = asyncio.create_task(server.pull(BIG))
        await server.clock.sleep(5)
        ours = asyncio.create_task(pull_to_end(manager, BIG))
        await server.clock.sleep(5)
        leaving, staying = (theirs, ours) if leaves == "they" else (ours, theirs)
        leaving.cancel()
        await asyncio.wait([leaving])
        await staying
        await manager.refresh()

    result = run_scenario(scenario, models="none")

    ends = {"they": "pulled in", "we": "found: 1.3"}
    assert result.shown(BIG)["state"] == "available"
    assert steps(result)[-2] == ends[leaves]
    assert ("pull cancelled" in steps(result)) is (leaves == "we")


def test_update_of_a_loaded_model_that_changes_nothing(
    run_scenario: RunScenario,
) -> None:
    async def scenario(_: SandboxServer, manager: ModelManager) -> None:
        await manager.load("plain")
        await pull_to_end(manager, "plain")

    result = run_scenario(scenario)

    assert result.last("plain") == ("up to date", "command")
    assert result.shown("plain")["state"] == "loaded"


def test_update_of_a_loaded_model_to_other_weights_leaves_a_runner_of_no_model(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        await manager.load("llava:7b", keep_alive=-1)
        alias = {"library/llava:7b": "library/llama3.1:8b"}
        server.apply(registry={"alias": alias, **SLOW})
        pulling = asyncio.create_task(pull_to_end(manager, "llava:7b"))
        await server.clock.sleep(30)
        assert (await manager.get_status("llava:7b")).state is ModelState.LOADED
        await pulling
        assert (await manager.get_status("llava:7b")).state is ModelState.AVAILABLE

    result = run_scenario(scenario)

    sentence = "unloaded: the model was replaced"
    assert result.last("llava:7b") == (sentence, "observed")


def test_pull_fails_if_the_server_sends_nothing(run_scenario: RunScenario) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(answer=PULL | {"hang": True, "times": 0})
        with pytest.raises(StalledError):
            await pull_to_end(manager, BIG)

    settings = ManagerSettings(silence_timeout_s=60, max_stalls=2)
    result = run_scenario(scenario, models="none", settings=settings)

    assert "no data arrived for 60 s" in result.last(BIG)[0]


def test_pull_fails_if_the_server_repeats_one_line_endlessly(
    run_scenario: RunScenario,
) -> None:
    body = '{"status": "pulling manifest"}\n'

    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(answer=PULL | {"body": body, "repeat": True, "times": 0})
        pulling = asyncio.create_task(pull_to_end(manager, BIG))
        while not pulling.done():  # nobody waits, so time does not pass by itself
            server.time.advance(1)
            await asyncio.sleep(0)
        assert isinstance(pulling.exception(), StalledError)

    settings = ManagerSettings(silence_timeout_s=60, max_stalls=1)
    result = run_scenario(scenario, models="none", settings=settings)

    assert "no data arrived for 60 s" in result.last(BIG)[0]
