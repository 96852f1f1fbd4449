"""Who ends work is who is recorded; an interruption is recorded before it is over."""

from __future__ import annotations

import asyncio

import pytest
from support.manager_fixture import Place, end_of, herd_of, pulled, recorded

from herdbook.core import ModelManager, OperationEndedError

BIG = "llama3.2:1b"
NAME = "llava:7b"


async def begun(
    place: Place, herd: ModelManager, kind: str
) -> tuple[asyncio.Task[object], str]:
    """Begin, in Ann's name, work of a kind that takes long."""
    place.did(registry={"latency_s": 60}, runner_start_delay_s=60)
    with herd.acting_as("api:ann"):
        work: asyncio.Task[object]
        match kind:
            case "Load":
                name, work = NAME, asyncio.create_task(herd.load(NAME))
            case "Update":
                name, work = NAME, asyncio.create_task(pulled(herd, NAME))
            case _:
                name, work = BIG, asyncio.create_task(pulled(herd, BIG))
    await place.clock.sleep(5)
    return work, name


async def actors(herd: ModelManager, name: str) -> list[tuple[str, str]]:
    """Return what was recorded last of a model, and in whose name."""
    return [(event.type, event.actor) for event in (await recorded(herd, name))[-2:]]


async def leave(work: asyncio.Task[object]) -> None:
    work.cancel()
    await asyncio.wait([work])


@pytest.mark.parametrize("kind", ["Pull", "Update", "Load"])
async def test_cancel_is_recorded_in_the_name_of_who_cancels(kind: str) -> None:
    async with herd_of("none" if kind == "Pull" else "herd") as (place, herd):
        work, name = await begun(place, herd, kind)

        with herd.acting_as("api:ben"):
            assert await herd.cancel(name)

        assert isinstance(await end_of(work), OperationEndedError)
        assert await actors(herd, name) == [
            (f"{kind}Started", "api:ann"),
            (f"{kind}Cancelled", "api:ben"),
        ]


@pytest.mark.parametrize("kind", ["Pull", "Update", "Load"])
async def test_work_that_the_last_follower_leaves_is_cancelled_by_who_began_it(
    kind: str,
) -> None:
    async with herd_of("none" if kind == "Pull" else "herd") as (place, herd):
        work, name = await begun(place, herd, kind)

        with herd.acting_as("api:ben"):
            await leave(work)

        assert await actors(herd, name) == [
            (f"{kind}Started", "api:ann"),
            (f"{kind}Cancelled", "api:ann"),
        ]


async def test_cancel_of_somebody_without_a_name_is_the_managers_own() -> None:
    async with herd_of("none") as (place, herd):
        await begun(place, herd, "Pull")

        await herd.cancel(BIG)

        assert (await actors(herd, BIG))[-1] == ("PullCancelled", "library:python")


async def test_first_who_cancels_is_recorded() -> None:
    async with herd_of("none") as (place, herd):
        await begun(place, herd, "Pull")

        async def cancel(actor: str) -> None:
            with herd.acting_as(actor):
                await herd.cancel(BIG)

        await asyncio.gather(cancel("api:ben"), cancel("api:cid"))

        assert (await actors(herd, BIG))[-1] == ("PullCancelled", "api:ben")


async def test_interruption_of_all_work_is_recorded_when_it_returns() -> None:
    async with herd_of() as (place, herd):
        loading, _ = await begun(place, herd, "Load")
        pulling = asyncio.create_task(pulled(herd, BIG))
        await place.clock.sleep(5)
        before = (await herd.now()).position

        await herd.interrupt()

        ended = {(e.type, e.actor) for e in await recorded(herd, after=before)}
        assert ended == {
            ("LoadInterrupted", "api:ann"),
            ("UpdateInterrupted", "library:python"),
        }
        assert isinstance(await end_of(pulling), OperationEndedError)
        assert isinstance(await end_of(loading), OperationEndedError)


async def test_interruption_comes_to_its_end_though_its_caller_leaves() -> None:
    async with herd_of("none") as (place, herd):
        await begun(place, herd, "Pull")
        interrupting = asyncio.create_task(herd.interrupt())
        await asyncio.sleep(0)

        await leave(interrupting)

        assert interrupting.cancelled()
        assert (await actors(herd, BIG))[-1] == ("PullInterrupted", "api:ann")


async def test_manager_goes_on_after_an_interruption() -> None:
    async with herd_of("none") as (place, herd):
        await begun(place, herd, "Pull")
        await herd.interrupt()
        place.did(registry={"latency_s": 0})

        assert (await herd.ensure_available(BIG)).present


async def test_interruption_without_work_records_nothing() -> None:
    async with herd_of() as (_, herd):
        before = (await herd.now()).position

        await herd.interrupt()

        assert (await herd.now()).position == before
