"""What the hours have shown to be wrong, each as a case of its own."""

from __future__ import annotations

from contextlib import suppress

import pytest
from campaign.hour.faults import NONSENSE, VERDICT
from campaign.hour.oracle import Oracle
from proof.oracle import told_by
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
    for which in NONSENSE
    if which not in {VERDICT, "patience, then the truth", "a line of 100 MB"}
]


async def makes_another(server: SandboxServer) -> None:
    """Somebody makes a model of the same weights, under another digest."""
    body = {"from": NAME, "parameters": {"seed": 1}}
    await server.request("POST", "/api/create", model=MADE, stream=False, **body)


async def look_at_nonsense(
    server: SandboxServer, manager: ModelManager, which: str
) -> None:
    """Look at a server that can list its models, and show none."""
    server.apply(answer={"path": "/api/show", "times": 0, **NONSENSE[which]})
    with suppress(OllamaError):
        await manager.refresh()


@pytest.mark.parametrize("which", UNANSWERED)
async def test_whose_a_runner_is_is_told_or_said_to_be_unknown(which: str) -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME)
        await manager.refresh()
        await makes_another(server)

        await look_at_nonsense(server, manager, which)

        statuses = [*await manager.all_statuses(), await manager.get_status(MADE)]
        truth = Oracle(server.world).now()
        assert all(
            status.stale_since is not None
            or told_by([status])[status.name] == truth[status.name]
            for status in statuses
        )
        assert statuses[-1].stale_since is not None
        server.apply(answer=None)
        await manager.refresh()
        assert told_by(await manager.all_statuses()) == Oracle(server.world).now()


@pytest.mark.parametrize("which", ["a cut", "HTML from a proxy"])
async def test_model_that_nobody_shows_is_there_where_no_runner_is(which: str) -> None:
    async with serve_manager() as (server, manager):
        await makes_another(server)

        await look_at_nonsense(server, manager, which)

        status = await manager.get_status(MADE)
        assert status.present
        assert status.stale_since is None


async def test_server_that_shows_nothing_is_recorded_once() -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME)
        await makes_another(server)
        before = (await manager.now()).position

        await look_at_nonsense(server, manager, "HTML from a proxy")
        happened = await recorded_events(manager, after=before)
        for _ in range(3):
            await look_at_nonsense(server, manager, "HTML from a proxy")

        assert await recorded_events(manager, after=before) == happened
        assert (await manager.get_status(NAME)).state == "loaded"
        assert (await manager.get_status(MADE)).stale_since is not None


async def test_model_that_nobody_has_seen_is_stale_too() -> None:
    async with serve_manager() as (server, manager):
        server.apply(server="killed")
        with suppress(OllamaError):
            await manager.refresh()

        unseen = await manager.get_status("nowhere:7b")

        assert unseen.stale_since == (await manager.get_status(NAME)).stale_since
        assert unseen.stale_since is not None


async def test_first_look_knows_the_runner_of_every_name_of_its_weights() -> None:
    async with serve_sandbox() as server:
        await server.load(NAME)
        await makes_another(server)

        async with server.open_manager() as manager:
            told = told_by(await manager.all_statuses())

        assert told[MADE].loaded
        assert told == Oracle(server.world).now()


async def test_runner_whose_model_is_shown_at_last_is_everybodys_at_once() -> None:
    async with serve_manager() as (server, manager):
        await makes_another(server)
        await server.load(MADE)

        await manager.refresh()

        assert told_by(await manager.all_statuses()) == Oracle(server.world).now()


async def test_name_of_a_runner_is_no_proof_where_its_weights_are_known() -> None:
    async with (
        serve_sandbox(profile=sandbox.OLDER) as server,
        server.open_manager() as manager,
    ):
        await makes_another(server)
        await server.load(MADE)
        await manager.refresh()
        body = {"from": "nowhere:7b", "stream": False}  # has no weights: quirk of old
        await server.request("POST", "/api/create", model=MADE, **body)

        await manager.refresh()

        told = told_by(await manager.all_statuses())
        assert not told[MADE].loaded
        assert told == Oracle(server.world).now()
