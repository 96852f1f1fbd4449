"""What a manager is at work on, as it can be told at one moment."""

from __future__ import annotations

import asyncio

import pytest
from support.manager_fixture import herd_of, pulled

from herdbook.core import ManagerSettings, RunningOperation
from herdbook.events.lifecycle import Activity

BIG = "llama3.2:1b"
NAME = "llava:7b"


async def test_nothing_is_under_way_where_nobody_asked_for_anything() -> None:
    async with herd_of() as (_, herd):
        await herd.load(NAME)
        await pulled(herd, NAME)

        assert herd.under_way() == []


async def test_pull_tells_who_asked_since_when_and_how_far_it_is() -> None:
    async with herd_of("none") as (place, herd):
        place.did(registry={"rate": 1e6})
        began = place.clock.now()
        with herd.acting_as("api:ann"):
            pulling = asyncio.create_task(pulled(herd, BIG))
        await place.clock.sleep(60)

        (told,) = herd.under_way()

        assert told.progress is not None
        assert told.progress.completed_bytes > 0
        assert (told.name, told.activity, told.actor) == (BIG, Activity.PULL, "api:ann")
        assert (told.since - began).total_seconds() == pytest.approx(0, abs=1)
        await herd.cancel(BIG)
        await asyncio.wait([pulling])
        assert herd.under_way() == []


async def test_update_and_load_of_one_model_are_two() -> None:
    async with herd_of() as (place, herd):
        place.did(registry={"latency_s": 60}, runner_start_delay_s=60)
        began = place.clock.now()
        works = [
            asyncio.create_task(pulled(herd, NAME)),
            asyncio.create_task(herd.load(NAME)),
        ]
        await place.clock.sleep(5)

        told = herd.under_way()

        assert [(one.name, one.activity) for one in told] == [
            (NAME, Activity.UPDATE),
            (NAME, Activity.LOAD),
        ]
        assert {one.actor for one in told} == {"library:python"}
        assert not any(one.waiting for one in told)
        assert told[-1].progress is None
        assert all(one.since >= began for one in told)
        await herd.interrupt()
        await asyncio.wait(works)


async def test_pull_beyond_the_limit_is_told_as_waiting_until_its_turn_comes() -> None:
    settings = ManagerSettings(max_concurrent_pulls=1)
    async with herd_of("none", settings=settings) as (place, herd):
        place.did(registry={"latency_s": 10})
        first = asyncio.create_task(pulled(herd, BIG))
        await place.clock.sleep(1)
        second = asyncio.create_task(pulled(herd, "plain"))
        await place.clock.sleep(1)

        assert waiting(herd.under_way()) == {BIG: False, "plain:latest": True}

        await herd.cancel(BIG)
        await place.clock.sleep(1)
        assert waiting(herd.under_way()) == {"plain:latest": False}
        await asyncio.wait([first])
        assert (await second)[-1].status == "success"


def waiting(told: list[RunningOperation]) -> dict[str, bool]:
    return {one.name: one.waiting for one in told}
