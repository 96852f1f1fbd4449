"""A pinned model is loaded again after an eviction, if it fits, not too often."""

from __future__ import annotations

from datetime import timedelta

from support.manager_fixture import SandboxServer, event_types, serve_manager
from support.uses import START

from herdbook import sandbox
from herdbook.core import (
    Cause,
    ManagerSettings,
    ManualClock,
    ModelManager,
    ModelState,
    ServerState,
)
from herdbook.core.operations.pins import Pins
from herdbook.core.views import Views
from herdbook.events.facts import (
    ConfigurationChanged,
    Fact,
    ModelDiscovered,
    ModelUnloaded,
    ModelUsed,
    UnloadReason,
)
from herdbook.events.memory import MemoryEventStore
from herdbook.events.recorded import NewEvent
from herdbook.events.store import ANY
from herdbook.events.streams import model_stream

NAME = "llama3.1:8b"
OTHER = "llama3.2:1b"
ONE_RUNNER = sandbox.Settings(max_loaded=1)
WATCHFUL = ManagerSettings(reconcile_every_s=30)


async def evict(server: SandboxServer, manager: ModelManager) -> None:
    """Load the pinned model, let another take its place, and have that seen."""
    await server.load(OTHER, keep_alive="2m")
    await server.clock.sleep(31)
    assert (await manager.get_status(NAME)).state is ModelState.AVAILABLE


async def test_pinned_model_is_reloaded_when_its_evictor_is_gone() -> None:
    async with serve_manager(sandbox_settings=ONE_RUNNER, settings=WATCHFUL) as (
        server,
        manager,
    ):
        await manager.configure(NAME, {"pinned": True, "keep_alive": -1})
        await manager.load(NAME)
        await evict(server, manager)
        await server.clock.sleep(300)

        status = await manager.get_status(NAME)
        assert status.state is ModelState.LOADED
        assert status.why is not None
        assert (status.why.cause, status.why.actor) == (
            Cause.CONFIGURATION,
            "reconciler",
        )
        sentences = [entry.sentence for entry in await manager.history(NAME)]
        assert f"unloaded: evicted to make room for {OTHER}" in sentences


async def test_model_that_is_not_pinned_stays_unloaded() -> None:
    async with serve_manager(sandbox_settings=ONE_RUNNER, settings=WATCHFUL) as (
        server,
        manager,
    ):
        await manager.load(NAME, keep_alive=-1)
        await evict(server, manager)
        await server.clock.sleep(300)

        assert (await manager.get_status(NAME)).state is ModelState.AVAILABLE


async def test_pinned_model_is_reloaded_a_limited_number_of_times_an_hour() -> None:
    async with serve_manager(sandbox_settings=ONE_RUNNER, settings=WATCHFUL) as (
        server,
        manager,
    ):
        await manager.configure(NAME, {"pinned": True, "keep_alive": -1})
        await manager.load(NAME)
        for _ in range(6):
            await evict(server, manager)
            await server.clock.sleep(180)

        loads = (await event_types(manager, NAME)).count("LoadStarted")
        assert loads == 1 + WATCHFUL.pinned_loads_per_hour


async def test_pinned_model_that_was_unloaded_on_request_stays_unloaded() -> None:
    async with serve_manager(sandbox_settings=ONE_RUNNER, settings=WATCHFUL) as (
        server,
        manager,
    ):
        await manager.configure(NAME, {"pinned": True})
        await manager.load(NAME)
        await manager.unload(NAME)
        await server.clock.sleep(300)

        assert (await manager.get_status(NAME)).state is ModelState.AVAILABLE


async def test_most_recently_used_evicted_model_is_reloaded_first() -> None:
    names = ["a:1", "b:1", "c:1"]
    store = MemoryEventStore()
    facts: list[Fact] = [
        ModelDiscovered(digest="a" * 64, size_bytes=1),
        ConfigurationChanged(set={"pinned": True}, was={}, note=""),
        ModelUsed(),
        ModelUnloaded(reason=UnloadReason.EVICTED, evicted_by="gone:1"),
    ]
    async with store:
        for name, used_s in zip(names, (10, 30, 20), strict=True):
            at = START + timedelta(seconds=used_s)
            new = [
                NewEvent(fact=fact, occurred_at=at, actor="x:y", cause=Cause.OBSERVED)
                for fact in facts
            ]
            await store.append(model_stream("local", name), new, ANY)
        views = Views()
        await views.replay(store)
    statuses = views.status.all("local")
    server = ServerState(at=START, server_version="1", models={}, runners=())

    pins = Pins(clock=ManualClock(), settings=ManagerSettings())

    assert list(pins.due(statuses, server)) == ["b:1", "c:1", "a:1"]


async def test_pinned_model_replaces_an_unused_model_without_expiry() -> None:
    async with serve_manager(sandbox_settings=ONE_RUNNER, settings=WATCHFUL) as (
        server,
        manager,
    ):
        await manager.configure(NAME, {"pinned": True, "keep_alive": -1})
        await manager.load(NAME)
        await server.load(OTHER, keep_alive=-1)
        for _ in range(5):
            await server.clock.sleep(600)
            await server.load(OTHER, prompt="used")
        assert (await manager.get_status(OTHER)).state is ModelState.LOADED
        await server.clock.sleep(WATCHFUL.pinned_idle_s + 120)

        assert (await manager.get_status(NAME)).state is ModelState.LOADED


async def test_pinned_model_does_not_replace_another_pinned_one() -> None:
    async with serve_manager(sandbox_settings=ONE_RUNNER, settings=WATCHFUL) as (
        server,
        manager,
    ):
        for name in (NAME, OTHER):
            await manager.configure(name, {"pinned": True, "keep_alive": -1})
        await manager.load(NAME)
        await manager.load(OTHER)
        await server.clock.sleep(2 * WATCHFUL.pinned_idle_s)

        assert (await manager.get_status(OTHER)).state is ModelState.LOADED
