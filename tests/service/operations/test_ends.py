"""How operations end when a cancel comes late, a server hangs, or the log tells more.

What is answered while the service lives, and what the log tells after a restart, is
the same: each is asked here by a second ``Operations``, which remembers nothing.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.manager_fixture import told
from support.operations_fixture import ANN, BEN, HERE, SLOW, Desk, desk

from herdbook.core import BusyError, ModelNotFoundError
from herdbook.service.operations.operation import Kind, OperationRequest, OperationState
from herdbook.service.operations.operations import Operations


def restarted(at: Desk) -> Operations:
    """Return operations that know what the log knows."""
    return Operations(at.herd, at.place.clock, fetched=lambda _: None)


def hang(at: Desk, path: str) -> None:
    """Have the server answer nothing any more at a path."""
    at.place.did(answer={"path": path, "hang": True, "times": 0})


async def recorded(at: Desk, name: str, kind: str) -> None:
    """Wait until the newest event of a model is of a kind."""
    while (await told(at.herd, name))[-1:] != [kind]:
        await at.place.clock.sleep(0.05)


@pytest.mark.parametrize("way", ["cancel", "stop"])
async def test_load_that_was_through_before_its_end_was_asked_for_has_succeeded(
    tmp_path: Path, way: str
) -> None:
    async with desk(tmp_path / "herd.db") as at:
        hang(at, "/api/tags")  # so that the look behind the load takes its time
        load = await at.begin(Kind.LOAD, HERE)
        await recorded(at, HERE, "ModelLoaded")
        assert load.running

        if way == "cancel":
            await at.operations.cancel(load.id, BEN)
        else:
            await at.operations.close()

        assert load.state is OperationState.SUCCEEDED
        assert (await restarted(at).get(load.id)).state is OperationState.SUCCEEDED


@pytest.mark.parametrize("way", ["cancel", "stop"])
async def test_pull_whose_model_cannot_be_seen_ends_at_once_when_it_is_to(
    tmp_path: Path, way: str
) -> None:
    async with desk(tmp_path / "herd.db") as at:
        hang(at, "/api/tags")
        pull = await at.begin(Kind.PULL, SLOW)
        before = at.place.asked("/api/tags")
        await at.place.until(lambda: at.place.asked("/api/tags") > before)
        asked_at = at.place.clock.monotonic()

        if way == "cancel":
            await at.operations.cancel(pull.id, BEN)
        else:
            await at.operations.close()

        assert at.place.clock.monotonic() - asked_at < 1
        assert not pull.running
        at.place.did(answer=None)
        await at.herd.refresh()
        assert (await told(at.herd, SLOW))[-1] == "CapabilitiesDetected"
        assert await at.herd.is_available(SLOW)


async def test_load_whose_runner_was_lost_ends_at_once_when_it_is_to(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path / "herd.db") as at:
        await at.ended(await at.begin(Kind.LOAD, HERE))
        at.place.did(runner_dies_saying="out of memory")
        hang(at, "/api/ps")
        before = at.place.asked("/api/ps")
        request = OperationRequest(kind=Kind.LOAD, model=HERE, options={"num_ctx": 64})
        await at.operations.start(request, ANN)
        await at.place.until(lambda: at.place.asked("/api/ps") > before)
        asked_at = at.place.clock.monotonic()

        await at.operations.close()

        assert at.place.clock.monotonic() - asked_at < 1


async def test_key_finds_a_load_that_failed_and_cost_the_runner_before_it(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path / "herd.db") as at:
        await at.ended(await at.begin(Kind.LOAD, HERE))
        at.place.did(runner_dies_saying="out of memory")
        request = OperationRequest(kind=Kind.LOAD, model=HERE, options={"num_ctx": 64})
        load = await at.ended(await at.operations.start(request, ANN, key="k"))
        assert (await told(at.herd, HERE))[-3:] == [
            "ModelUnloaded",
            "LoadStarted",
            "LoadFailed",
        ]

        found = await restarted(at).start(request, ANN, key="k")

        assert (found.id, found.kind) == (load.id, Kind.LOAD)
        assert found.state is OperationState.FAILED
        assert found.request.options["num_ctx"] == 64


async def test_what_a_refresh_saw_leave_is_no_operation(tmp_path: Path) -> None:
    async with desk(tmp_path / "herd.db") as at:
        await at.ended(await at.begin(Kind.LOAD, HERE))
        await at.place.unloads(HERE)
        refresh = await at.ended(await at.begin(Kind.REFRESH, key="k"))
        assert (await told(at.herd, HERE))[-1] == "ModelUnloaded"

        after = restarted(at)
        again = await after.start(OperationRequest(kind=Kind.REFRESH), ANN, key="k")

        assert (again.id, again.kind) == (refresh.id, Kind.REFRESH)
        await after.close()


async def test_update_that_failed_has_failed_whatever_was_seen_after_it(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path / "herd.db") as at:
        await at.ended(await at.begin(Kind.LOAD, HERE))
        at.place.did(registry={"unreachable": "no route to host"})
        await at.place.unloads(HERE)
        update = await at.ended(await at.begin(Kind.UPDATE, HERE))
        assert (await told(at.herd, HERE))[-2:] == ["UpdateFailed", "ModelUnloaded"]

        found = await restarted(at).get(update.id)

        assert found.state is update.state is OperationState.FAILED


async def test_key_finds_its_operation_though_the_model_is_gone(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path / "herd.db") as at:
        load = await at.ended(await at.begin(Kind.LOAD, HERE, key="k"))
        await at.herd.delete(HERE)

        assert await at.begin(Kind.LOAD, HERE, key="k") is load
        with pytest.raises(ModelNotFoundError):
            await at.begin(Kind.LOAD, HERE, key="another")


async def test_model_that_is_being_pulled_is_busy_and_not_unknown(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    async with desk(log) as at, at.place.herd(log, look=False) as other:
        pull = await at.begin(Kind.PULL, SLOW)
        await recorded(at, SLOW, "PullStarted")

        assert await at.begin(Kind.UPDATE, SLOW) is pull
        with pytest.raises(BusyError, match=pull.id):
            await at.begin(Kind.LOAD, SLOW)
        elsewhere = Operations(other, at.place.clock, fetched=lambda _: None)
        for kind in (Kind.LOAD, Kind.UNLOAD):
            with pytest.raises(BusyError):
                await elsewhere.start(OperationRequest(kind=kind, model=SLOW), BEN)


async def test_operation_of_another_instance_is_told_but_not_cancelled(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    async with desk(log) as at, at.place.herd(log, look=False) as other:
        pull = await at.begin(Kind.PULL, SLOW)
        await recorded(at, SLOW, "PullStarted")
        elsewhere = Operations(other, at.place.clock, fetched=lambda _: None)

        assert (await elsewhere.get(pull.id)).running
        with pytest.raises(BusyError):
            await elsewhere.cancel(pull.id, BEN)

        assert pull.running
