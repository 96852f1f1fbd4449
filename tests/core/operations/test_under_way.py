"""The running operations of a manager, as ``under_way`` returns them."""

from __future__ import annotations

import asyncio

import pytest
from support.manager_fixture import pull_to_end, serve_manager

from herdbook.core import ManagerSettings, RunningOperation
from herdbook.events.lifecycle import Activity

BIG = "llama3.2:1b"
NAME = "llava:7b"


async def test_no_operation_runs_without_a_request() -> None:
    async with serve_manager() as (_, manager):
        await manager.load(NAME)
        await pull_to_end(manager, NAME)

        assert manager.under_way() == []


async def test_running_pull_has_actor_start_and_progress() -> None:
    async with serve_manager("none") as (server, manager):
        server.apply(registry={"rate": 1e6})
        began = server.clock.now()
        with manager.acting_as("api:ann"):
            pulling = asyncio.create_task(pull_to_end(manager, BIG))
        await server.clock.sleep(60)

        (result,) = manager.under_way()

        assert result.progress is not None
        assert result.progress.completed_bytes > 0
        assert (result.name, result.activity) == (BIG, Activity.PULL)
        assert result.actor == "api:ann"
        assert (result.since - began).total_seconds() == pytest.approx(0, abs=1)
        await manager.cancel(BIG)
        await asyncio.wait([pulling])
        assert manager.under_way() == []


async def test_update_and_load_of_one_model_are_two_operations() -> None:
    async with serve_manager() as (server, manager):
        server.apply(registry={"latency_s": 60}, runner_start_delay_s=60)
        began = server.clock.now()
        works = [
            asyncio.create_task(pull_to_end(manager, NAME)),
            asyncio.create_task(manager.load(NAME)),
        ]
        await server.clock.sleep(5)

        result = manager.under_way()

        assert [(one.name, one.activity) for one in result] == [
            (NAME, Activity.UPDATE),
            (NAME, Activity.LOAD),
        ]
        assert {one.actor for one in result} == {"library:python"}
        assert not any(one.waiting for one in result)
        assert result[-1].progress is None
        assert all(one.since >= began for one in result)
        await manager.interrupt()
        await asyncio.wait(works)


async def test_pull_beyond_the_limit_is_reported_as_waiting() -> None:
    settings = ManagerSettings(max_concurrent_pulls=1)
    async with serve_manager("none", settings=settings) as (server, manager):
        server.apply(registry={"latency_s": 10})
        first = asyncio.create_task(pull_to_end(manager, BIG))
        await server.clock.sleep(1)
        second = asyncio.create_task(pull_to_end(manager, "plain"))
        await server.clock.sleep(1)

        assert waiting(manager.under_way()) == {BIG: False, "plain:latest": True}

        await manager.cancel(BIG)
        await server.clock.sleep(1)
        assert waiting(manager.under_way()) == {"plain:latest": False}
        await asyncio.wait([first])
        assert (await second)[-1].status == "success"


def waiting(result: list[RunningOperation]) -> dict[str, bool]:
    return {one.name: one.waiting for one in result}
