"""Updates of models that are there: what changes, and what stays as it was."""

from __future__ import annotations

import asyncio

import pytest
from support.manager_fixture import end_of, herd_of, last_fact, pulled, told

from herdbook.core import (
    ModelState,
    OperationEndedError,
    PullError,
)
from herdbook.events import facts
from herdbook.events.lifecycle import Activity

BIG = "llama3.2:1b"
SLOW = {"rate": 1e6}


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
