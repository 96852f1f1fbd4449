"""Pulls and updates, against a server over HTTP: what is told, and what is recorded."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest
from herd import herd_of, last_fact, pulled, recorded, told

from herdbook import sandbox
from herdbook.core import (
    BusyError,
    DigestMismatchError,
    ManagerSettings,
    ModelManager,
    ModelState,
    NodeUnreachableError,
    OllamaError,
    OperationEndedError,
    PullCancelledError,
    PullCutError,
    PullError,
    StalledError,
)
from herdbook.events import facts
from herdbook.events.lifecycle import Activity

BIG = "llama3.2:1b"
BIG_BYTES = 1_321_084_213
SLOW = {"rate": 1e6}


async def under_way(herd: ModelManager, name: str, completed: int = 1) -> None:
    """Follow a pull until so many bytes are there, then go on without it."""
    async with aclosing(herd.pull(name)) as progress:
        async for one in progress:
            if one.completed_bytes >= completed:
                return


async def end_of(task: asyncio.Task[Any]) -> BaseException | None:
    """Return what a task ended with."""
    await asyncio.wait([task])
    return task.exception()


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


PULL: dict[str, Any] = {"path": "/api/pull", "status": 200}
FAILURES: dict[str, tuple[str, dict[str, Any]]] = {
    "authentication": (BIG, {"registry": {"manifest_status": 401}}),
    "rate_limit": (BIG, {"registry": {"manifest_status": 429}}),
    "server_too_old": (BIG, {"registry": {"manifest_status": 412}}),
    "registry_failed": (BIG, {"registry": {"manifest_status": 500}}),
    "not_in_registry": ("nobody:1b", {}),
    "registry_unreachable": (BIG, {"registry": {"unreachable": "i/o timeout"}}),
    "digest_mismatch": (BIG, {"registry": {"corrupt": True}}),
    "disk_full": (BIG, {"disk_bytes": 500_000_000}),
    "stalled": (BIG, {"registry": {"stall_after": 0}}),
    "node_unreachable": (BIG, {"server": "killed"}),
    "pull_cut": (BIG, {"answer": {"path": "/api/pull", "after_lines": 1, "cut": True}}),
    "bad_answer": (
        BIG,
        {"answer": {"path": "/api/pull", "status": 200, "body": "{\n"}},
    ),
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_failed_pull_is_recorded_with_its_kind(kind: str) -> None:
    name, step = FAILURES[kind]
    async with herd_of("none") as (place, herd):
        place.did(**step)

        with pytest.raises(OllamaError) as failure:
            await pulled(herd, name)

        assert failure.value.kind == kind
        assert (await told(herd, name))[0] == "PullStarted"
        failed = await last_fact(herd, facts.PullFailed)
        assert isinstance(failed, facts.PullFailed)
        assert (failed.kind, failed.message) == (kind, str(failure.value))
        assert (await herd.get_status(name)).state is ModelState.ERROR


async def test_failed_pull_says_how_far_it_was() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry={"corrupt": True})
        with pytest.raises(DigestMismatchError):
            await pulled(herd, BIG)

        failed = await last_fact(herd, facts.PullFailed)

        assert isinstance(failed, facts.PullFailed)
        assert failed.completed_bytes == failed.total_bytes
        assert failed.total_bytes is not None


async def test_pull_that_the_servers_death_cut_goes_on_once_it_is_back() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry=SLOW)
        pulling = asyncio.create_task(pulled(herd, BIG))
        await place.clock.sleep(30)
        place.did(server="stopped")
        assert isinstance(await end_of(pulling), PullCutError)
        place.did(server="started")

        await pulled(herd, BIG)

        completed = await last_fact(herd, facts.PullCompleted)
        assert isinstance(completed, facts.PullCompleted)
        assert completed.fetched_bytes is not None
        assert completed.fetched_bytes < BIG_BYTES - 300_000_000


async def test_pull_after_a_failure_succeeds_and_clears_it() -> None:
    async with herd_of("none") as (place, herd):
        place.did(disk_bytes=500_000_000)
        with pytest.raises(PullError):
            await pulled(herd, BIG)
        place.did(disk_bytes=None)

        await pulled(herd, BIG)

        status = await herd.get_status(BIG)
        assert (status.state, status.last_failure) == (ModelState.AVAILABLE, None)


async def test_stall_is_cancelled_before_30_seconds_and_keeps_its_bytes() -> None:
    async with herd_of("none") as (place, herd):
        place.time.stride_s = 1.0
        place.did(registry={"rate": 5e6, "stall_after": 40_000_000})
        pulling = asyncio.create_task(pulled(herd, BIG))
        await place.clock.sleep(29.9)
        assert place.asked("/api/pull") == 2
        progress = await pulling

    assert place.asked("/api/pull") == 3
    assert progress[-1].refetched_bytes == 0
    assert progress[-1].percent == 100


async def test_stalls_without_a_byte_in_between_fail_after_some_attempts() -> None:
    settings = ManagerSettings(stalls=2, stall_after_s=20)
    async with herd_of("none", settings=settings) as (place, herd):
        place.did(registry={"stall_after": 0})

        with pytest.raises(StalledError):
            await pulled(herd, BIG)

        assert place.asked("/api/pull") == 3
        assert await told(herd, BIG) == ["PullStarted", "PullFailed"]


async def test_connection_that_falls_silent_is_a_stall_too() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry=SLOW, answer=PULL | {"after_lines": 4, "hang": True})
        place.time.stride_s = 1.0

        progress = await pulled(herd, BIG)

        assert progress[-1].status == "success"
        assert place.asked("/api/pull") == 2
        completed = await last_fact(herd, facts.PullCompleted)
        assert isinstance(completed, facts.PullCompleted)
        assert completed.duration_s is not None
        assert completed.duration_s < 140


async def test_slow_answer_about_the_manifest_is_no_stall() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry={"latency_s": 300})
        pulling = asyncio.create_task(pulled(herd, "plain"))
        await place.clock.sleep(299)
        place.did(registry={})  # the layers come at once

        await pulling

        assert place.asked("/api/pull") == 1


async def test_slow_check_of_a_big_layer_is_no_stall() -> None:
    slow_disk = sandbox.Settings(verify_rate=1e6)
    async with herd_of("none", server=slow_disk) as (place, herd):
        await pulled(herd, BIG)

        assert place.asked("/api/pull") == 1
        assert place.time.now() > 1000


async def test_server_that_never_answers_a_pull_fails_after_its_time() -> None:
    settings = ManagerSettings(silent_within_s=600, stalls=0)
    async with herd_of("none", settings=settings) as (place, herd):
        place.did(answer=PULL | {"hang": True})

        with pytest.raises(StalledError, match="for 600 s"):
            await pulled(herd, BIG)

        assert place.time.now() == pytest.approx(600, abs=1)


async def test_stale_cancel_of_the_server_is_tried_once_more() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry=SLOW, cancel_lag_s=0.003)
        await under_way(herd, BIG)

        await pulled(herd, BIG)

        assert place.asked("/api/pull") == 3
        assert (await told(herd, BIG))[:2] == ["PullStarted", "PullCancelled"]
        assert (await herd.get_status(BIG)).present


async def test_second_stale_cancel_is_a_failure() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry=SLOW, cancel_lag_s=60)
        await under_way(herd, BIG)

        with pytest.raises(PullCancelledError):
            await pulled(herd, BIG)

        failed = await last_fact(herd, facts.PullFailed)
        assert isinstance(failed, facts.PullFailed)
        assert failed.kind == "pull_cancelled"


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
    settings = ManagerSettings(pulls_at_once=1)
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
    settings = ManagerSettings(pulls_at_once=1)
    async with herd_of("none", settings=settings) as (place, herd):
        first = asyncio.create_task(pulled(herd, BIG))
        second = asyncio.create_task(pulled(herd, "plain"))
        await place.clock.sleep(0.5)

        assert await herd.cancel("plain")

        assert isinstance(await end_of(second), OperationEndedError)
        assert await told(herd, "plain:latest") == []
        await first


async def test_unchanged_update_is_recorded_as_such() -> None:
    async with herd_of() as (_, herd):
        await pulled(herd, "plain")

        assert (await told(herd, "plain:latest"))[-2:] == [
            "UpdateStarted",
            "UpdateUnchanged",
        ]
        unchanged = await last_fact(herd, facts.UpdateUnchanged)
        status = await herd.get_status("plain")
        assert isinstance(unchanged, facts.UpdateUnchanged)
        assert unchanged.digest == status.digest
        assert not status.updating


async def test_update_to_another_digest_is_recorded_with_both() -> None:
    async with herd_of() as (place, herd):
        before = await herd.get_status("update-me")
        alias = {"library/update-me:latest": "library/update-me:v2"}
        place.did(registry={"alias": alias})
        await pulled(herd, "update-me")

        updated = await last_fact(herd, facts.ModelUpdated)

        assert isinstance(updated, facts.ModelUpdated)
        assert updated.previous_digest == before.digest
        status = await herd.get_status("update-me")
        assert status.digest == updated.digest != before.digest
        assert status.detected_digest == status.digest


async def test_update_of_a_loaded_model_leaves_it_loaded_meanwhile() -> None:
    async with herd_of() as (place, herd):
        await herd.load("plain", keep_alive=-1)
        place.time.stride_s = 1.0
        alias = {"library/plain:latest": f"library/{BIG}"}
        place.did(registry={"alias": alias, **SLOW})
        pulling = asyncio.create_task(pulled(herd, "plain"))
        await place.clock.sleep(30)

        status = await herd.get_status("plain")

        assert (status.state, status.activity) == (ModelState.LOADED, Activity.UPDATE)
        await pulling
        assert "UpdateProgressed" in await told(herd, "plain:latest")


async def test_failed_update_leaves_the_model_as_it_was() -> None:
    async with herd_of() as (place, herd):
        place.did(registry={"manifest_status": 500})
        with pytest.raises(PullError):
            await pulled(herd, "plain")

        status = await herd.get_status("plain")

        assert (await told(herd, "plain:latest"))[-1] == "UpdateFailed"
        assert status.state is ModelState.AVAILABLE
        assert status.last_failure is not None
        assert status.last_failure.kind == "registry_failed"


async def test_cancelled_update_leaves_the_model_as_it_was() -> None:
    async with herd_of() as (place, herd):
        place.did(registry={"latency_s": 30})
        pulling = asyncio.create_task(pulled(herd, "plain"))
        await place.clock.sleep(5)

        assert await herd.cancel("plain")

        assert isinstance(await end_of(pulling), OperationEndedError)
        assert (await told(herd, "plain:latest"))[-1] == "UpdateCancelled"
        assert (await herd.get_status("plain")).state is ModelState.AVAILABLE


async def test_update_of_a_model_that_vanishes_meanwhile_brings_it_back() -> None:
    async with herd_of() as (place, herd):
        place.did(registry={"latency_s": 15})
        pulling = asyncio.create_task(pulled(herd, "plain"))
        await place.clock.sleep(5)
        await place.deletes("plain")
        await herd.refresh()
        assert not await herd.is_available("plain")

        assert (await pulling)[-1].status == "success"

        types = await told(herd, "plain:latest")
        assert types[2:5] == ["UpdateStarted", "ModelVanished", "ModelDiscovered"]
        assert await herd.is_available("plain")


async def test_cancelled_update_of_a_model_that_vanished_records_no_end() -> None:
    async with herd_of() as (place, herd):
        place.did(registry={"latency_s": 15})
        pulling = asyncio.create_task(pulled(herd, "plain"))
        await place.clock.sleep(5)
        await place.deletes("plain")
        await herd.refresh()

        assert await herd.cancel("plain")

        assert isinstance(await end_of(pulling), OperationEndedError)
        assert (await told(herd, "plain:latest"))[-1] == "ModelVanished"


async def test_pull_that_finds_the_server_away_records_the_node_as_lost() -> None:
    async with herd_of() as (place, herd):
        place.did(server="killed")

        with pytest.raises(NodeUnreachableError):
            await pulled(herd, "plain")

        assert not (await herd.node_status()).reached
        assert (await herd.get_status("llava:7b")).stale_since is not None


async def test_pull_without_tls_is_asked_for_and_recorded() -> None:
    name = "127.0.0.1:5055/library/plain:latest"
    async with herd_of("none") as (_, herd):
        with pytest.raises(PullError):
            await pulled(herd, name)

        await herd.ensure_available(name, insecure=True)

        started = await last_fact(herd, facts.PullStarted)
        assert isinstance(started, facts.PullStarted)
        assert started.insecure


async def test_success_for_what_the_server_does_not_list_is_no_success() -> None:
    body = '{"status":"success"}\n'
    async with herd_of("none") as (place, herd):
        place.did(answer=PULL | {"body": body})

        with pytest.raises(OllamaError):
            await pulled(herd, BIG)

        failed = await last_fact(herd, facts.PullFailed)
        assert isinstance(failed, facts.PullFailed)
        assert failed.kind == "bad_answer"


async def test_pull_whose_model_cannot_be_shown_is_complete_all_the_same() -> None:
    async with herd_of("none") as (place, herd):
        place.did(answer={"path": "/api/show", "hang": True})
        await pulled(herd, BIG)
        assert (await told(herd, BIG))[-1] == "PullCompleted"

        await herd.refresh()

        assert (await told(herd, BIG))[-1] == "CapabilitiesDetected"


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
