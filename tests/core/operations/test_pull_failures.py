"""Pulls that fail, stall or lose their connection, and the data that stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.manager_fixture import (
    error_of,
    event_types,
    last_fact,
    pull_to_end,
    serve_manager,
    start_pull,
)

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
    async with serve_manager("none") as (server, manager):
        server.apply(**step)

        with pytest.raises(OllamaError) as failure:
            await pull_to_end(manager, name)

        assert failure.value.kind == kind
        assert (await event_types(manager, name))[0] == "PullStarted"
        failed = await last_fact(manager, facts.PullFailed)
        assert isinstance(failed, facts.PullFailed)
        assert (failed.kind, failed.message) == (kind, str(failure.value))
        assert (await manager.get_status(name)).state is ModelState.ERROR


async def test_failed_pull_reports_how_far_it_got() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry={"corrupt": True})
        with pytest.raises(DigestMismatchError):
            await pull_to_end(manager, BIG)

        failed = await last_fact(manager, facts.PullFailed)

        assert isinstance(failed, facts.PullFailed)
        assert failed.completed_bytes == failed.total_bytes
        assert failed.total_bytes is not None


async def test_pull_cut_by_a_dead_server_continues_when_it_is_back() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry=SLOW)
        pulling = asyncio.create_task(pull_to_end(manager, BIG))
        await server.clock.sleep(30)
        server.apply(server="stopped")
        assert isinstance(await error_of(pulling), PullCutError)
        server.apply(server="started")

        await pull_to_end(manager, BIG)

        completed = await last_fact(manager, facts.PullCompleted)
        assert isinstance(completed, facts.PullCompleted)
        assert completed.fetched_bytes is not None
        assert completed.fetched_bytes < BIG_BYTES - 300_000_000


async def test_pull_after_a_failure_succeeds_and_clears_it() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(disk_bytes=500_000_000)
        with pytest.raises(PullError):
            await pull_to_end(manager, BIG)
        server.apply(disk_bytes=None)

        await pull_to_end(manager, BIG)

        status = await manager.get_status(BIG)
        assert (status.state, status.last_failure) == (ModelState.AVAILABLE, None)


async def test_stall_is_cancelled_within_30_seconds_and_keeps_its_bytes() -> None:
    async with serve_manager("none") as (server, manager):
        server.time.stride_s = 1.0
        server.apply(registry={"rate": 5e6, "stall_after": 40_000_000})
        pulling = asyncio.create_task(pull_to_end(manager, BIG))
        await server.clock.sleep(29.9)
        assert server.request_count("/api/pull") == 2
        progress = await pulling

    assert server.request_count("/api/pull") == 3
    assert progress[-1].refetched_bytes == 0
    assert progress[-1].percent == 100


async def test_stalls_without_progress_fail_after_some_attempts() -> None:
    settings = ManagerSettings(max_stalls=2, stall_after_s=20)
    async with serve_manager("none", settings=settings) as (server, manager):
        server.apply(registry={"stall_after": 0})

        with pytest.raises(StalledError):
            await pull_to_end(manager, BIG)

        assert server.request_count("/api/pull") == 3
        assert await event_types(manager, BIG) == ["PullStarted", "PullFailed"]


async def test_silent_connection_is_a_stall() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry=SLOW, answer=PULL | {"after_lines": 4, "hang": True})
        server.time.stride_s = 1.0

        progress = await pull_to_end(manager, BIG)

        assert progress[-1].status == "success"
        assert server.request_count("/api/pull") == 2
        completed = await last_fact(manager, facts.PullCompleted)
        assert isinstance(completed, facts.PullCompleted)
        assert completed.duration_s is not None
        assert completed.duration_s < 140


async def test_slow_manifest_is_not_a_stall() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry={"latency_s": 300})
        pulling = asyncio.create_task(pull_to_end(manager, "plain"))
        await server.clock.sleep(299)
        server.apply(registry={})  # the layers come at once

        await pulling

        assert server.request_count("/api/pull") == 1


async def test_slow_verification_of_a_large_layer_is_not_a_stall() -> None:
    slow_disk = sandbox.Settings(verify_rate=1e6)
    async with serve_manager("none", sandbox_settings=slow_disk) as (server, manager):
        await pull_to_end(manager, BIG)

        assert server.request_count("/api/pull") == 1
        assert server.time.now() > 1000


async def test_pull_without_any_answer_times_out() -> None:
    settings = ManagerSettings(silence_timeout_s=600, max_stalls=0)
    async with serve_manager("none", settings=settings) as (server, manager):
        server.apply(answer=PULL | {"hang": True})

        with pytest.raises(StalledError, match="for 600 s"):
            await pull_to_end(manager, BIG)

        assert server.time.now() == pytest.approx(600, abs=1)


async def test_old_cancellation_by_the_server_is_retried_once() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry=SLOW, cancel_lag_s=0.003)
        await start_pull(manager, BIG)

        await pull_to_end(manager, BIG)

        assert server.request_count("/api/pull") == 3
        assert (await event_types(manager, BIG))[:2] == ["PullStarted", "PullCancelled"]
        assert (await manager.get_status(BIG)).present


async def test_second_old_cancellation_fails_the_pull() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry=SLOW, cancel_lag_s=60)
        await start_pull(manager, BIG)

        with pytest.raises(PullCancelledError):
            await pull_to_end(manager, BIG)

        failed = await last_fact(manager, facts.PullFailed)
        assert isinstance(failed, facts.PullFailed)
        assert failed.kind == "pull_cancelled"


async def test_pull_from_an_unreachable_server_records_the_node_as_lost() -> None:
    async with serve_manager() as (server, manager):
        server.apply(server="killed")

        with pytest.raises(NodeUnreachableError):
            await pull_to_end(manager, "plain")

        assert not (await manager.node_status()).reached
        assert (await manager.get_status("llava:7b")).stale_since is not None


async def test_success_without_a_listed_model_is_a_failure() -> None:
    body = '{"status":"success"}\n'
    async with serve_manager("none") as (server, manager):
        server.apply(answer=PULL | {"body": body})

        with pytest.raises(OllamaError):
            await pull_to_end(manager, BIG)

        failed = await last_fact(manager, facts.PullFailed)
        assert isinstance(failed, facts.PullFailed)
        assert failed.kind == "bad_answer"


async def test_pull_is_complete_even_if_the_model_cannot_be_shown() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(answer={"path": "/api/show", "hang": True})
        await pull_to_end(manager, BIG)
        assert (await event_types(manager, BIG))[-1] == "PullCompleted"

        await manager.refresh()

        assert (await event_types(manager, BIG))[-1] == "CapabilitiesDetected"
