"""How operations end when a cancel comes late, a server hangs, or the log has more.

The answer of a running service equals the answer from the log after a restart: each is
requested by a second ``ClientOperations``, which remembers nothing.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.manager_fixture import event_types
from support.operations_fixture import (
    ANN,
    BEN,
    INSTALLED,
    SLOW,
    OperationsFixture,
    open_operations,
    open_two_instances,
)

from herdbook.core import BusyError, ModelNotFoundError
from herdbook.service.operations.operation import Kind, OperationRequest, OperationState


def hang(fixture: OperationsFixture, path: str) -> None:
    """Have the server answer nothing any more at a path."""
    fixture.server.apply(answer={"path": path, "hang": True, "times": 0})


async def recorded(fixture: OperationsFixture, name: str, kind: str) -> None:
    """Wait until the newest event of a model is of a kind."""
    while (await event_types(fixture.manager, name))[-1:] != [kind]:
        await fixture.server.clock.sleep(0.05)


@pytest.mark.parametrize("way", ["cancel", "stop"])
async def test_load_that_finished_before_its_cancellation_has_succeeded(
    tmp_path: Path, way: str
) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        hang(fixture, "/api/tags")  # so that the look behind the load takes its time
        load = await fixture.start(Kind.LOAD, INSTALLED)
        await recorded(fixture, INSTALLED, "ModelLoaded")
        assert load.running

        if way == "cancel":
            await fixture.operations.cancel(load.id, BEN)
        else:
            await fixture.operations.close()

        assert load.state is OperationState.SUCCEEDED
        assert (
            await fixture.restarted().get(load.id)
        ).state is OperationState.SUCCEEDED


@pytest.mark.parametrize("way", ["cancel", "stop"])
async def test_pull_of_an_unseen_model_can_be_cancelled_immediately(
    tmp_path: Path, way: str
) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        hang(fixture, "/api/tags")
        pull = await fixture.start(Kind.PULL, SLOW)
        before = fixture.server.request_count("/api/tags")
        await fixture.server.wait_until(
            lambda: fixture.server.request_count("/api/tags") > before
        )
        asked_at = fixture.server.clock.monotonic()

        if way == "cancel":
            await fixture.operations.cancel(pull.id, BEN)
        else:
            await fixture.operations.close()

        assert fixture.server.clock.monotonic() - asked_at < 1
        assert not pull.running
        fixture.server.apply(answer=None)
        await fixture.manager.refresh()
        assert (await event_types(fixture.manager, SLOW))[-1] == "CapabilitiesDetected"
        assert await fixture.manager.is_available(SLOW)


async def test_load_with_a_lost_runner_can_be_cancelled_at_once(
    tmp_path: Path,
) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        await fixture.wait_for(await fixture.start(Kind.LOAD, INSTALLED))
        fixture.server.apply(runner_dies_saying="out of memory")
        hang(fixture, "/api/ps")
        before = fixture.server.request_count("/api/ps")
        request = OperationRequest(
            kind=Kind.LOAD, model=INSTALLED, options={"num_ctx": 64}
        )
        await fixture.operations.start(request, ANN)
        await fixture.server.wait_until(
            lambda: fixture.server.request_count("/api/ps") > before
        )
        asked_at = fixture.server.clock.monotonic()

        await fixture.operations.close()

        assert fixture.server.clock.monotonic() - asked_at < 1


async def test_key_finds_a_failed_load_that_lost_the_previous_runner(
    tmp_path: Path,
) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        await fixture.wait_for(await fixture.start(Kind.LOAD, INSTALLED))
        fixture.server.apply(runner_dies_saying="out of memory")
        request = OperationRequest(
            kind=Kind.LOAD, model=INSTALLED, options={"num_ctx": 64}
        )
        load = await fixture.wait_for(
            await fixture.operations.start(request, ANN, key="k")
        )
        assert (await event_types(fixture.manager, INSTALLED))[-3:] == [
            "ModelUnloaded",
            "LoadStarted",
            "LoadFailed",
        ]

        found = await fixture.restarted().start(request, ANN, key="k")

        assert (found.id, found.kind) == (load.id, Kind.LOAD)
        assert found.state is OperationState.FAILED
        assert found.request.options["num_ctx"] == 64


async def test_unload_observed_by_a_refresh_is_not_an_operation(tmp_path: Path) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        await fixture.wait_for(await fixture.start(Kind.LOAD, INSTALLED))
        await fixture.server.unload(INSTALLED)
        refresh = await fixture.wait_for(await fixture.start(Kind.REFRESH, key="k"))
        assert (await event_types(fixture.manager, INSTALLED))[-1] == "ModelUnloaded"

        after = fixture.restarted()
        again = await after.start(OperationRequest(kind=Kind.REFRESH), ANN, key="k")

        assert (again.id, again.kind) == (refresh.id, Kind.REFRESH)
        await after.close()


async def test_failed_update_stays_failed_after_later_refreshes(
    tmp_path: Path,
) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        await fixture.wait_for(await fixture.start(Kind.LOAD, INSTALLED))
        fixture.server.apply(registry={"unreachable": "no route to host"})
        await fixture.server.unload(INSTALLED)
        update = await fixture.wait_for(await fixture.start(Kind.UPDATE, INSTALLED))
        assert (await event_types(fixture.manager, INSTALLED))[-2:] == [
            "UpdateFailed",
            "ModelUnloaded",
        ]

        found = await fixture.restarted().get(update.id)

        assert found.state is update.state is OperationState.FAILED


async def test_key_finds_its_operation_after_the_model_is_deleted(
    tmp_path: Path,
) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        load = await fixture.wait_for(
            await fixture.start(Kind.LOAD, INSTALLED, key="k")
        )
        await fixture.manager.delete(INSTALLED)

        assert await fixture.start(Kind.LOAD, INSTALLED, key="k") is load
        with pytest.raises(ModelNotFoundError):
            await fixture.start(Kind.LOAD, INSTALLED, key="another")


async def test_model_that_is_being_pulled_is_busy_and_not_unknown(
    tmp_path: Path,
) -> None:
    async with open_two_instances(tmp_path / "herd.db") as (fixture, elsewhere):
        pull = await fixture.start(Kind.PULL, SLOW)
        await recorded(fixture, SLOW, "PullStarted")

        assert await fixture.start(Kind.UPDATE, SLOW) is pull
        with pytest.raises(BusyError, match=pull.id):
            await fixture.start(Kind.LOAD, SLOW)
        for kind in (Kind.LOAD, Kind.UNLOAD):
            with pytest.raises(BusyError):
                await elsewhere.start(OperationRequest(kind=kind, model=SLOW), BEN)


async def test_operation_of_another_instance_is_shown_and_cancelled(
    tmp_path: Path,
) -> None:
    async with open_two_instances(tmp_path / "herd.db") as (fixture, elsewhere):
        pull = await fixture.start(Kind.PULL, SLOW)
        await recorded(fixture, SLOW, "PullStarted")

        assert (await elsewhere.get(pull.id)).running
        assert [one.id for one in await elsewhere.listed()] == [pull.id]
        cancelled = await elsewhere.cancel(pull.id, BEN)

        assert cancelled.state is OperationState.CANCELLED
        assert (await fixture.wait_for(pull)).state is OperationState.CANCELLED
        assert await elsewhere.listed() == []


async def test_reload_of_another_instance_is_shown_and_cancelled(
    tmp_path: Path,
) -> None:
    async with open_two_instances(tmp_path / "herd.db") as (fixture, elsewhere):
        await fixture.wait_for(await fixture.start(Kind.LOAD, INSTALLED))
        fixture.server.apply(runner_start_delay_s=60)
        request = OperationRequest(
            kind=Kind.LOAD, model=INSTALLED, options={"num_ctx": 64}
        )
        reload = await fixture.operations.start(request, ANN)
        await recorded(fixture, INSTALLED, "ReloadStarted")

        (shown,) = await elsewhere.listed()
        assert (shown.id, shown.kind, shown.running) == (reload.id, Kind.LOAD, True)
        assert shown.request.options["num_ctx"] == 64
        cancelled = await elsewhere.cancel(reload.id, BEN)

        assert cancelled.state is OperationState.CANCELLED
        assert (await fixture.wait_for(reload)).state is OperationState.CANCELLED
        assert await elsewhere.listed() == []


@pytest.mark.parametrize("status", [None, 403])
async def test_end_of_a_reload_is_found_after_a_restart(
    tmp_path: Path, status: int | None
) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        await fixture.wait_for(await fixture.start(Kind.LOAD, INSTALLED))
        if status is not None:
            refused = {"path": "/api/generate", "times": 0, "status": status}
            fixture.server.apply(answer=refused | {"body": ""})
        request = OperationRequest(
            kind=Kind.LOAD, model=INSTALLED, options={"num_ctx": 64}
        )

        reload = await fixture.wait_for(await fixture.operations.start(request, ANN))

        found = await fixture.restarted().get(reload.id)
        assert found.state is reload.state
        assert (found.error is None) == (status is None)
        assert reload.state.value == ("succeeded" if status is None else "failed")
