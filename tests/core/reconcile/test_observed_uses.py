"""Uses by other programs, seen in the expiry of the runners."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise

import httpx
import msgspec
import pytest
from support.manager_fixture import (
    SandboxServer,
    recorded_events,
    serve_manager,
    serve_sandbox,
)

from herdbook.core import (
    Cause,
    HistoryFilter,
    ManagerSettings,
    ModelManager,
    ModelState,
)
from herdbook.events.facts import ModelUsed
from herdbook.events.recorded import RecordedEvent

NAME = "llama3.1:8b"
PLAIN = "plain:latest"


async def used(manager: ModelManager, name: str = NAME) -> list[RecordedEvent]:
    """Refresh; return all recorded uses of a model, without those by a load."""
    await manager.refresh()
    events = await uses_and_loads(manager, name)
    return [event for event in events if not by_load(event)]


async def uses_and_loads(
    manager: ModelManager, name: str = NAME
) -> list[RecordedEvent]:
    events = await recorded_events(manager, name)
    return [event for event in events if event.type == "ModelUsed"]


def by_load(event: RecordedEvent) -> bool:
    assert isinstance(event.data, ModelUsed)
    return event.data.loaded_by_it is True


async def generate(server: SandboxServer, name: str = NAME, **body: object) -> datetime:
    """Use a model as another program would; return when that ended."""
    await server.load(name, prompt="hello", options={"num_predict": 5}, **body)
    return server.clock.now()


def uncertainty_s(event: RecordedEvent) -> float:
    assert isinstance(event.data, ModelUsed)
    assert event.data.uncertainty_s is not msgspec.UNSET
    return event.data.uncertainty_s


async def test_requests_between_two_refreshes_are_one_observed_use() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        await manager.refresh()
        began = ended = server.clock.now()
        for _ in range(10):
            ended = await generate(server)

        (event,) = await used(manager)

        assert (event.cause, event.actor) == (Cause.OBSERVED, "reconciler")
        earliest = event.occurred_at - timedelta(seconds=uncertainty_s(event))
        assert began <= earliest <= ended <= event.occurred_at <= event.recorded_at
        status = await manager.get_status(NAME)
        assert (status.last_used_at, status.last_used_by) == (event.occurred_at, None)
        assert (await manager.usage("client")).total.observed == 1


async def test_use_with_a_known_keep_alive_has_an_exact_time() -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME, keep_alive=-1)
        await manager.refresh()
        await server.clock.sleep(1000)
        ended = await generate(server)
        await server.clock.sleep(1000)

        (event,) = await used(manager)

        assert uncertainty_s(event) == 0.0
        assert abs(event.occurred_at - ended) < timedelta(milliseconds=50)


async def test_own_load_reveals_the_keep_alive() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME, keep_alive="1h")
        await server.clock.sleep(1000)
        ended = await generate(server)
        await server.clock.sleep(1000)

        (event,) = await used(manager)

        assert uncertainty_s(event) <= 1.0
        earliest = event.occurred_at - timedelta(seconds=1)
        assert earliest <= ended <= event.occurred_at


async def test_different_keep_alive_of_a_request_only_makes_the_time_uncertain() -> (
    None
):
    async with serve_manager() as (server, manager):
        await manager.load(NAME, keep_alive="1h")
        await server.clock.sleep(1000)
        ended = await generate(server, keep_alive="2h")
        await server.clock.sleep(1000)

        (event,) = await used(manager)

        assert 1900 < uncertainty_s(event) < 2100
        assert ended <= event.occurred_at


async def test_each_use_narrows_the_uncertainty_of_the_next() -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME, keep_alive="1h")
        found = [60.0]
        for wait_s in (7, 2, 9, 5):
            await manager.refresh()
            await server.clock.sleep(wait_s)
            await generate(server)
            await server.clock.sleep(10 - wait_s)
            events = await used(manager)
            found.append(uncertainty_s(events[-1]))
            await server.clock.sleep(100)

        assert found == sorted(found, reverse=True)
        assert found[-1] < 5


async def test_one_use_per_minute_is_recorded_and_the_last_one_later() -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME)
        await manager.refresh()
        counts, ended = [], server.clock.now()
        for number in range(13):
            await server.clock.sleep(number % 5)
            ended = await generate(server)
            await server.clock.sleep(9 - number % 5)
            counts.append(len(await used(manager)))
        await server.clock.sleep(60)

        events = await used(manager)

        assert counts[-1] in {2, 3}
        assert len(events) == counts[-1] + 1
        times = [event.recorded_at for event in events]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert min(gaps) >= timedelta(seconds=60)
        assert events[-1].occurred_at >= ended


async def test_ten_requests_that_also_load_the_model_are_one_observed_use() -> None:
    async with serve_manager() as (server, manager):
        await manager.refresh()
        began = ended = server.clock.now()
        for _ in range(10):
            ended = await generate(server)
        await manager.refresh()

        (event,) = await uses_and_loads(manager)

        assert by_load(event)
        assert event.cause is Cause.OBSERVED
        earliest = event.occurred_at - timedelta(seconds=uncertainty_s(event))
        assert earliest <= began <= ended <= event.occurred_at <= event.recorded_at
        assert (await manager.usage("client")).total.observed == 1
        status = await manager.get_status(NAME)
        assert (status.last_used_at, status.last_used_by) == (event.occurred_at, None)

        await server.clock.sleep(20)
        await generate(server)
        assert len(await used(manager)) == 1  # within the minute after the load
        await server.clock.sleep(20)
        await generate(server)
        assert len(await used(manager)) == 1


async def test_load_that_lasts_forever_has_an_exact_time() -> None:
    async with serve_manager() as (server, manager):
        await server.clock.sleep(60)
        ended = await generate(server, keep_alive=-1)
        await server.clock.sleep(60)
        await manager.refresh()

        (event,) = await uses_and_loads(manager)

        assert uncertainty_s(event) == 0
        assert abs(event.occurred_at - ended) < timedelta(milliseconds=200)


async def test_load_before_the_log_began_is_not_a_use() -> None:
    async with serve_sandbox() as server:
        await server.load(NAME)
        async with server.open_manager() as manager:
            assert (await manager.get_status(NAME)).state is ModelState.LOADED
            assert await uses_and_loads(manager) == []


async def test_shows_and_unloads_are_not_uses_and_a_reload_is_one() -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME)
        assert await used(manager) == []
        await server.clock.sleep(30)
        await server.request("POST", "/api/show", model=NAME)
        assert await used(manager) == []
        await server.load(NAME, options={"num_ctx": 1024})
        assert len(await used(manager)) == 1
        await server.unload(NAME)
        assert len(await used(manager)) == 1


async def test_load_that_herdbook_gave_up_is_not_a_use() -> None:
    async with serve_manager() as (server, manager):
        loading = asyncio.create_task(manager.load(NAME))
        await server.wait_until(
            lambda: any(one.path == "/api/generate" for one in server.world.seen)
        )
        loading.cancel()
        await asyncio.wait([loading])
        await server.load(NAME)  # as a server that continued to load
        await manager.refresh()

        assert (await manager.get_status(NAME)).state is ModelState.LOADED
        assert await uses_and_loads(manager) == []


async def test_own_loads_are_not_uses_for_this_and_other_managers(
    tmp_path: object,
) -> None:
    log = f"{tmp_path}/herd.db"
    async with (
        serve_sandbox() as server,
        server.open_manager(log) as one,
        server.open_manager(log) as two,
    ):
        await one.load(NAME, keep_alive="1h")
        await two.refresh()
        await server.clock.sleep(30)
        await one.load(NAME, keep_alive="2h")

        assert await used(two) == []
        assert await used(one) == []
        types = [event.type for event in await recorded_events(one, NAME)]
        assert types[-2:] == ["ModelLoaded", "KeepAliveRenewed"]


async def test_use_is_recorded_once_by_managers_on_one_log(tmp_path: object) -> None:
    log = f"{tmp_path}/herd.db"
    async with (
        serve_sandbox() as server,
        server.open_manager(log) as one,
        server.open_manager(log) as two,
    ):
        await one.load(NAME)
        await two.refresh()
        await server.clock.sleep(30)
        await generate(server)
        await used(one)
        await used(two)
        async with server.open_manager(log) as three:
            assert len(await used(three)) == 1


async def test_use_observed_by_a_later_process_is_recorded(tmp_path: object) -> None:
    log = f"{tmp_path}/herd.db"
    async with serve_sandbox() as server:
        async with server.open_manager(log) as manager:
            await manager.load(NAME)
        await server.clock.sleep(200)
        await generate(server)
        await server.clock.sleep(100)
        async with server.open_manager(log) as manager:
            (event,) = await used(manager)

        assert uncertainty_s(event) <= 1.0


async def test_reported_use_is_not_counted_twice() -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME)
        await manager.refresh()
        await server.clock.sleep(5)
        await generate(server)
        await manager.mark_used(NAME, purpose="own")
        await server.clock.sleep(1)

        assert len(await used(manager)) == 1
        await server.clock.sleep(70)
        await generate(server)
        assert len(await used(manager)) == 2


async def test_use_of_shared_weights_belongs_to_the_name_of_the_runner() -> None:
    async with serve_manager() as (server, manager):
        await server.copy(PLAIN, "twin:1")
        await server.load(PLAIN)
        await manager.refresh()
        await server.clock.sleep(20)
        await generate(server, "twin:1")

        assert await used(manager, "twin:1") == []
        assert len(await used(manager, PLAIN)) == 1


async def test_use_under_a_deleted_name_belongs_to_the_only_remaining_name() -> None:
    async with serve_manager() as (server, manager):
        await server.copy(NAME, "twin:1")
        await server.load(NAME)
        await server.delete(NAME)
        await manager.refresh()
        await server.clock.sleep(20)
        await generate(server, "twin:1")

        assert len(await used(manager, "twin:1")) == 1


async def test_long_first_request_is_observed_at_its_start_and_end() -> None:
    async with serve_manager() as (server, manager):
        request = server.load(NAME, prompt="x", options={"num_predict": 20_000})
        running = asyncio.ensure_future(request)
        await server.wait_until(lambda: bool(server.world.runners.listed()))
        counts = []
        while not running.done():
            counts.append(len(await used(manager)))
            await server.clock.sleep(10)
        await running

        events = await used(manager)

        assert len(counts) > 10
        assert counts == [0, *[1] * (len(counts) - 1)]
        assert len(events) == 2


async def test_request_longer_than_its_keep_alive_is_not_an_ended_use() -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME, keep_alive="5s")
        await manager.refresh()
        request = server.load(NAME, prompt="x", options={"num_predict": 4000})
        running = asyncio.ensure_future(request)
        await server.clock.sleep(15)
        assert await used(manager) == []
        await running
        assert len(await used(manager)) == 1


@pytest.mark.parametrize("keep_alive", [-1, "1h"])
async def test_restart_with_a_load_is_not_a_use(keep_alive: int | str) -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME, keep_alive=keep_alive)
        await manager.refresh()
        server.apply(server="stopped")
        with pytest.raises(Exception, match="reached"):
            await manager.refresh()
        server.apply(server="started")
        await server.load(NAME, keep_alive=keep_alive)

        assert await used(manager) == []
        assert await used(manager) == []


async def test_background_refreshes_observe_uses() -> None:
    settings = ManagerSettings(reconcile_every_s=10)
    async with serve_manager(settings=settings) as (server, manager):
        await server.load(NAME)
        await server.clock.sleep(25)
        ended = await generate(server)
        await server.clock.sleep(25)

        events = await recorded_events(manager, NAME)

        uses = [event for event in events if event.type == "ModelUsed"]
        (event,) = (one for one in uses if not by_load(one))
        assert len(uses) == 2
        assert uncertainty_s(event) <= 10.5
        assert ended <= event.occurred_at


@pytest.mark.parametrize(
    ("keep_alive", "wait_s", "text"),
    [
        (-1, 0, ""),
        (-1, 300, ", 5 min before this was recorded"),
        ("5m", 90, ", 90 s to 91 s before this was recorded"),
    ],
)
async def test_sentence_has_the_time_between_a_use_and_its_event(
    keep_alive: int | str, wait_s: float, text: str
) -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME, keep_alive=keep_alive)
        await manager.refresh()
        await server.clock.sleep(20)
        await generate(server)
        await server.clock.sleep(wait_s)
        await manager.refresh()

        chosen = HistoryFilter(types=frozenset({"ModelUsed"}))
        loaded, entry = await manager.history(NAME, chosen)
        assert loaded.sentence.startswith("used by another program, which loaded it")
        assert entry.sentence == f"used by another program{text}"


async def test_restart_between_two_refreshes_is_not_a_use() -> None:
    async with serve_manager() as (server, manager):
        await server.load(NAME)
        await manager.refresh()
        await server.clock.sleep(30)
        server.apply(server="stopped")
        server.apply(server="started")
        with suppress(httpx.TransportError):  # on a connection of before
            await server.request("GET", "/api/version")
        await server.load(NAME)

        assert await used(manager) == []
        await server.clock.sleep(30)
        assert await used(manager) == []
        await generate(server)
        assert len(await used(manager)) == 1
