"""Pulls and updates against a server over HTTP: results and recorded events."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from support.manager_fixture import (
    error_of,
    event_types,
    last_fact,
    pull_to_end,
    recorded_events,
    serve_manager,
    start_pull,
)

from herdbook.core import (
    BusyError,
    ManagerSettings,
    ModelState,
    OperationEndedError,
    PullError,
)
from herdbook.events import facts

BIG = "llama3.2:1b"
BIG_BYTES = 1_321_084_213
SLOW = {"rate": 1e6}


async def test_pull_is_recorded_from_start_to_detection() -> None:
    async with serve_manager("none") as (_, manager):
        await pull_to_end(manager, BIG)

        assert await event_types(manager, BIG) == [
            "PullStarted",
            "PullCompleted",
            "CapabilitiesDetected",
        ]
        assert (await manager.get_status(BIG)).state is ModelState.AVAILABLE


async def test_model_that_the_server_cannot_show_is_pulled() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(answer={"path": "/api/show", "times": 0, "status": 500})

        await pull_to_end(manager, BIG)

        status = await manager.get_status(BIG)
        assert (status.state, status.weights) == (ModelState.AVAILABLE, None)


async def test_pull_progress_never_decreases_and_ends_complete() -> None:
    async with serve_manager("none") as (server, manager):
        server.time.stride_s = 0.5
        server.apply(registry={"rate": 5e6})

        progress = await pull_to_end(manager, BIG)

    completed = [one.completed_bytes for one in progress]
    assert completed == sorted(completed)
    assert len(completed) > 10
    assert progress[-1].percent == 100
    assert progress[-1].status == "success"


async def test_pull_progress_does_not_decrease_if_the_server_loses_bytes() -> None:
    async with serve_manager("none") as (server, manager):
        server.time.stride_s = 0.5
        server.apply(registry={"rate": 5e6, "reset_after": 40_000_000})
        pulling = asyncio.create_task(pull_to_end(manager, BIG))
        await server.clock.sleep(9)
        server.apply(registry={"rate": 5e6})

        progress = await pulling

    completed = [one.completed_bytes for one in progress]
    assert completed == sorted(completed)
    assert progress[-1].refetched_bytes > 0


async def test_completed_pull_has_the_servers_digest_and_size() -> None:
    async with serve_manager("none") as (server, manager):
        await pull_to_end(manager, BIG)
        (model,) = (await server.request("GET", "/api/tags")).json()["models"]

        completed = await last_fact(manager, facts.PullCompleted)

        assert isinstance(completed, facts.PullCompleted)
        assert (completed.digest, completed.size_bytes) == (
            model["digest"],
            model["size"],
        )
        assert completed.fetched_bytes is not None
        assert 0 < completed.fetched_bytes <= completed.size_bytes
        assert completed.duration_s == pytest.approx(server.time.now(), abs=0.01)


async def test_pulled_model_has_its_capabilities_at_once() -> None:
    async with serve_manager("none") as (_, manager):
        await pull_to_end(manager, BIG)

        status = await manager.get_status(BIG)

        assert status.can("tools")
        assert status.capabilities["tools"].source == "show"
        assert status.context_trained == 131072
        assert status.weights is not None


@pytest.mark.parametrize("rate", [1e6, 1e5])
async def test_progress_is_recorded_after_5_percent_and_10_seconds(
    rate: float,
) -> None:
    async with serve_manager("none") as (server, manager):
        server.time.stride_s = 1.0
        server.apply(registry={"rate": rate})
        await pull_to_end(manager, BIG)

        events = await recorded_events(manager, BIG)

    steps = [e for e in events if isinstance(e.data, facts.PullProgressed)]
    began = events[0].occurred_at
    times = [0.0, *((e.occurred_at - began).total_seconds() for e in steps)]
    shares = [0.0, *(share_of(e.data) for e in steps)]
    assert len(steps) >= 8
    assert min(b - a for a, b in pairwise(times)) > 9.999
    assert min(b - a for a, b in pairwise(shares)) >= 0.05


def share_of(fact: facts.Fact) -> float:
    assert isinstance(fact, facts.PullProgressed)
    assert fact.total_bytes
    return fact.completed_bytes / fact.total_bytes


async def test_all_callers_that_pull_one_model_follow_one_operation() -> None:
    async with serve_manager("none") as (server, manager):
        progress = await asyncio.gather(*(pull_to_end(manager, BIG) for _ in range(3)))

        assert server.request_count("/api/pull") == 1
        assert (await event_types(manager, BIG)).count("PullStarted") == 1
        assert {one[-1].status for one in progress} == {"success"}


async def test_leaving_follower_does_not_end_the_pull_of_the_others() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry=SLOW)
        staying = asyncio.create_task(pull_to_end(manager, BIG))
        await start_pull(manager, BIG)

        await staying

        assert server.request_count("/api/pull") == 1
        assert (await manager.get_status(BIG)).present


async def test_last_follower_that_leaves_cancels_the_pull() -> None:
    async with serve_manager("none") as (server, manager):
        server.time.stride_s = 1.0
        server.apply(registry=SLOW)
        await start_pull(manager, BIG, 50_000_000)

        assert (await event_types(manager, BIG))[-1] == "PullCancelled"
        (request,) = [one for one in server.world.seen if one.path == "/api/pull"]
        await server.wait_until(lambda: request.ended == "closed by client")
        assert server.partial_bytes() >= 50_000_000
        assert (await manager.get_status(BIG)).state is ModelState.NOT_PRESENT


async def test_one_cancelled_follower_of_many_does_not_end_the_pull() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry=SLOW)
        tasks = [asyncio.create_task(pull_to_end(manager, BIG)) for _ in range(2)]
        await server.clock.sleep(5)
        tasks[0].cancel()

        assert (await tasks[1])[-1].status == "success"
        assert tasks[0].cancelled()


async def test_cancel_ends_the_pull_for_all_who_follow() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry=SLOW)
        tasks = [asyncio.create_task(pull_to_end(manager, BIG)) for _ in range(2)]
        await server.clock.sleep(5)

        assert await manager.cancel(BIG)

        ends = [await error_of(task) for task in tasks]
        assert [type(end) for end in ends] == [OperationEndedError] * 2
        assert (await event_types(manager, BIG))[-1] == "PullCancelled"


async def test_cancelled_pull_resumes_where_it_stopped() -> None:
    async with serve_manager("none") as (server, manager):
        server.time.stride_s = 1.0
        server.apply(registry=SLOW)
        await start_pull(manager, BIG, 500_000_000)

        await pull_to_end(manager, BIG)

        completed = await last_fact(manager, facts.PullCompleted)
        assert isinstance(completed, facts.PullCompleted)
        assert completed.fetched_bytes is not None
        assert completed.fetched_bytes < BIG_BYTES - 400_000_000


async def test_cancel_without_work_changes_nothing() -> None:
    async with serve_manager() as (_, manager):
        before = (await manager.now()).position

        assert not await manager.cancel("plain")

        assert (await manager.now()).position == before


async def test_pulls_beyond_the_limit_wait_for_their_turn() -> None:
    settings = ManagerSettings(max_concurrent_pulls=1)
    async with serve_manager("none", settings=settings) as (server, manager):
        await asyncio.gather(pull_to_end(manager, BIG), pull_to_end(manager, "plain"))

        pulls = [
            (event.type, event.stream.rpartition("/")[2])
            for event in await recorded_events(manager)
            if event.type.startswith("Pull")
        ]
        assert pulls == [
            ("PullStarted", BIG),
            ("PullStarted", "plain:latest"),  # seen by all, but it waits
            ("PullCompleted", BIG),
            ("PullCompleted", "plain:latest"),
        ]
        first, second = (s.at for s in server.world.seen if s.path == "/api/pull")
        completed = await recorded_events(manager, BIG)
        assert isinstance(completed[1].data, facts.PullCompleted)
        took_s = completed[1].data.duration_s
        assert took_s is not None
        assert second - first > took_s - 0.001  # it is rounded


async def test_waiting_pull_can_be_cancelled() -> None:
    settings = ManagerSettings(max_concurrent_pulls=1)
    async with serve_manager("none", settings=settings) as (server, manager):
        first = asyncio.create_task(pull_to_end(manager, BIG))
        second = asyncio.create_task(pull_to_end(manager, "plain"))
        await server.clock.sleep(0.5)

        assert await manager.cancel("plain")

        assert isinstance(await error_of(second), OperationEndedError)
        assert await event_types(manager, "plain:latest") == [
            "PullStarted",
            "PullCancelled",
        ]
        await first
        assert server.request_count("/api/pull") == 1


async def test_insecure_pull_is_requested_and_recorded() -> None:
    name = "127.0.0.1:5055/library/plain:latest"
    async with serve_manager("none") as (_, manager):
        with pytest.raises(PullError):
            await pull_to_end(manager, name)

        await manager.ensure_available(name, insecure=True)

        started = await last_fact(manager, facts.PullStarted)
        assert isinstance(started, facts.PullStarted)
        assert started.insecure


async def test_load_or_delete_during_a_pull_is_refused_as_busy() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry=SLOW)
        pulling = asyncio.create_task(pull_to_end(manager, BIG))
        await server.clock.sleep(5)

        for refused in (manager.load(BIG), manager.unload(BIG), manager.delete(BIG)):
            with pytest.raises(BusyError):
                await refused

        await pulling


async def test_closing_the_manager_interrupts_the_pull() -> None:
    async with serve_manager("none") as (server, _):
        server.apply(registry=SLOW)
        async with server.open_manager() as manager:
            pulling = asyncio.create_task(pull_to_end(manager, BIG))
            await server.clock.sleep(5)
            store = manager._storage.store
            await manager._close()
            types = [event.type async for event in store.read_all()]

        assert types[-1] == "PullInterrupted"
        assert isinstance(await error_of(pulling), OperationEndedError)
