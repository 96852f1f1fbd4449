"""Background tasks: restarted after any failure, and ended only by their owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from herdbook.core import Level, ManualClock
from herdbook.core.clock import settle
from herdbook.core.concurrency.supervisor import (
    LONGEST_WAIT_S,
    BackgroundTask,
    TaskStatus,
    check_tasks,
)
from herdbook.events.errors import StoreFullError

FULL = StoreFullError("herd.db", "has no space left", "Make room")


class Work:
    """Work that runs until a test makes it fail.

    Attributes:
        begun: How often it was started.
        succeeds: Whether it reports success when it starts.
        fails_with: Raised at the start, if there is anything.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.succeeds = False
        self.fails_with: BaseException | None = None
        self._next: asyncio.Future[None] | None = None

    async def __call__(self, task: BackgroundTask) -> None:
        self.begun += 1
        if self.fails_with:
            raise self.fails_with
        if self.succeeds:
            task.succeeded()
        self._next = asyncio.get_running_loop().create_future()
        await self._next

    async def ends(self, finish: Callable[[asyncio.Future[None]], object]) -> None:
        assert self._next is not None
        finish(self._next)
        await settle()


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Work, BackgroundTask, ManualClock]]:
    work, clock = Work(), ManualClock()
    task = BackgroundTask("worker", work, clock=clock)
    async with task.running():
        await settle()
        yield work, task, clock


async def test_any_exception_is_reported_and_the_task_restarted() -> None:
    async with running() as (work, task, clock):
        assert task.status == TaskStatus(name="worker")

        await work.ends(lambda one: one.set_exception(OverflowError("too big")))

        failed = task.status
        assert (failed.up, failed.code) == (False, "OverflowError")
        assert failed.failure == "unexpected error: OverflowError: too big"
        assert failed.failing_since == clock.now()
        assert failed.next_try_at is not None

        await clock.advance(1)

        assert work.begun == 2
        assert not task.status.up, "it has not done anything yet"
        task.succeeded()
        assert task.status == TaskStatus(name="worker", restarts=1)


async def test_known_error_is_reported_with_its_code() -> None:
    async with running() as (work, task, _):
        await work.ends(lambda one: one.set_exception(FULL))

        assert (task.status.code, task.status.failure) == ("store_full", str(FULL))


async def test_backoff_grows_up_to_a_limit_and_is_reset() -> None:
    async with running() as (work, task, clock):
        work.fails_with = FULL
        await work.ends(lambda one: one.set_exception(FULL))
        waits = []
        for _ in range(8):
            assert task.status.next_try_at is not None
            waits.append((task.status.next_try_at - clock.now()).total_seconds())
            await clock.advance(waits[-1])
        assert waits == [1, 2, 4, 8, 16, LONGEST_WAIT_S, LONGEST_WAIT_S, LONGEST_WAIT_S]
        assert task.status.failing_since == ManualClock().now()

        work.fails_with = None
        await clock.advance(LONGEST_WAIT_S)
        await clock.advance(LONGEST_WAIT_S)  # it ran well for so long
        await work.ends(lambda one: one.set_exception(FULL))

        assert task.status.next_try_at is not None
        assert (task.status.next_try_at - clock.now()).total_seconds() == 1


async def test_cancellation_of_an_awaited_task_does_not_end_it() -> None:
    async with running() as (work, task, clock):
        await work.ends(lambda one: one.cancel())
        assert task.status.code == "CancelledError"

        await clock.advance(1)

        assert work.begun == 2


@pytest.mark.parametrize("failing", [False, True])
async def test_task_ends_when_its_owner_leaves(*, failing: bool) -> None:
    async with running() as (work, _, clock):
        if failing:
            await work.ends(lambda one: one.set_exception(FULL))
        before = work.begun

    await clock.advance(100)
    assert work.begun == before
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_task_that_fails_to_end_is_not_restarted() -> None:
    begun = 0

    async def work(_: BackgroundTask) -> None:
        nonlocal begun
        begun += 1
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            raise FULL

    task = BackgroundTask("worker", work, clock=ManualClock())
    with pytest.raises(StoreFullError):
        async with asyncio.timeout(5), task.running():
            await settle()

    assert begun == 1


async def test_returning_task_is_finished() -> None:
    async with running() as (work, task, clock):
        await work.ends(lambda one: one.set_result(None))
        await clock.advance(100)

        assert work.begun == 1
        assert task.status == TaskStatus(name="worker")


def test_doctor_names_the_failing_task() -> None:
    failing = TaskStatus(name="log_writer", up=False, code="x", failure="it ended")
    well = TaskStatus(name="reconciler")

    assert check_tasks([]) == []
    assert [one.what for one in check_tasks([well])] == ["all running: reconciler"]
    (found,) = check_tasks([well, failing])
    assert found.level is Level.PROBLEM
    assert found.what == "log writer is failing: it ended"
