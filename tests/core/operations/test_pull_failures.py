"""Pulls that fail, stall or are cut, and what is kept of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.manager_fixture import end_of, herd_of, last_fact, pulled, told, under_way

from herdbook import sandbox
from herdbook.core import (
    DigestMismatchError,
    ManagerSettings,
    ModelState,
    NodeUnreachableError,
    OllamaError,
    PullCancelledError,
    PullCutError,
    PullError,
    StalledError,
)
from herdbook.events import facts

BIG = "llama3.2:1b"
BIG_BYTES = 1_321_084_213
SLOW = {"rate": 1e6}
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
    "pull_cut": (BIG, {"answer": PULL | {"after_lines": 1, "cut": True}}),
    "bad_answer": (BIG, {"answer": PULL | {"body": "{\n"}}),
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
    settings = ManagerSettings(max_stalls=2, stall_after_s=20)
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
    settings = ManagerSettings(silence_timeout_s=600, max_stalls=0)
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


async def test_pull_that_finds_the_server_away_records_the_node_as_lost() -> None:
    async with herd_of() as (place, herd):
        place.did(server="killed")

        with pytest.raises(NodeUnreachableError):
            await pulled(herd, "plain")

        assert not (await herd.node_status()).reached
        assert (await herd.get_status("llava:7b")).stale_since is not None


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
