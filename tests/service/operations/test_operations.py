"""Operations with a simulated clock, also with faults."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.manager_fixture import event_types, start_pull
from support.operations_fixture import ANN, BEN, INSTALLED, SLOW, open_operations

from herdbook.core import ModelManager, OperationEndedError
from herdbook.service.errors import (
    BadRequestError,
    KeyReusedError,
    StoppingError,
    UnknownOperationError,
)
from herdbook.service.operations.client_operations import REMEMBERED, ClientOperations
from herdbook.service.operations.operation import (
    Kind,
    Operation,
    OperationRequest,
    OperationState,
)

DAY_S = 24 * 3600.0


async def test_pull_reports_its_bytes_and_its_end(tmp_path: Path) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        pull = await fixture.wait_for(await fixture.start(Kind.PULL, SLOW))

        assert pull.state is OperationState.SUCCEEDED
        assert pull.ended_at is not None
        assert pull.ended_at > pull.started_at
        assert pull.progress is not None
        assert fixture.fetched == pull.progress.fetched_bytes
        assert fixture.fetched > 4_000_000_000


async def test_cancellation_has_the_actor_that_cancelled(tmp_path: Path) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        pull = await fixture.start(Kind.PULL, SLOW)
        await fixture.server.wait_until(lambda: pull.progress is not None)

        cancelled = await fixture.operations.cancel(pull.id, BEN)

        assert cancelled.state is OperationState.CANCELLED
        history = await fixture.manager.history(SLOW)
        assert [(e.type, e.actor) for e in history] == [
            ("PullStarted", "api:ann"),
            ("PullCancelled", "api:ben"),
        ]
        assert {e.correlation_id for e in history} == {pull.id}


async def test_operation_cancelled_before_its_start_is_not_recorded(
    tmp_path: Path,
) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        pull = await fixture.start(Kind.PULL, SLOW)
        cancelled = await fixture.operations.cancel(pull.id, ANN)

        assert cancelled.state is OperationState.CANCELLED
        recorded = await event_types(fixture.manager, SLOW)
        assert recorded in ([], ["PullStarted", "PullCancelled"])


async def test_unload_is_awaited_and_not_cancelled(tmp_path: Path) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        await fixture.wait_for(await fixture.start(Kind.LOAD, INSTALLED))
        unload = await fixture.start(Kind.UNLOAD, INSTALLED)

        ended = await fixture.operations.cancel(unload.id, ANN)

        assert (ended.state, ended.result) == (OperationState.SUCCEEDED, "unloaded")
        assert (await event_types(fixture.manager, INSTALLED))[-1] == "ModelUnloaded"


async def test_work_of_another_instance_is_followed_and_cancelled(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    async with (
        open_operations(log) as fixture,
        fixture.server.open_manager(log, refresh=False) as other,
    ):
        pulling = asyncio.create_task(_all(other, SLOW))
        await start_pull(other, SLOW)
        follow = await fixture.start(Kind.PULL, SLOW)
        await fixture.server.clock.sleep(2)

        cancelled = await fixture.operations.cancel(follow.id, ANN)

        assert cancelled.state is OperationState.CANCELLED
        await asyncio.wait([pulling])
        assert isinstance(pulling.exception(), OperationEndedError)
        assert await event_types(fixture.manager, SLOW) == [
            "PullStarted",
            "CancelRequested",
            "PullCancelled",
        ]


async def _all(manager: ModelManager, name: str) -> None:
    async for _ in manager.pull(name):
        pass


async def test_key_finds_its_operation_for_a_day(tmp_path: Path) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        first = await fixture.wait_for(
            await fixture.start(Kind.LOAD, INSTALLED, key="k")
        )
        again = fixture.restarted()
        request = OperationRequest(kind=Kind.LOAD, model=INSTALLED)

        found = await again.start(request, ANN, key="k")
        assert (found.id, found.state) == (first.id, OperationState.SUCCEEDED)
        assert await again.get(first.id) is not first
        with pytest.raises(KeyReusedError):
            await again.start(
                OperationRequest(kind=Kind.UNLOAD, model=INSTALLED), ANN, key="k"
            )

        fixture.server.time.stride_s = DAY_S
        await fixture.server.clock.sleep(DAY_S + 60)
        late = fixture.restarted()
        with pytest.raises(UnknownOperationError):
            await late.get(first.id)
        anew = await late.start(request, ANN, key="k")
        assert anew.running
        await late.close()


async def test_same_key_of_two_callers_means_two_operations(tmp_path: Path) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        ours = await fixture.wait_for(
            await fixture.start(Kind.LOAD, INSTALLED, key="k")
        )
        theirs = await fixture.wait_for(
            await fixture.start(Kind.LOAD, INSTALLED, key="k", by=BEN)
        )

        assert ours.id != theirs.id


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb"])
async def test_invalid_keys_are_refused(tmp_path: Path, key: str) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        with pytest.raises(BadRequestError):
            await fixture.start(Kind.LOAD, INSTALLED, key=key)


async def test_nothing_starts_after_the_stop(tmp_path: Path) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        pull = await fixture.start(Kind.PULL, SLOW)
        await fixture.server.wait_until(lambda: pull.progress is not None)

        await fixture.operations.close()

        assert pull.state is OperationState.INTERRUPTED
        assert await event_types(fixture.manager, SLOW) == [
            "PullStarted",
            "PullInterrupted",
        ]
        with pytest.raises(StoppingError):
            await fixture.start(Kind.LOAD, INSTALLED)


async def test_unexpected_error_is_reported_without_its_text(tmp_path: Path) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:

        def broken(_: int) -> None:
            raise RuntimeError("hb_secret")

        fixture.operations = ClientOperations(
            fixture.fleet, fixture.server.clock, fetched=broken
        )
        pull = await fixture.wait_for(await fixture.start(Kind.PULL, SLOW))

        assert pull.state is OperationState.FAILED
        assert pull.error is not None
        assert pull.error.code == "unexpected"
        assert "secret" not in pull.error.detail


async def test_limited_number_of_ended_operations_is_kept(tmp_path: Path) -> None:
    async with open_operations(tmp_path / "herd.db") as fixture:
        for number in range(REMEMBERED):
            request = OperationRequest(kind=Kind.REFRESH)
            old = Operation(
                f"{number:04}", request, "api:ann", fixture.server.clock.now()
            )
            old.end(OperationState.SUCCEEDED, fixture.server.clock.now())
            fixture.operations._known[old.id] = old
        for _ in range(3):
            await fixture.wait_for(await fixture.start(Kind.REFRESH))

        known = {one.id for one in fixture.operations.all()}
        assert len(known) <= REMEMBERED + 1
        assert "0000" not in known
        assert f"{REMEMBERED - 1:04}" in known
