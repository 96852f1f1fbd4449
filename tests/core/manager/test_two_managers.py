"""Several managers on one log: each sees the work of the others and leaves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from support.manager_fixture import (
    SandboxServer,
    event_types,
    pull_to_end,
    recorded_events,
    serve_sandbox,
    serve_two_managers,
)

from herdbook.core import (
    Activity,
    BusyError,
    Cause,
    ManagerSettings,
    ModelManager,
    ModelState,
    OperationEndedError,
    PullError,
)
from herdbook.events import facts
from herdbook.events.sqlite.instances import FileInstances

BIG = "llama3.2:1b"
PATIENT = ManagerSettings(log_poll_every_s=1.0)


@asynccontextmanager
async def two(
    log: Path, models: str = "none"
) -> AsyncIterator[tuple[SandboxServer, ModelManager, ModelManager]]:
    async with serve_two_managers(log, models, settings=PATIENT) as opened:
        yield opened


async def test_one_manager_sees_what_another_records(tmp_path: Path) -> None:
    async with two(tmp_path / "herd.db", "herd") as (_, one, other):
        await one.mark_used("plain")
        await other.mark_used("plain")

        status = await one.get_status("plain")

        assert (status.uses, status.last_used_by) == (2, "library:two")
        assert (await one.now()).statuses() == (await other.now()).statuses()


async def test_event_after_an_unseen_one_applies_both_events(
    tmp_path: Path,
) -> None:
    async with two(tmp_path / "herd.db", "herd") as (_, one, other):
        await one.now()
        await other.mark_used("plain")
        await one.mark_used("llava:7b")

        assert one.latest().status("plain").uses == 1


async def test_concurrent_queries_read_foreign_events_once(
    tmp_path: Path,
) -> None:
    async with two(tmp_path / "herd.db", "herd") as (_, one, other):
        await other.mark_used("plain")

        statuses = await asyncio.gather(*(one.get_status("plain") for _ in range(5)))

        assert [status.uses for status in statuses] == [1] * 5


async def test_events_of_another_manager_arrive_live(tmp_path: Path) -> None:
    async with two(tmp_path / "herd.db", "herd") as (_, one, other):
        position = (await one.now()).position
        await other.mark_used("plain")
        async with aclosing(one.events(after=position)) as events:
            before = await anext(events)
            await other.mark_used("llava:7b")
            live = await anext(events)

        assert [e.actor for e in (before, live)] == ["library:two", "library:two"]
        assert live.position == before.position + 1


async def test_second_manager_discovers_nothing_again(tmp_path: Path) -> None:
    async with two(tmp_path / "herd.db", "herd") as (_, one, other):
        assert len(await other.all_statuses()) == 9
        assert (await event_types(one, "plain:latest")).count("ModelDiscovered") == 1


async def test_ensure_available_waits_for_a_pull_of_another_instance(
    tmp_path: Path,
) -> None:
    async with two(tmp_path / "herd.db") as (server, one, other):
        server.apply(registry={"rate": 1e7})
        pulling = asyncio.create_task(pull_to_end(one, BIG))
        await server.clock.sleep(2)

        assert (await other.ensure_available(BIG)).present

        await pulling
        assert server.request_count("/api/pull") == 1


async def test_pull_follows_the_progress_another_instance_records(
    tmp_path: Path,
) -> None:
    async with two(tmp_path / "herd.db") as (server, one, other):
        server.time.stride_s = 1.0
        server.apply(registry={"rate": 2e6})
        pulling = asyncio.create_task(pull_to_end(one, BIG))
        await server.clock.sleep(2)

        completed = [p.completed_bytes for p in await pull_to_end(other, BIG)]

        await pulling
        assert len(completed) >= 2
        assert completed == sorted(completed)


async def test_pull_that_fails_for_one_instance_fails_for_all(tmp_path: Path) -> None:
    async with two(tmp_path / "herd.db") as (server, one, other):
        server.apply(registry={"corrupt": True, "rate": 1e7})
        pulling = asyncio.create_task(pull_to_end(one, BIG))
        await server.clock.sleep(2)

        with pytest.raises(PullError):
            await other.ensure_available(BIG)

        await asyncio.wait([pulling])
        assert isinstance(pulling.exception(), PullError)
        assert server.request_count("/api/pull") == 1


async def test_pull_cancelled_by_another_instance_continues_for_who_needs_it(
    tmp_path: Path,
) -> None:
    async with two(tmp_path / "herd.db") as (server, one, other):
        server.apply(registry={"rate": 1e7})
        pulling = asyncio.create_task(pull_to_end(one, BIG))
        await server.clock.sleep(2)
        waiting = asyncio.create_task(other.ensure_available(BIG))
        await server.clock.sleep(2)
        await one.cancel(BIG)

        assert (await waiting).present

        await asyncio.wait([pulling])
        assert isinstance(pulling.exception(), OperationEndedError)
        assert (await event_types(one, BIG))[:3] == [
            "PullStarted",
            "PullCancelled",
            "PullStarted",
        ]


async def test_pull_of_a_dead_instance_is_taken_over_by_who_waits(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    async with (
        serve_sandbox("none") as server,
        server.open_manager(log, settings=PATIENT) as manager,
    ):
        with FileInstances(tmp_path / "herd.db-instances") as dying:
            begun = facts.PullStarted(instance=dying.own)
            await manager._repository.record(BIG, [begun], cause=Cause.COMMAND)
            waiting = asyncio.create_task(manager.ensure_available(BIG))
            await server.clock.sleep(5)
            assert server.request_count("/api/pull") == 0

        assert (await waiting).present
        assert (await event_types(manager, BIG))[:4] == [
            "PullStarted",
            "PullInterrupted",
            "PullStarted",
            "PullCompleted",
        ]


@pytest.mark.parametrize("kind", ["Pull", "Update", "Load"])
async def test_work_of_another_instance_is_cancelled_on_request(
    kind: str, tmp_path: Path
) -> None:
    models, name = ("none", BIG) if kind == "Pull" else ("herd", "llava:7b")
    async with two(tmp_path / "herd.db", models) as (server, one, other):
        server.apply(registry={"latency_s": 60}, runner_start_delay_s=60)
        work = one.load(name) if kind == "Load" else pull_to_end(one, name)
        running = asyncio.create_task(work)
        await server.clock.sleep(2)

        assert await other.cancel(name)

        await asyncio.wait([running])
        assert isinstance(running.exception(), OperationEndedError)
        recorded = await recorded_events(one, name)
        assert [(event.type, event.actor) for event in recorded[-3:]] == [
            (f"{kind}Started", "library:one"),
            ("CancelRequested", "library:two"),
            (f"{kind}Cancelled", "library:two"),
        ]
        assert not await other.cancel(name)


async def test_waiting_pull_is_seen_and_cancelled_by_another_instance(
    tmp_path: Path,
) -> None:
    async with two(tmp_path / "herd.db") as (server, one, other):
        server.apply(registry={"latency_s": 60})
        names = [BIG, "llama3.2:3b", "plain:latest"]
        limit = one._settings.max_concurrent_pulls
        pulls = [asyncio.create_task(pull_to_end(one, name)) for name in names]
        await server.clock.sleep(2)
        waits = [work.name for work in one.under_way() if work.waiting]
        assert len(waits) == len(names) - limit

        status = await other.get_status(waits[0])
        assert (status.activity, status.work and status.work.actor) == (
            "pull",
            "library:one",
        )
        assert await other.cancel(waits[0])

        assert await event_types(one, waits[0]) == [
            "PullStarted",
            "CancelRequested",
            "PullCancelled",
        ]
        assert server.request_count("/api/pull") == limit
        await one.interrupt()
        await asyncio.wait(pulls)


async def test_request_to_cancel_another_kind_of_work_cancels_nothing(
    tmp_path: Path,
) -> None:
    async with two(tmp_path / "herd.db") as (server, one, other):
        server.apply(registry={"rate": 1e7})
        pulling = asyncio.create_task(pull_to_end(one, BIG))
        await server.clock.sleep(2)

        assert not await other.cancel(BIG, Activity.LOAD)

        await pulling


async def test_cancelled_pull_is_cancelled_for_all_who_follow_it(
    tmp_path: Path,
) -> None:
    async with two(tmp_path / "herd.db") as (server, one, other):
        server.apply(registry={"latency_s": 60})
        pulling = asyncio.create_task(pull_to_end(one, BIG))
        await server.clock.sleep(2)
        following = asyncio.create_task(other.ensure_available(BIG))
        await server.clock.sleep(2)

        assert await other.cancel(BIG)

        await asyncio.wait([pulling, following])
        for task in (pulling, following):
            assert isinstance(task.exception(), OperationEndedError)
        assert (await event_types(one, BIG)).count("PullStarted") == 1


async def test_request_to_cancel_work_of_a_dead_instance_reports_its_death(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    async with (
        serve_sandbox("none") as server,
        server.open_manager(log, settings=PATIENT) as manager,
    ):
        with FileInstances(tmp_path / "herd.db-instances") as dying:
            begun = facts.PullStarted(instance=dying.own)
            await manager._repository.record(BIG, [begun], cause=Cause.COMMAND)

        with pytest.raises(OperationEndedError, match="process that ran it has ended"):
            await manager.cancel(BIG)

        assert (await event_types(manager, BIG))[-1] == "PullInterrupted"


async def test_request_that_is_not_followed_ends_in_time(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with (
        serve_sandbox("none") as server,
        server.open_manager(log, settings=PATIENT) as manager,
    ):
        with FileInstances(tmp_path / "herd.db-instances") as frozen:
            begun = facts.PullStarted(instance=frozen.own)
            await manager._repository.record(BIG, [begun], cause=Cause.COMMAND)

            for _ in range(2):  # the request is recorded once
                with pytest.raises(BusyError, match="did not respond within 10 s"):
                    await manager.cancel(BIG)

            assert (await event_types(manager, BIG))[1:] == ["CancelRequested"]


async def test_model_that_another_instance_loads_is_busy(tmp_path: Path) -> None:
    async with two(tmp_path / "herd.db", "herd") as (server, one, other):
        server.apply(runner_start_delay_s=30)
        loading = asyncio.create_task(one.load("llava:7b"))
        await server.clock.sleep(3)

        for refused in (other.load, other.unload, other.delete):
            with pytest.raises(BusyError):
                await refused("llava:7b")

        assert (await loading).state is ModelState.LOADED
        assert (await other.get_status("llava:7b")).state is ModelState.LOADED


async def test_refresh_of_another_instance_ignores_a_running_load(
    tmp_path: Path,
) -> None:
    async with two(tmp_path / "herd.db", "herd") as (server, one, other):
        server.apply(runner_start_delay_s=30)
        loading = asyncio.create_task(one.load("llava:7b"))
        await server.clock.sleep(3)

        await other.refresh()

        assert (await other.get_status("llava:7b")).state is ModelState.LOADING
        await loading


async def test_concurrent_pulls_by_two_managers_both_succeed(
    tmp_path: Path,
) -> None:
    async with two(tmp_path / "herd.db") as (_, one, other):
        statuses = await asyncio.gather(
            one.ensure_available(BIG), other.ensure_available(BIG)
        )

        assert [status.present for status in statuses] == [True, True]
        assert (await event_types(one, BIG)).count("PullStarted") == 1


async def test_concurrent_loads_by_two_managers_take_turns(
    tmp_path: Path,
) -> None:
    async with two(tmp_path / "herd.db", "herd") as (_, one, other):
        loads = [manager.load("llava:7b") for manager in (one, other)]

        loaded = await asyncio.gather(*loads)

        assert [status.state for status in loaded] == [ModelState.LOADED] * 2
        assert (await event_types(one, "llava:7b")).count("LoadStarted") == 1
