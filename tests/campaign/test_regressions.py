"""Faults that the campaign has found, one test each."""

from __future__ import annotations

from contextlib import suppress

import pytest
from campaign.hour.faults import INVALID_ANSWERS, SERVER_ERROR
from campaign.hour.oracle import Oracle
from proof.oracle import reported_models
from support.manager_fixture import (
    SandboxServer,
    recorded_events,
    serve_manager,
    serve_sandbox,
)

from herdbook import sandbox
from herdbook.core import ModelManager, OllamaError

NAME = "plain:latest"
MADE = "made:latest"
UNANSWERED = [
    which
    for which in INVALID_ANSWERS
    if which not in {SERVER_ERROR, "patience, then the truth", "a line of 100 MB"}
]


async def create_twin(server: SandboxServer) -> None:
    """Create a model of the same weights under another digest, as another client."""
    body = {"from": NAME, "parameters": {"seed": 1}}
    await server.request("POST", "/api/create", model=MADE, stream=False, **body)


async def refresh_without_details(
    server: SandboxServer, manager: ModelManager, which: str
) -> None:
    """Refresh from a server that can list its models but not show them."""
    server.apply(answer={"path": "/api/show", "times": 0, **INVALID_ANSWERS[which]})
    with suppress(OllamaError):
        await manager.refresh()


@pytest.mark.parametrize("which", UNANSWERED)
async def test_model_of_a_runner_is_correct_or_unknown(which: str) -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME)
        await manager.refresh()
        await create_twin(server)

        await refresh_without_details(server, manager, which)

        statuses = [*await manager.all_statuses(), await manager.get_status(MADE)]
        truth = Oracle(server.world).now()
        assert all(
            status.stale_since is not None
            or reported_models([status])[status.name] == truth[status.name]
            for status in statuses
        )
        assert statuses[-1].stale_since is not None
        server.apply(answer=None)
        await manager.refresh()
        assert (
            reported_models(await manager.all_statuses()) == Oracle(server.world).now()
        )


@pytest.mark.parametrize("which", ["a cut", "HTML from a proxy"])
async def test_model_without_details_is_present_if_there_is_no_runner(
    which: str,
) -> None:
    async with serve_manager() as (server, manager):
        await create_twin(server)

        await refresh_without_details(server, manager, which)

        status = await manager.get_status(MADE)
        assert status.present
        assert status.stale_since is None


async def test_server_without_model_details_is_recorded_once() -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME)
        await create_twin(server)
        before = (await manager.now()).position

        await refresh_without_details(server, manager, "HTML from a proxy")
        happened = await recorded_events(manager, after=before)
        for _ in range(3):
            await refresh_without_details(server, manager, "HTML from a proxy")

        assert await recorded_events(manager, after=before) == happened
        assert (await manager.get_status(NAME)).state == "loaded"
        assert (await manager.get_status(MADE)).stale_since is not None


async def test_unknown_model_is_also_stale() -> None:
    async with serve_manager() as (server, manager):
        server.apply(server="killed")
        with suppress(OllamaError):
            await manager.refresh()

        unseen = await manager.get_status("nowhere:7b")

        assert unseen.stale_since == (await manager.get_status(NAME)).stale_since
        assert unseen.stale_since is not None


async def test_first_refresh_finds_the_runner_of_all_names_of_its_weights() -> None:
    async with serve_sandbox() as server:
        await server.load(NAME)
        await create_twin(server)

        async with server.open_manager() as manager:
            reported = reported_models(await manager.all_statuses())

        assert reported[MADE].loaded
        assert reported == Oracle(server.world).now()


async def test_runner_belongs_to_all_names_once_its_model_can_be_shown() -> None:
    async with serve_manager() as (server, manager):
        await create_twin(server)
        await server.load(MADE)

        await manager.refresh()

        assert (
            reported_models(await manager.all_statuses()) == Oracle(server.world).now()
        )


async def test_weights_of_a_runner_count_more_than_its_name() -> None:
    async with (
        serve_sandbox(profile=sandbox.OLDER) as server,
        server.open_manager() as manager,
    ):
        await create_twin(server)
        await server.load(MADE)
        await manager.refresh()
        body = {"from": "nowhere:7b", "stream": False}  # has no weights: quirk of old
        await server.request("POST", "/api/create", model=MADE, **body)

        await manager.refresh()

        reported = reported_models(await manager.all_statuses())
        assert not reported[MADE].loaded
        assert reported == Oracle(server.world).now()
