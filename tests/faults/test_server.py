"""A server that does not answer or sends nonsense: the node is lost."""

from __future__ import annotations

from typing import Any

import pytest
from faults.cli_view import RunScenario
from support.manager_fixture import SandboxServer

from herdbook.core import ManagerSettings, ModelManager, OllamaError

NAME = "llava:7b"
TAGS: dict[str, Any] = {"path": "/api/tags"}
ERROR = '{"error": "the disk is on fire"}'

LOSSES: dict[str, tuple[dict[str, Any], str]] = {
    "node_unreachable": ({"server": "killed"}, "cannot be reached"),
    "node_timeout": ({"answer": TAGS | {"hang": True}}, "did not answer within 3 s"),
    "bad_answer": ({"answer": TAGS | {"status": 200, "body": "<html>"}}, "read"),
    "refused": ({"answer": TAGS | {"status": 403}}, "was refused by the server"),
    "server_failed": ({"answer": TAGS | {"status": 500, "body": ERROR}}, "on fire"),
    "server_busy": ({"answer": TAGS | {"status": 503, "body": ERROR}}, "is full"),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_server_that_does_not_answer_is_lost_and_its_models_are_stale(
    kind: str, run_scenario: RunScenario
) -> None:
    step, words = LOSSES[kind]

    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(**step)
        with pytest.raises(OllamaError) as failure:
            await manager.refresh()
        assert failure.value.kind == kind

    result = run_scenario(scenario, settings=ManagerSettings(refresh_timeout_s=3))

    newest = result.herdbook("history", "--limit", "1", "--no-refresh").out
    assert "lost: " in newest
    assert words in newest
    assert result.shown(NAME)["state"] == "available"
    assert result.shown(NAME)["stale_since"] is not None


def test_server_that_answers_again_is_reached_and_its_models_are_current(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(server="killed")
        with pytest.raises(OllamaError):
            await manager.refresh()
        server.apply(server="started")
        await manager.refresh()

    result = run_scenario(scenario)

    newest = result.herdbook("history", "--limit", "1", "--no-refresh").out
    assert "reached at http://127.0.0.1:" in newest
    assert result.shown(NAME)["stale_since"] is None


def test_model_that_another_program_deleted_has_vanished(
    run_scenario: RunScenario,
) -> None:
    async def scenario(server: SandboxServer, manager: ModelManager) -> None:
        server.apply(manifest_deleted=NAME)
        await manager.refresh()

    assert run_scenario(scenario).last(NAME) == ("no longer on the server", "observed")
