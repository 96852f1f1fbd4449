"""Cancellations are recorded with who asked for them, before they return."""

from __future__ import annotations

import asyncio

import pytest
from support.manager_fixture import (
    SandboxServer,
    error_of,
    pull_to_end,
    recorded_events,
    serve_manager,
)

from herdbook.core import ModelManager, OperationEndedError

BIG = "llama3.2:1b"
NAME = "llava:7b"


async def begun(
    server: SandboxServer, manager: ModelManager, kind: str
) -> tuple[asyncio.Task[object], str]:
    """Begin, in Ann's name, work of a kind that takes long."""
    server.apply(registry={"latency_s": 60}, runner_start_delay_s=60)
    with manager.acting_as("api:ann"):
        work: asyncio.Task[object]
        match kind:
            case "Load":
                name, work = NAME, asyncio.create_task(manager.load(NAME))
            case "Update":
                name, work = NAME, asyncio.create_task(pull_to_end(manager, NAME))
            case _:
                name, work = BIG, asyncio.create_task(pull_to_end(manager, BIG))
    await server.clock.sleep(5)
    return work, name


async def actors(manager: ModelManager, name: str) -> list[tuple[str, str]]:
    """Return what was recorded last of a model, and in whose name."""
    return [
        (event.type, event.actor)
        for event in (await recorded_events(manager, name))[-2:]
    ]


async def leave(work: asyncio.Task[object]) -> None:
    work.cancel()
    await asyncio.wait([work])


@pytest.mark.parametrize("kind", ["Pull", "Update", "Load"])
async def test_cancellation_is_recorded_with_its_actor(kind: str) -> None:
    async with serve_manager("none" if kind == "Pull" else "herd") as (server, manager):
        work, name = await begun(server, manager, kind)

        with manager.acting_as("api:ben"):
            assert await manager.cancel(name)

        assert isinstance(await error_of(work), OperationEndedError)
        assert await actors(manager, name) == [
            (f"{kind}Started", "api:ann"),
            (f"{kind}Cancelled", "api:ben"),
        ]


@pytest.mark.parametrize("kind", ["Pull", "Update", "Load"])
async def test_work_without_followers_is_cancelled_in_the_name_of_its_starter(
    kind: str,
) -> None:
    async with serve_manager("none" if kind == "Pull" else "herd") as (server, manager):
        work, name = await begun(server, manager, kind)

        with manager.acting_as("api:ben"):
            await leave(work)

        assert await actors(manager, name) == [
            (f"{kind}Started", "api:ann"),
            (f"{kind}Cancelled", "api:ann"),
        ]


async def test_cancellation_without_an_actor_uses_that_of_the_manager() -> None:
    async with serve_manager("none") as (server, manager):
        await begun(server, manager, "Pull")

        await manager.cancel(BIG)

        assert (await actors(manager, BIG))[-1] == ("PullCancelled", "library:python")


async def test_first_canceller_is_recorded() -> None:
    async with serve_manager("none") as (server, manager):
        await begun(server, manager, "Pull")

        async def cancel(actor: str) -> None:
            with manager.acting_as(actor):
                await manager.cancel(BIG)

        await asyncio.gather(cancel("api:ben"), cancel("api:cid"))

        assert (await actors(manager, BIG))[-1] == ("PullCancelled", "api:ben")


async def test_interruption_of_all_work_is_recorded_when_it_returns() -> None:
    async with serve_manager() as (server, manager):
        loading, _ = await begun(server, manager, "Load")
        pulling = asyncio.create_task(pull_to_end(manager, BIG))
        await server.clock.sleep(5)
        before = (await manager.now()).position

        await manager.interrupt()

        ended = {
            (e.type, e.actor) for e in await recorded_events(manager, after=before)
        }
        assert ended == {
            ("LoadInterrupted", "api:ann"),
            ("UpdateInterrupted", "library:python"),
        }
        assert isinstance(await error_of(pulling), OperationEndedError)
        assert isinstance(await error_of(loading), OperationEndedError)


async def test_interruption_completes_even_if_its_caller_leaves() -> None:
    async with serve_manager("none") as (server, manager):
        await begun(server, manager, "Pull")
        interrupting = asyncio.create_task(manager.interrupt())
        await asyncio.sleep(0)

        await leave(interrupting)

        assert interrupting.cancelled()
        assert (await actors(manager, BIG))[-1] == ("PullInterrupted", "api:ann")


async def test_manager_continues_after_an_interruption() -> None:
    async with serve_manager("none") as (server, manager):
        await begun(server, manager, "Pull")
        await manager.interrupt()
        server.apply(registry={"latency_s": 0})

        assert (await manager.ensure_available(BIG)).present


async def test_interruption_without_work_records_nothing() -> None:
    async with serve_manager() as (_, manager):
        before = (await manager.now()).position

        await manager.interrupt()

        assert (await manager.now()).position == before
