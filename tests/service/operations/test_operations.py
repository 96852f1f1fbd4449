"""Operations by themselves: on a clock that nobody waits for, faults included."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.manager_fixture import told, under_way
from support.operations_fixture import ANN, BEN, HERE, SLOW, desk

from herdbook.core import BusyError, ModelManager
from herdbook.service.errors import (
    BadRequestError,
    KeyReusedError,
    StoppingError,
    UnknownOperationError,
)
from herdbook.service.operations.operation import (
    Kind,
    Operation,
    OperationRequest,
    OperationState,
)
from herdbook.service.operations.operations import REMEMBERED, Operations

DAY_S = 24 * 3600.0


async def test_pull_tells_its_bytes_and_its_end(tmp_path: Path) -> None:
    async with desk(tmp_path / "herd.db") as at:
        pull = await at.ended(await at.begin(Kind.PULL, SLOW))

        assert pull.state is OperationState.SUCCEEDED
        assert pull.ended_at is not None
        assert pull.ended_at > pull.started_at
        assert pull.progress is not None
        assert at.fetched == pull.progress.fetched_bytes
        assert at.fetched > 4_000_000_000


async def test_cancellation_carries_who_cancelled(tmp_path: Path) -> None:
    async with desk(tmp_path / "herd.db") as at:
        pull = await at.begin(Kind.PULL, SLOW)
        await at.place.until(lambda: pull.progress is not None)

        cancelled = await at.operations.cancel(pull.id, BEN)

        assert cancelled.state is OperationState.CANCELLED
        history = await at.herd.history(SLOW)
        assert [(e.type, e.actor) for e in history] == [
            ("PullStarted", "api:ann"),
            ("PullCancelled", "api:ben"),
        ]
        assert {e.correlation_id for e in history} == {pull.id}


async def test_operation_cancelled_before_it_began_leaves_no_trace(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path / "herd.db") as at:
        pull = await at.begin(Kind.PULL, SLOW)
        cancelled = await at.operations.cancel(pull.id, ANN)

        assert cancelled.state is OperationState.CANCELLED
        recorded = await told(at.herd, SLOW)
        assert recorded in ([], ["PullStarted", "PullCancelled"])


async def test_unload_is_waited_for_not_cancelled(tmp_path: Path) -> None:
    async with desk(tmp_path / "herd.db") as at:
        await at.ended(await at.begin(Kind.LOAD, HERE))
        unload = await at.begin(Kind.UNLOAD, HERE)

        ended = await at.operations.cancel(unload.id, ANN)

        assert (ended.state, ended.result) == (OperationState.SUCCEEDED, "unloaded")
        assert (await told(at.herd, HERE))[-1] == "ModelUnloaded"


async def test_work_of_another_instance_is_followed_but_not_cancelled(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    async with desk(log) as at, at.place.herd(log, look=False) as other:
        pulling = asyncio.create_task(_all(other, SLOW))
        await under_way(other, SLOW)
        follow = await at.begin(Kind.PULL, SLOW)
        await at.place.clock.sleep(2)

        with pytest.raises(BusyError):
            await at.operations.cancel(follow.id, ANN)

        assert follow.running
        await pulling
        assert (await at.ended(follow)).state is OperationState.SUCCEEDED
        assert (await told(at.herd, SLOW)).count("PullStarted") == 1


async def _all(herd: ModelManager, name: str) -> None:
    async for _ in herd.pull(name):
        pass


async def test_key_finds_its_operation_for_a_day(tmp_path: Path) -> None:
    async with desk(tmp_path / "herd.db") as at:
        first = await at.ended(await at.begin(Kind.LOAD, HERE, key="k"))
        again = Operations(at.herd, at.place.clock, fetched=lambda _: None)
        request = OperationRequest(kind=Kind.LOAD, model=HERE)

        found = await again.start(request, ANN, key="k")
        assert (found.id, found.state) == (first.id, OperationState.SUCCEEDED)
        assert await again.get(first.id) is not first
        with pytest.raises(KeyReusedError):
            await again.start(
                OperationRequest(kind=Kind.UNLOAD, model=HERE), ANN, key="k"
            )

        at.place.time.stride_s = DAY_S
        await at.place.clock.sleep(DAY_S + 60)
        late = Operations(at.herd, at.place.clock, fetched=lambda _: None)
        with pytest.raises(UnknownOperationError):
            await late.get(first.id)
        anew = await late.start(request, ANN, key="k")
        assert anew.running
        await late.close()


async def test_keys_of_two_callers_are_two_keys(tmp_path: Path) -> None:
    async with desk(tmp_path / "herd.db") as at:
        ours = await at.ended(await at.begin(Kind.LOAD, HERE, key="k"))
        theirs = await at.ended(await at.begin(Kind.LOAD, HERE, key="k", by=BEN))

        assert ours.id != theirs.id


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb"])
async def test_keys_that_are_none(tmp_path: Path, key: str) -> None:
    async with desk(tmp_path / "herd.db") as at:
        with pytest.raises(BadRequestError):
            await at.begin(Kind.LOAD, HERE, key=key)


async def test_nothing_begins_once_it_stops(tmp_path: Path) -> None:
    async with desk(tmp_path / "herd.db") as at:
        pull = await at.begin(Kind.PULL, SLOW)
        await at.place.until(lambda: pull.progress is not None)

        await at.operations.close()

        assert pull.state is OperationState.INTERRUPTED
        assert await told(at.herd, SLOW) == ["PullStarted", "PullInterrupted"]
        with pytest.raises(StoppingError):
            await at.begin(Kind.LOAD, HERE)


async def test_fault_of_ours_is_told_without_its_text(tmp_path: Path) -> None:
    async with desk(tmp_path / "herd.db") as at:

        def broken(_: int) -> None:
            raise RuntimeError("hb_secret")

        at.operations = Operations(at.herd, at.place.clock, fetched=broken)
        pull = await at.ended(await at.begin(Kind.PULL, SLOW))

        assert pull.state is OperationState.FAILED
        assert pull.error is not None
        assert pull.error.code == "unexpected"
        assert "secret" not in pull.error.detail


async def test_only_so_many_ended_ones_are_remembered(tmp_path: Path) -> None:
    async with desk(tmp_path / "herd.db") as at:
        for number in range(REMEMBERED):
            request = OperationRequest(kind=Kind.REFRESH)
            old = Operation(f"{number:04}", request, "api:ann", at.place.clock.now())
            old.end(OperationState.SUCCEEDED, at.place.clock.now())
            at.operations._known[old.id] = old
        for _ in range(3):
            await at.ended(await at.begin(Kind.REFRESH))

        known = {one.id for one in at.operations.all()}
        assert len(known) <= REMEMBERED + 1
        assert "0000" not in known
        assert f"{REMEMBERED - 1:04}" in known
