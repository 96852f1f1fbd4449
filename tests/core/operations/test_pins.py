"""A pinned model comes back after an eviction, when there is room, not too often."""

from __future__ import annotations

from support.manager_fixture import Place, herd_of, told

from herdbook import sandbox
from herdbook.core import Cause, ManagerSettings, ModelManager, ModelState

NAME = "llama3.1:8b"
OTHER = "llama3.2:1b"
ONE_RUNNER = sandbox.Settings(max_loaded=1)
WATCHFUL = ManagerSettings(reconcile_every_s=30)


async def evict(place: Place, herd: ModelManager) -> None:
    """Load the pinned model, let another take its place, and have that seen."""
    await place.loads(OTHER, keep_alive="2m")
    await place.clock.sleep(31)
    assert (await herd.get_status(NAME)).state is ModelState.AVAILABLE


async def test_pinned_model_is_loaded_again_when_what_evicted_it_is_gone() -> None:
    async with herd_of(server=ONE_RUNNER, settings=WATCHFUL) as (place, herd):
        await herd.configure(NAME, {"pinned": True, "keep_alive": -1})
        await herd.load(NAME)
        await evict(place, herd)
        await place.clock.sleep(300)

        status = await herd.get_status(NAME)
        assert status.state is ModelState.LOADED
        assert status.why is not None
        assert (status.why.cause, status.why.actor) == (
            Cause.CONFIGURATION,
            "reconciler",
        )
        sentences = [entry.sentence for entry in await herd.history(NAME)]
        assert f"unloaded: evicted to make room for {OTHER}" in sentences


async def test_model_that_is_not_pinned_stays_unloaded() -> None:
    async with herd_of(server=ONE_RUNNER, settings=WATCHFUL) as (place, herd):
        await herd.load(NAME, keep_alive=-1)
        await evict(place, herd)
        await place.clock.sleep(300)

        assert (await herd.get_status(NAME)).state is ModelState.AVAILABLE


async def test_pinned_model_comes_back_only_so_often_an_hour() -> None:
    async with herd_of(server=ONE_RUNNER, settings=WATCHFUL) as (place, herd):
        await herd.configure(NAME, {"pinned": True, "keep_alive": -1})
        await herd.load(NAME)
        for _ in range(6):
            await evict(place, herd)
            await place.clock.sleep(180)

        loads = (await told(herd, NAME)).count("LoadStarted")
        assert loads == 1 + WATCHFUL.pinned_loads_per_hour


async def test_pinned_model_that_was_unloaded_on_request_stays_unloaded() -> None:
    async with herd_of(server=ONE_RUNNER, settings=WATCHFUL) as (place, herd):
        await herd.configure(NAME, {"pinned": True})
        await herd.load(NAME)
        await herd.unload(NAME)
        await place.clock.sleep(300)

        assert (await herd.get_status(NAME)).state is ModelState.AVAILABLE
