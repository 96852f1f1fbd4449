"""A server that is away or makes no sense: the node is lost, nothing is guessed."""

from __future__ import annotations

from typing import Any

import pytest
from faults.cli_view import Lived
from support.manager_fixture import Place

from herdbook.core import ManagerSettings, ModelManager, OllamaError

NAME = "llava:7b"
TAGS: dict[str, Any] = {"path": "/api/tags"}
ERROR = '{"error": "the disk is on fire"}'

LOSSES: dict[str, tuple[dict[str, Any], str]] = {
    "node_unreachable": ({"server": "killed"}, "cannot be reached"),
    "node_timeout": ({"answer": TAGS | {"hang": True}}, "did not answer within 3 s"),
    "bad_answer": ({"answer": TAGS | {"status": 200, "body": "<html>"}}, "read"),
    "refused": ({"answer": TAGS | {"status": 403}}, "is refused by the server"),
    "server_failed": ({"answer": TAGS | {"status": 500, "body": ERROR}}, "on fire"),
    "server_busy": ({"answer": TAGS | {"status": 503, "body": ERROR}}, "is full"),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_server_that_gives_no_answer_is_lost_and_its_models_are_stale(
    kind: str, lived: Lived
) -> None:
    step, words = LOSSES[kind]

    async def story(place: Place, herd: ModelManager) -> None:
        place.did(**step)
        with pytest.raises(OllamaError) as failure:
            await herd.refresh()
        assert failure.value.kind == kind

    told = lived(story, settings=ManagerSettings(refresh_timeout_s=3))

    newest = told.herdbook("history", "--limit", "1", "--no-refresh").out
    assert "lost: " in newest
    assert words in newest
    assert told.shown(NAME)["state"] == "available"
    assert told.shown(NAME)["stale_since"] is not None


def test_server_that_is_back_is_reached_and_its_models_are_not_stale(
    lived: Lived,
) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        place.did(server="killed")
        with pytest.raises(OllamaError):
            await herd.refresh()
        place.did(server="started")
        await herd.refresh()

    told = lived(story)

    newest = told.herdbook("history", "--limit", "1", "--no-refresh").out
    assert "reached at http://127.0.0.1:" in newest
    assert told.shown(NAME)["stale_since"] is None


def test_model_whose_manifest_somebody_deleted_has_vanished(lived: Lived) -> None:
    async def story(place: Place, herd: ModelManager) -> None:
        place.did(manifest_deleted=NAME)
        await herd.refresh()

    assert lived(story).last(NAME) == ("no longer on the server", "observed")
