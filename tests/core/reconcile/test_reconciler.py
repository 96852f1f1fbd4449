"""What others did behind Herdbook's back, after exactly one look at the server."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.manager_fixture import Place, herd_of, recorded, served, told

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
from herdbook.events import facts
from herdbook.events.facts import Fact
from herdbook.events.recorded import RecordedEvent

NAME = "llava:7b"
PLAIN = "plain:latest"


async def drift(herd: ModelManager) -> list[RecordedEvent]:
    """Look once, and return what that recorded."""
    before = (await herd.now()).position
    await herd.refresh()
    return await recorded(herd, after=before)


def seen(events: list[RecordedEvent]) -> list[tuple[str, str, Cause]]:
    return [(e.stream.rpartition("/")[2], e.type, e.cause) for e in events]


async def only(herd: ModelManager) -> Fact:
    """Look once, and return the one fact that this recorded."""
    (event,) = await drift(herd)
    return event.data


async def test_first_look_discovers_every_model_with_its_abilities() -> None:
    async with served() as place, place.herd(look=False) as herd:
        assert await herd.all_statuses() == []

        events = await drift(herd)

        assert len(await herd.all_statuses()) == 9
        assert [e.type for e in events[1:3]] == [
            "ModelDiscovered",
            "CapabilitiesDetected",
        ]
        assert {e.actor for e in events} == {"reconciler"}
        assert {e.cause for e in events} == {Cause.OBSERVED}
        assert len({e.correlation_id for e in events}) == 1


async def test_look_that_finds_nothing_new_records_nothing() -> None:
    async with herd_of() as (place, herd):
        await herd.load(NAME)
        shown = place.asked("/api/show")

        assert await drift(herd) == []

        assert place.asked("/api/show") == shown


async def test_model_that_somebody_deleted_has_vanished() -> None:
    async with herd_of() as (place, herd):
        await place.deletes(NAME)

        assert seen(await drift(herd)) == [(NAME, "ModelVanished", Cause.OBSERVED)]
        assert not await herd.is_available(NAME)


async def test_loaded_model_that_somebody_deleted_has_vanished() -> None:
    async with herd_of() as (place, herd):
        await herd.load(NAME)
        await place.deletes(NAME)

        assert seen(await drift(herd)) == [(NAME, "ModelVanished", Cause.OBSERVED)]


async def test_model_that_somebody_pulled_is_discovered() -> None:
    async with herd_of() as (place, herd):
        await place.pulls("smollm2:135m")

        assert seen(await drift(herd)) == [
            ("smollm2:135m", "ModelDiscovered", Cause.OBSERVED),
            ("smollm2:135m", "CapabilitiesDetected", Cause.OBSERVED),
        ]
        assert await herd.is_available("smollm2:135m")


async def test_model_that_came_back_is_discovered_again() -> None:
    async with herd_of() as (place, herd):
        await place.deletes(NAME)
        await drift(herd)
        await place.pulls(NAME)

        events = await drift(herd)

        assert events[0].type == "ModelDiscovered"
        assert (await herd.get_status(NAME)).state is ModelState.AVAILABLE


async def test_model_that_somebody_loaded_is_loaded() -> None:
    async with herd_of() as (place, herd):
        await place.loads(NAME)

        fact = await only(herd)

        assert isinstance(fact, facts.ModelLoaded)
        assert (fact.runner.name, fact.duration_s) == (NAME, None)


async def test_names_that_share_a_runner_are_loaded_with_the_cause_shared() -> None:
    async with herd_of() as (place, herd):
        await place.loads(PLAIN)

        events = await drift(herd)

        assert {e.type for e in events} == {"ModelLoaded"}
        causes = {name: cause for name, _, cause in seen(events)}
        assert causes == {
            PLAIN: Cause.OBSERVED,
            "llama3.2:1b": Cause.SHARED,
            "update-me:latest": Cause.SHARED,
            "update-me:v2": Cause.SHARED,
        }


async def test_copy_of_a_loaded_model_is_discovered_loaded() -> None:
    async with herd_of() as (place, herd):
        await herd.load(NAME)
        await place.copies(NAME, "twin")

        events = await drift(herd)

        assert seen(events) == [
            ("twin:latest", "ModelDiscovered", Cause.OBSERVED),
            ("twin:latest", "CapabilitiesDetected", Cause.OBSERVED),
            ("twin:latest", "ModelLoaded", Cause.SHARED),
        ]


async def test_name_that_somebody_gave_to_other_weights_is_updated() -> None:
    async with herd_of() as (place, herd):
        before = await herd.get_status(NAME)
        await place.copies(PLAIN, NAME)

        updated, detected = await drift(herd)

        assert isinstance(updated.data, facts.ModelUpdated)
        assert updated.data.previous_digest == before.digest
        assert updated.cause is Cause.OBSERVED
        assert isinstance(detected.data, facts.CapabilitiesDetected)
        assert not (await herd.get_status(NAME)).can("vision")


async def test_loaded_model_that_somebody_replaced_keeps_its_runner() -> None:
    async with herd_of() as (place, herd):
        await herd.load("update-me")
        await place.copies("update-me:v2", "update-me")

        updated, *_ = [e for e in await drift(herd) if e.type != "CapabilitiesDetected"]

        assert updated.type == "ModelUpdated"
        status = await herd.get_status("update-me")
        assert status.state is ModelState.LOADED
        assert status.runner is not None
        assert status.runner.digest != status.digest


async def test_loaded_name_that_got_other_weights_is_unloaded_as_replaced() -> None:
    async with herd_of() as (place, herd):
        await herd.load(NAME)
        await place.copies(NAME, "twin")
        await herd.refresh()
        await place.copies("llama3.1:8b", NAME)

        events = await drift(herd)

        gone = [e.data for e in events if isinstance(e.data, facts.ModelUnloaded)]
        assert gone == [facts.ModelUnloaded(reason=UnloadReason.MODEL_REPLACED)]
        assert (await herd.get_status("twin")).state is ModelState.LOADED


async def test_model_that_somebody_unloaded_is_unloaded_on_request() -> None:
    async with herd_of() as (place, herd):
        await herd.load(NAME)
        await place.unloads(NAME)

        (event,) = await drift(herd)

        assert event.data == facts.ModelUnloaded(reason=UnloadReason.REQUESTED)
        assert event.cause is Cause.OBSERVED


async def test_runner_whose_time_was_over_has_expired() -> None:
    async with herd_of() as (place, herd):
        await herd.load(NAME)
        place.time.advance(3600)

        (event,) = await drift(herd)

        assert event.data == facts.ModelUnloaded(reason=UnloadReason.EXPIRED)
        assert event.cause is Cause.EXPIRY


async def test_runner_that_was_used_meanwhile_expires_by_its_newest_time() -> None:
    async with herd_of() as (place, herd):
        await herd.load(NAME)
        place.time.advance(200)
        await place.loads(NAME)
        assert await drift(herd) == []
        place.time.advance(250)
        await place.unloads(NAME)

        assert await only(herd) == facts.ModelUnloaded(reason=UnloadReason.REQUESTED)


async def test_runner_that_another_load_pushed_out_was_evicted() -> None:
    one_place = sandbox.Settings(max_loaded=1)
    async with herd_of(server=one_place) as (place, herd):
        await herd.load(NAME)
        await place.loads("llama3.1:8b")

        loaded, evicted = await drift(herd)

        assert loaded.type == "ModelLoaded"
        assert evicted.data == facts.ModelUnloaded(
            reason=UnloadReason.EVICTED, evicted_by="llama3.1:8b"
        )
        assert evicted.cause is Cause.EVICTION


async def test_runner_with_another_context_is_recorded_as_changed() -> None:
    async with herd_of() as (place, herd):
        await herd.load(NAME)
        await place.loads(NAME, options={"num_ctx": 512})

        fact = await only(herd)

        assert isinstance(fact, facts.RunnerChanged)
        assert fact.runner.context_length == 512


async def test_runners_that_went_together_are_gone_with_a_restart() -> None:
    async with herd_of() as (place, herd):
        await herd.load(NAME)
        await herd.load("llama3.1:8b")
        place.did(server="killed")
        place.did(server="started")

        events = await drift(herd)

        gone = facts.ModelUnloaded(reason=UnloadReason.SERVER_RESTARTED)
        assert [e.data for e in events] == [gone, gone]
        assert {e.cause for e in events} == {Cause.RESTART}


async def test_node_that_is_away_is_recorded_as_lost_once() -> None:
    async with herd_of() as (place, herd):
        place.did(server="killed")
        before = (await herd.now()).position

        for _ in range(2):
            with pytest.raises(NodeUnreachableError):
                await herd.refresh()

        (event,) = await recorded(herd, after=before)
        assert isinstance(event.data, facts.NodeLost)
        assert event.data.kind == "node_unreachable"
        assert not (await herd.node_status()).reached


async def test_models_of_a_lost_node_are_stale_since_then() -> None:
    async with herd_of() as (place, herd):
        place.time.advance(60)
        await away(place, herd)

        status = await herd.get_status(NAME)

        assert status.stale_since == place.clock.now()
        assert status.state is ModelState.AVAILABLE


async def test_node_that_is_back_is_reached_and_nothing_is_stale() -> None:
    async with herd_of() as (place, herd):
        await herd.load(NAME)
        await away(place, herd)
        place.did(server="started")

        reached, unloaded = await drift(herd)

        assert isinstance(reached.data, facts.NodeReached)
        assert reached.data.url == place.url
        assert unloaded.data == facts.ModelUnloaded(
            reason=UnloadReason.SERVER_RESTARTED
        )
        assert (await herd.get_status(NAME)).stale_since is None


async def away(place: Place, herd: ModelManager) -> None:
    place.did(server="killed")
    with pytest.raises(OllamaError):
        await herd.refresh()


async def test_node_with_another_version_is_reached_anew() -> None:
    async with herd_of() as (place, herd):
        place.world.profile = sandbox.Profile(version="9.9.9")

        fact = await only(herd)

        assert fact == facts.NodeReached(version="9.9.9", url=place.url)


async def test_server_that_is_away_at_the_start_is_no_error() -> None:
    async with served() as place:
        place.did(server="killed")
        async with place.herd() as herd:
            assert not (await herd.node_status()).reached
            assert await herd.all_statuses() == []
            place.did(server="started")

            await herd.refresh()

            assert len(await herd.all_statuses()) == 9


async def test_server_that_does_not_answer_in_time_is_lost() -> None:
    settings = ManagerSettings(refresh_timeout_s=3)
    async with herd_of(settings=settings) as (place, herd):
        place.did(answer={"path": "/api/tags", "hang": True})
        before = place.time.now()

        with pytest.raises(NodeTimeoutError):
            await herd.refresh()

        assert place.time.now() - before == pytest.approx(3)
        assert (await recorded(herd))[-1].type == "NodeLost"


async def test_model_that_cannot_be_shown_has_what_the_list_says() -> None:
    async with served() as place:
        said = {"path": "/api/show", "status": 500, "body": '{"error":"torn"}'}
        place.did(answer={**said, "times": 9})
        async with place.herd() as herd:
            status = await herd.get_status("llama3.2:1b")

            assert status.can("tools")
            assert status.capabilities["tools"].source == "tags"


async def test_background_reconciler_records_what_changed_meanwhile() -> None:
    settings = ManagerSettings(reconcile_every_s=60)
    async with herd_of(settings=settings) as (place, herd):
        await place.deletes(NAME)

        await place.clock.sleep(61)

        assert (await told(herd, NAME))[-1] == "ModelVanished"


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
) -> AsyncIterator[tuple[Place, ModelManager, LookTimes]]:
    times = LookTimes()
    async with served() as place:
        times.clock = place.clock
        opened = ModelManager.open(
            ":memory:",
            ollama=place.url,
            clock=place.clock,
            settings=settings,
            observer=times,
        )
        async with opened as herd:
            yield place, herd, times


async def test_lost_server_is_looked_at_soon_then_ever_less_often() -> None:
    settings = ManagerSettings(reconcile_every_s=60)
    async with watched(settings) as (place, herd, times):
        place.did(server="killed")
        await place.clock.sleep(60 + 1 + 2 + 4 + 8 + 16 + 30 + 30 + 1)

        assert times.waits() == [60, 1, 2, 4, 8, 16, 30, 30]
        nodes = [e.type for e in await recorded(herd, "local")]
        assert nodes == ["NodeReached", "NodeLost"]


async def test_server_that_comes_back_is_seen_at_the_next_look() -> None:
    settings = ManagerSettings(reconcile_every_s=60, lost_wait_s=2, lost_wait_max_s=5)
    async with watched(settings) as (place, herd, times):
        place.did(server="killed")
        await place.clock.sleep(60 + 2 + 4 + 5 + 1)
        assert not (await herd.node_status()).reached
        place.did(server="started")

        await place.clock.sleep(5)
        assert (await herd.node_status()).reached

        await place.clock.sleep(60)
        assert times.waits() == [60, 2, 4, 5, 5, 60]
        place.did(server="killed")
        await place.clock.sleep(60 + 2)
        assert times.waits()[6:] == [60, 2]
        nodes = [e.type for e in await recorded(herd, "local")]
        assert nodes == ["NodeReached", "NodeLost", "NodeReached", "NodeLost"]


async def test_first_wait_for_a_lost_server_is_not_longer_than_the_longest() -> None:
    settings = ManagerSettings(reconcile_every_s=60, lost_wait_s=9, lost_wait_max_s=3)
    async with watched(settings) as (place, _, times):
        place.did(server="killed")
        await place.clock.sleep(60 + 3 + 3 + 1)

        assert times.waits() == [60, 3, 3]


async def test_server_that_was_never_seen_is_looked_for_at_once() -> None:
    settings = ManagerSettings(reconcile_every_s=60)
    async with served() as place:
        place.did(server="killed")
        async with place.herd(settings=settings) as herd:
            assert (await herd.now()).position == 0
            place.did(server="started")

            await place.clock.sleep(1.5)

            assert (await herd.node_status()).reached


async def test_background_reconciler_outlives_a_server_that_is_away() -> None:
    settings = ManagerSettings(reconcile_every_s=60)
    async with herd_of(settings=settings) as (place, herd):
        place.did(server="killed")
        await place.clock.sleep(200)
        assert not (await herd.node_status()).reached
        place.did(server="started")

        await place.clock.sleep(61)

        assert (await herd.node_status()).reached


async def test_what_a_command_is_at_work_on_is_left_to_it() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry={"rate": 1e6})
        async for progress in herd.pull("llama3.2:1b"):
            if progress.completed_bytes:
                await herd.refresh()

        assert "ModelDiscovered" not in await told(herd, "llama3.2:1b")
