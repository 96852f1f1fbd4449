"""Changes by other programs, after exactly one refresh."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.manager_fixture import (
    SandboxServer,
    event_types,
    recorded_events,
    serve_manager,
    serve_sandbox,
)

from herdbook import sandbox
from herdbook.core import (
    Cause,
    Clock,
    ManagerSettings,
    ModelManager,
    ModelState,
    NodeTimeoutError,
    NodeUnreachableError,
    OllamaError,
    UnloadReason,
)
from herdbook.core.observer import NoObserver
from herdbook.core.reconcile.reconciler import RECHECK_WAIT_S
from herdbook.events import facts
from herdbook.events.facts import Fact
from herdbook.events.recorded import RecordedEvent

NAME = "llava:7b"
PLAIN = "plain:latest"


async def drift(manager: ModelManager) -> list[RecordedEvent]:
    """Look once, and return what that recorded."""
    before = (await manager.now()).position
    await manager.refresh()
    return await recorded_events(manager, after=before)


def seen(events: list[RecordedEvent]) -> list[tuple[str, str, Cause]]:
    return [(e.stream.rpartition("/")[2], e.type, e.cause) for e in events]


async def only(manager: ModelManager) -> Fact:
    """Look once, and return the one fact that this recorded."""
    (event,) = await drift(manager)
    return event.data


async def test_first_refresh_discovers_every_model_with_its_capabilities() -> None:
    async with serve_sandbox() as server, server.open_manager(refresh=False) as manager:
        assert await manager.all_statuses() == []

        events = await drift(manager)

        assert len(await manager.all_statuses()) == 9
        assert [e.type for e in events[1:3]] == [
            "ModelDiscovered",
            "CapabilitiesDetected",
        ]
        assert {e.actor for e in events} == {"reconciler"}
        assert {e.cause for e in events} == {Cause.OBSERVED}
        assert len({e.correlation_id for e in events}) == 1


async def test_refresh_without_changes_records_nothing() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        shown = server.request_count("/api/show")

        assert await drift(manager) == []

        assert server.request_count("/api/show") == shown


async def test_model_deleted_by_another_program_has_vanished() -> None:
    async with serve_manager() as (server, manager):
        await server.delete(NAME)

        assert seen(await drift(manager)) == [(NAME, "ModelVanished", Cause.OBSERVED)]
        assert not await manager.is_available(NAME)


async def test_loaded_model_deleted_by_another_program_has_vanished() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        await server.delete(NAME)

        assert seen(await drift(manager)) == [(NAME, "ModelVanished", Cause.OBSERVED)]


async def test_model_that_another_program_pulled_is_discovered() -> None:
    async with serve_manager() as (server, manager):
        await server.pull("smollm2:135m")

        assert seen(await drift(manager)) == [
            ("smollm2:135m", "ModelDiscovered", Cause.OBSERVED),
            ("smollm2:135m", "CapabilitiesDetected", Cause.OBSERVED),
        ]
        assert await manager.is_available("smollm2:135m")


async def test_returned_model_is_discovered_again() -> None:
    async with serve_manager() as (server, manager):
        await server.delete(NAME)
        await drift(manager)
        await server.pull(NAME)

        events = await drift(manager)

        assert events[0].type == "ModelDiscovered"
        assert (await manager.get_status(NAME)).state is ModelState.AVAILABLE


async def test_model_loaded_by_another_program_is_loaded() -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME)

        loaded, used = await drift(manager)

        assert isinstance(loaded.data, facts.ModelLoaded)
        assert (loaded.data.runner.name, loaded.data.duration_s) == (NAME, None)
        assert isinstance(used.data, facts.ModelUsed)
        assert used.data.loaded_by_it is True


async def test_names_that_share_a_runner_are_loaded_with_the_cause_shared() -> None:
    async with serve_manager() as (server, manager):
        await server.load(PLAIN)

        events = await drift(manager)

        (used,) = (event for event in events if event.type == "ModelUsed")
        assert used.stream.endswith(PLAIN)
        events.remove(used)
        assert {e.type for e in events} == {"ModelLoaded"}
        causes = {name: cause for name, _, cause in seen(events)}
        assert causes == {
            PLAIN: Cause.OBSERVED,
            "llama3.2:1b": Cause.SHARED,
            "update-me:latest": Cause.SHARED,
            "update-me:v2": Cause.SHARED,
        }


async def test_copy_of_a_loaded_model_is_discovered_loaded() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        await server.copy(NAME, "twin")

        events = await drift(manager)

        assert seen(events) == [
            ("twin:latest", "ModelDiscovered", Cause.OBSERVED),
            ("twin:latest", "CapabilitiesDetected", Cause.OBSERVED),
            ("twin:latest", "ModelLoaded", Cause.SHARED),
        ]


async def test_name_moved_to_other_weights_by_another_program_is_updated() -> None:
    async with serve_manager() as (server, manager):
        before = await manager.get_status(NAME)
        await server.copy(PLAIN, NAME)

        updated, detected = await drift(manager)

        assert isinstance(updated.data, facts.ModelUpdated)
        assert updated.data.previous_digest == before.digest
        assert updated.cause is Cause.OBSERVED
        assert isinstance(detected.data, facts.CapabilitiesDetected)
        assert not (await manager.get_status(NAME)).can("vision")


async def test_replaced_loaded_model_keeps_its_runner() -> None:
    async with serve_manager() as (server, manager):
        await manager.load("update-me")
        await server.copy("update-me:v2", "update-me")

        updated, *_ = [
            e for e in await drift(manager) if e.type != "CapabilitiesDetected"
        ]

        assert updated.type == "ModelUpdated"
        status = await manager.get_status("update-me")
        assert status.state is ModelState.LOADED
        assert status.runner is not None
        assert status.runner.digest != status.digest


async def test_loaded_name_with_other_weights_is_unloaded_as_replaced() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        await server.copy(NAME, "twin")
        await manager.refresh()
        await server.copy("llama3.1:8b", NAME)

        events = await drift(manager)

        gone = [e.data for e in events if isinstance(e.data, facts.ModelUnloaded)]
        assert gone == [facts.ModelUnloaded(reason=UnloadReason.MODEL_REPLACED)]
        assert (await manager.get_status("twin")).state is ModelState.LOADED


async def test_model_unloaded_by_another_program_is_unloaded_on_request() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        await server.unload(NAME)

        (event,) = await drift(manager)

        assert event.data == facts.ModelUnloaded(reason=UnloadReason.REQUESTED)
        assert event.cause is Cause.OBSERVED


async def test_runner_past_its_expiry_has_expired() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        server.time.advance(3600)

        (event,) = await drift(manager)

        assert event.data == facts.ModelUnloaded(reason=UnloadReason.EXPIRED)
        assert event.cause is Cause.EXPIRY


async def test_used_runner_expires_at_its_newest_time() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        server.time.advance(200)
        await server.load(NAME)
        assert seen(await drift(manager)) == [(NAME, "ModelUsed", Cause.OBSERVED)]
        server.time.advance(250)
        await server.unload(NAME)

        assert await only(manager) == facts.ModelUnloaded(reason=UnloadReason.REQUESTED)


async def test_runner_displaced_by_another_load_was_evicted() -> None:
    one_place = sandbox.Settings(max_loaded=1)
    async with serve_manager(sandbox_settings=one_place) as (server, manager):
        await manager.load(NAME)
        await server.load("llama3.1:8b")

        loaded, used, evicted = await drift(manager)

        assert (loaded.type, used.type) == ("ModelLoaded", "ModelUsed")
        assert evicted.data == facts.ModelUnloaded(
            reason=UnloadReason.EVICTED, evicted_by="llama3.1:8b"
        )
        assert evicted.cause is Cause.EVICTION


async def test_only_the_missing_runner_waits_for_a_second_look() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        await server.unload(NAME)
        refreshing = asyncio.create_task(manager.refresh())
        await server.clock.sleep(RECHECK_WAIT_S / 2)
        await server.copy("llama3.1:8b", "made")
        assert (await manager.get_status(NAME)).stale_since is not None

        await manager._reconciler.refresh(actors={"made:latest": "gateway:ann"})
        await refreshing

        made = (await recorded_events(manager, "made:latest"))[0]
        assert (made.type, made.actor) == ("ModelDiscovered", "gateway:ann")
        gone = (await recorded_events(manager, NAME))[-1]
        assert gone.data == facts.ModelUnloaded(reason=UnloadReason.REQUESTED)
        status = await manager.get_status(NAME)
        assert (status.state, status.stale_since) == (ModelState.AVAILABLE, None)


async def test_runner_with_a_different_context_is_recorded_as_changed() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        await server.load(NAME, options={"num_ctx": 512})

        changed, used = await drift(manager)

        assert isinstance(changed.data, facts.RunnerChanged)
        assert changed.data.runner.context_length == 512
        assert used.type == "ModelUsed"


async def test_runners_lost_together_are_unloaded_by_a_restart() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        await manager.load("llama3.1:8b")
        server.apply(server="killed")
        server.apply(server="started")

        events = await drift(manager)

        gone = facts.ModelUnloaded(reason=UnloadReason.SERVER_RESTARTED)
        assert [e.data for e in events] == [gone, gone]
        assert {e.cause for e in events} == {Cause.RESTART}


async def test_unreachable_node_is_recorded_as_lost_once() -> None:
    async with serve_manager() as (server, manager):
        server.apply(server="killed")
        before = (await manager.now()).position

        for _ in range(2):
            with pytest.raises(NodeUnreachableError):
                await manager.refresh()

        (event,) = await recorded_events(manager, after=before)
        assert isinstance(event.data, facts.NodeLost)
        assert event.data.kind == "node_unreachable"
        assert not (await manager.node_status()).reached


async def test_models_of_a_lost_node_are_stale_from_that_time() -> None:
    async with serve_manager() as (server, manager):
        server.time.advance(60)
        await away(server, manager)

        status = await manager.get_status(NAME)

        assert status.stale_since == server.clock.now()
        assert status.state is ModelState.AVAILABLE


async def test_returned_node_is_reached_and_nothing_is_stale() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        await away(server, manager)
        server.apply(server="started")

        reached, unloaded = await drift(manager)

        assert isinstance(reached.data, facts.NodeReached)
        assert reached.data.url == server.url
        assert unloaded.data == facts.ModelUnloaded(
            reason=UnloadReason.SERVER_RESTARTED
        )
        assert (await manager.get_status(NAME)).stale_since is None


async def away(server: SandboxServer, manager: ModelManager) -> None:
    server.apply(server="killed")
    with pytest.raises(OllamaError):
        await manager.refresh()


async def test_new_version_of_the_server_is_recorded() -> None:
    async with serve_manager() as (server, manager):
        server.world.profile = sandbox.Profile(version="9.9.9")

        fact = await only(manager)

        assert fact == facts.NodeReached(version="9.9.9", url=server.url)


async def test_unreachable_server_at_the_start_is_not_an_error() -> None:
    async with serve_sandbox() as server:
        server.apply(server="killed")
        async with server.open_manager() as manager:
            assert not (await manager.node_status()).reached
            assert await manager.all_statuses() == []
            server.apply(server="started")

            await manager.refresh()

            assert len(await manager.all_statuses()) == 9


async def test_server_that_does_not_answer_in_time_is_lost() -> None:
    settings = ManagerSettings(refresh_timeout_s=3)
    async with serve_manager(settings=settings) as (server, manager):
        server.apply(answer={"path": "/api/tags", "hang": True})
        before = server.time.now()

        with pytest.raises(NodeTimeoutError):
            await manager.refresh()

        assert server.time.now() - before == pytest.approx(3)
        assert (await recorded_events(manager))[-1].type == "NodeLost"


async def test_model_that_cannot_be_shown_has_the_details_of_the_list() -> None:
    async with serve_sandbox() as server:
        said = {"path": "/api/show", "status": 500, "body": '{"error":"torn"}'}
        server.apply(answer={**said, "times": 9})
        async with server.open_manager() as manager:
            status = await manager.get_status("llama3.2:1b")

            assert status.can("tools")
            assert status.capabilities["tools"].source == "tags"


async def test_background_reconciler_records_changes() -> None:
    settings = ManagerSettings(reconcile_every_s=60)
    async with serve_manager(settings=settings) as (server, manager):
        await server.delete(NAME)

        await server.clock.sleep(61)

        assert (await event_types(manager, NAME))[-1] == "ModelVanished"


class LookTimes(NoObserver):
    """An observer that keeps when the server was looked at."""

    def __init__(self) -> None:
        self.looks: list[float] = []
        self.clock: Clock | None = None

    def asked(
        self, *, method: str, path: str, seconds: float, failure: str | None
    ) -> None:
        if path == "/api/version" and self.clock:
            self.looks.append(self.clock.monotonic())

    def waits(self) -> list[int]:
        """Return the seconds from each look to the next."""
        pairs = itertools.pairwise(self.looks)
        return [round(later - sooner) for sooner, later in pairs]


@asynccontextmanager
async def watched(
    settings: ManagerSettings,
) -> AsyncIterator[tuple[SandboxServer, ModelManager, LookTimes]]:
    times = LookTimes()
    async with serve_sandbox() as server:
        times.clock = server.clock
        opened = ModelManager.open(
            ":memory:",
            ollama=server.url,
            clock=server.clock,
            settings=settings,
            observer=times,
        )
        async with opened as manager:
            yield server, manager, times


async def test_lost_server_is_polled_soon_and_then_less_and_less_often() -> None:
    settings = ManagerSettings(reconcile_every_s=60)
    async with watched(settings) as (server, manager, times):
        server.apply(server="killed")
        await server.clock.sleep(60 + 1 + 2 + 4 + 8 + 16 + 30 + 30 + 1)

        assert times.waits() == [60, 1, 2, 4, 8, 16, 30, 30]
        nodes = [e.type for e in await recorded_events(manager, "local")]
        assert nodes == ["NodeReached", "NodeLost"]


async def test_returned_server_is_noticed_at_the_next_refresh() -> None:
    settings = ManagerSettings(reconcile_every_s=60, lost_wait_s=2, lost_wait_max_s=5)
    async with watched(settings) as (server, manager, times):
        server.apply(server="killed")
        await server.clock.sleep(60 + 2 + 4 + 5 + 1)
        assert not (await manager.node_status()).reached
        server.apply(server="started")

        await server.clock.sleep(5)
        assert (await manager.node_status()).reached

        await server.clock.sleep(60)
        assert times.waits() == [60, 2, 4, 5, 5, 60]
        server.apply(server="killed")
        await server.clock.sleep(60 + 2)
        assert times.waits()[6:] == [60, 2]
        nodes = [e.type for e in await recorded_events(manager, "local")]
        assert nodes == ["NodeReached", "NodeLost", "NodeReached", "NodeLost"]


async def test_first_delay_for_a_lost_server_respects_the_maximum() -> None:
    settings = ManagerSettings(reconcile_every_s=60, lost_wait_s=9, lost_wait_max_s=3)
    async with watched(settings) as (server, _, times):
        server.apply(server="killed")
        await server.clock.sleep(60 + 3 + 3 + 1)

        assert times.waits() == [60, 3, 3]


async def test_server_that_was_never_reached_is_polled_at_once() -> None:
    settings = ManagerSettings(reconcile_every_s=60)
    async with serve_sandbox() as server:
        server.apply(server="killed")
        async with server.open_manager(settings=settings) as manager:
            assert (await manager.now()).position == 0
            server.apply(server="started")

            await server.clock.sleep(1.5)

            assert (await manager.node_status()).reached


async def test_background_reconciler_survives_an_unreachable_server() -> None:
    settings = ManagerSettings(reconcile_every_s=60)
    async with serve_manager(settings=settings) as (server, manager):
        server.apply(server="killed")
        await server.clock.sleep(200)
        assert not (await manager.node_status()).reached
        server.apply(server="started")

        await server.clock.sleep(61)

        assert (await manager.node_status()).reached


async def test_models_of_a_running_command_are_skipped() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry={"rate": 1e6})
        async for progress in manager.pull("llama3.2:1b"):
            if progress.completed_bytes:
                await manager.refresh()

        assert "ModelDiscovered" not in await event_types(manager, "llama3.2:1b")
