"""Pulls and updates, against a server over HTTP: what is told, and what is recorded."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from support.manager_fixture import (
    end_of,
    herd_of,
    last_fact,
    pulled,
    recorded,
    told,
    under_way,
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
    async with herd_of("none") as (_, herd):
        await pulled(herd, BIG)

        assert await told(herd, BIG) == [
            "PullStarted",
            "PullCompleted",
            "CapabilitiesDetected",
        ]
        assert (await herd.get_status(BIG)).state is ModelState.AVAILABLE


async def test_pull_progress_never_goes_back_and_ends_with_all() -> None:
    async with herd_of("none") as (place, herd):
        place.time.stride_s = 0.5
        place.did(registry={"rate": 5e6})

        progress = await pulled(herd, BIG)

    completed = [one.completed_bytes for one in progress]
    assert completed == sorted(completed)
    assert len(completed) > 10
    assert progress[-1].percent == 100
    assert progress[-1].status == "success"


async def test_pull_progress_does_not_go_back_where_the_server_loses_bytes() -> None:
    async with herd_of("none") as (place, herd):
        place.time.stride_s = 0.5
        place.did(registry={"rate": 5e6, "reset_after": 40_000_000})
        pulling = asyncio.create_task(pulled(herd, BIG))
        await place.clock.sleep(9)
        place.did(registry={"rate": 5e6})

        progress = await pulling

    completed = [one.completed_bytes for one in progress]
    assert completed == sorted(completed)
    assert progress[-1].refetched_bytes > 0


async def test_completed_pull_has_the_servers_digest_and_size() -> None:
    async with herd_of("none") as (place, herd):
        await pulled(herd, BIG)
        (model,) = (await place.somebody("GET", "/api/tags")).json()["models"]

        completed = await last_fact(herd, facts.PullCompleted)

        assert isinstance(completed, facts.PullCompleted)
        assert (completed.digest, completed.size_bytes) == (
            model["digest"],
            model["size"],
        )
        assert completed.fetched_bytes is not None
        assert 0 < completed.fetched_bytes <= completed.size_bytes
        assert completed.duration_s == pytest.approx(place.time.now(), abs=0.01)


async def test_pulled_model_has_its_capabilities_at_once() -> None:
    async with herd_of("none") as (_, herd):
        await pulled(herd, BIG)

        status = await herd.get_status(BIG)

        assert status.can("tools")
        assert status.capabilities["tools"].source == "show"
        assert status.context_trained == 131072
        assert status.weights is not None


@pytest.mark.parametrize("rate", [1e6, 1e5])
async def test_progress_is_recorded_once_5_percent_and_10_seconds_have_passed(
    rate: float,
) -> None:
    async with herd_of("none") as (place, herd):
        place.time.stride_s = 1.0
        place.did(registry={"rate": rate})
        await pulled(herd, BIG)

        events = await recorded(herd, BIG)

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


async def test_all_who_pull_one_model_follow_one_operation() -> None:
    async with herd_of("none") as (place, herd):
        progress = await asyncio.gather(*(pulled(herd, BIG) for _ in range(3)))

        assert place.asked("/api/pull") == 1
        assert (await told(herd, BIG)).count("PullStarted") == 1
        assert {one[-1].status for one in progress} == {"success"}


async def test_follower_that_leaves_does_not_end_the_pull_of_the_others() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry=SLOW)
        staying = asyncio.create_task(pulled(herd, BIG))
        await under_way(herd, BIG)

        await staying

        assert place.asked("/api/pull") == 1
        assert (await herd.get_status(BIG)).present


async def test_last_follower_that_leaves_cancels_the_pull() -> None:
    async with herd_of("none") as (place, herd):
        place.time.stride_s = 1.0
        place.did(registry=SLOW)
        await under_way(herd, BIG, 50_000_000)

        assert (await told(herd, BIG))[-1] == "PullCancelled"
        (request,) = [one for one in place.world.seen if one.path == "/api/pull"]
        await place.until(lambda: request.ended == "closed by client")
        assert place.bytes_kept() >= 50_000_000
        assert (await herd.get_status(BIG)).state is ModelState.NOT_PRESENT


async def test_cancelled_follower_of_many_leaves_the_pull_alone() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry=SLOW)
        tasks = [asyncio.create_task(pulled(herd, BIG)) for _ in range(2)]
        await place.clock.sleep(5)
        tasks[0].cancel()

        assert (await tasks[1])[-1].status == "success"
        assert tasks[0].cancelled()


async def test_cancel_ends_the_pull_for_all_who_follow() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry=SLOW)
        tasks = [asyncio.create_task(pulled(herd, BIG)) for _ in range(2)]
        await place.clock.sleep(5)

        assert await herd.cancel(BIG)

        ends = [await end_of(task) for task in tasks]
        assert [type(end) for end in ends] == [OperationEndedError] * 2
        assert (await told(herd, BIG))[-1] == "PullCancelled"


async def test_cancelled_pull_goes_on_from_where_it_was() -> None:
    async with herd_of("none") as (place, herd):
        place.time.stride_s = 1.0
        place.did(registry=SLOW)
        await under_way(herd, BIG, 500_000_000)

        await pulled(herd, BIG)

        completed = await last_fact(herd, facts.PullCompleted)
        assert isinstance(completed, facts.PullCompleted)
        assert completed.fetched_bytes is not None
        assert completed.fetched_bytes < BIG_BYTES - 400_000_000


async def test_cancel_without_work_changes_nothing() -> None:
    async with herd_of() as (_, herd):
        before = (await herd.now()).position

        assert not await herd.cancel("plain")

        assert (await herd.now()).position == before


async def test_pulls_beyond_the_limit_wait_for_their_turn() -> None:
    settings = ManagerSettings(max_concurrent_pulls=1)
    async with herd_of("none", settings=settings) as (_, herd):
        await asyncio.gather(pulled(herd, BIG), pulled(herd, "plain"))

        pulls = [
            (event.type, event.stream.rpartition("/")[2])
            for event in await recorded(herd)
            if event.type.startswith("Pull")
        ]
        assert pulls == [
            ("PullStarted", BIG),
            ("PullCompleted", BIG),
            ("PullStarted", "plain:latest"),
            ("PullCompleted", "plain:latest"),
        ]


async def test_pull_that_waits_for_its_turn_can_be_cancelled() -> None:
    settings = ManagerSettings(max_concurrent_pulls=1)
    async with herd_of("none", settings=settings) as (place, herd):
        first = asyncio.create_task(pulled(herd, BIG))
        second = asyncio.create_task(pulled(herd, "plain"))
        await place.clock.sleep(0.5)

        assert await herd.cancel("plain")

        assert isinstance(await end_of(second), OperationEndedError)
        assert await told(herd, "plain:latest") == []
        await first


async def test_pull_without_tls_is_asked_for_and_recorded() -> None:
    name = "127.0.0.1:5055/library/plain:latest"
    async with herd_of("none") as (_, herd):
        with pytest.raises(PullError):
            await pulled(herd, name)

        await herd.ensure_available(name, insecure=True)

        started = await last_fact(herd, facts.PullStarted)
        assert isinstance(started, facts.PullStarted)
        assert started.insecure


async def test_load_or_delete_during_a_pull_is_refused_as_busy() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry=SLOW)
        pulling = asyncio.create_task(pulled(herd, BIG))
        await place.clock.sleep(5)

        for refused in (herd.load(BIG), herd.unload(BIG), herd.delete(BIG)):
            with pytest.raises(BusyError):
                await refused

        await pulling


async def test_closing_the_manager_interrupts_the_pull() -> None:
    async with herd_of("none") as (place, _):
        place.did(registry=SLOW)
        async with place.herd() as herd:
            pulling = asyncio.create_task(pulled(herd, BIG))
            await place.clock.sleep(5)
            store = herd._storage.store
            await herd._close()
            types = [event.type async for event in store.read_all()]

        assert types[-1] == "PullInterrupted"
        assert isinstance(await end_of(pulling), OperationEndedError)
