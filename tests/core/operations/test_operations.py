"""Operations: followed by several callers, ended exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from herdbook.core import OperationEndedError, PullProgress, StalledError
from herdbook.core.clock import settle
from herdbook.core.operations.operations import Ending, Operation, Operations
from herdbook.events.lifecycle import Activity
from herdbook.events.shared.cancellation import finish


class Work:
    """Work that continues until a test sets its end."""

    def __init__(self) -> None:
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.cleaned = False

    async def __call__(self, _: Operation) -> None:
        try:
            await self.end
        finally:
            await asyncio.sleep(0)
            self.cleaned = True


def so_far(completed: int) -> PullProgress:
    return PullProgress(completed_bytes=completed, total_bytes=100)


BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def a_start(
    operations: Operations,
    name: str,
    work: Callable[[Operation], Coroutine[Any, Any, None]],
) -> Operation:
    return operations.start(name, Activity.PULL, work, actor="api:ann", since=BEGAN)


@asynccontextmanager
async def begun() -> AsyncIterator[tuple[Operations, Operation, Work]]:
    operations, work = Operations(), Work()
    yield operations, a_start(operations, "a:1", work), work
    await operations.close()


async def followed(operation: Operation) -> list[int]:
    return [progress.completed_bytes async for progress in operation.follow()]


async def test_running_operation_is_found_by_its_model() -> None:
    async with begun() as (operations, operation, work):
        assert operations.get("a:1") is operation
        assert operations.get("b:1") is None
        assert operations.all() == [operation]
        work.end.set_result(None)
        await operation.wait()

        assert operations.get("a:1") is None
        assert operations.all() == []


async def test_follower_gets_the_newest_progress_and_no_backlog() -> None:
    async with begun() as (_, operation, work):
        following = asyncio.create_task(followed(operation))
        await settle()
        operation.publish(so_far(10))
        operation.publish(so_far(20))
        await settle()
        operation.publish(so_far(30))
        work.end.set_result(None)

        assert await following == [20, 30]


async def test_last_progress_reaches_the_follower() -> None:
    async with begun() as (operations, _, _):
        gate = asyncio.Event()

        async def work(operation: Operation) -> None:
            await gate.wait()
            operation.publish(so_far(100))

        operation = a_start(operations, "b:1", work)
        following = asyncio.create_task(followed(operation))
        await settle()
        gate.set()

        assert await following == [100]


async def test_ending_operation_cannot_be_joined() -> None:
    async with begun() as (operations, operation, work):
        await settle()
        assert await operations.joinable("a:1") is operation
        operation.cancel()

        assert await operations.joinable("a:1") is None

        assert work.cleaned


async def test_late_follower_starts_with_the_newest_progress() -> None:
    async with begun() as (_, operation, work):
        operation.publish(so_far(10))
        following = asyncio.create_task(followed(operation))
        await settle()
        work.end.set_result(None)

        assert await following == [10]


async def test_failure_is_raised_to_every_follower() -> None:
    async with begun() as (_, operation, work):
        tasks = [asyncio.create_task(operation.wait()) for _ in range(3)]
        await settle()
        work.end.set_exception(StalledError("a:1", seconds=20))

        ends = await asyncio.gather(*tasks, return_exceptions=True)

        assert [type(end) for end in ends] == [StalledError] * 3


async def test_failure_without_followers_is_not_a_stray_exception() -> None:
    async with begun() as (_, operation, work):
        work.end.set_exception(StalledError("a:1", seconds=20))

        await operation.ended()

        assert not operation.running


async def test_last_follower_that_leaves_cancels_the_work() -> None:
    async with begun() as (_, operation, work):
        await settle()
        operation.publish(so_far(10))
        async with aclosing(operation.follow()) as progress:
            await anext(progress)

        assert work.cleaned
        assert operation.ending is Ending.CANCELLED


async def test_other_followers_keep_the_operation_running() -> None:
    async with begun() as (_, operation, work):
        operation.publish(so_far(10))
        staying = asyncio.create_task(operation.wait())
        await settle()
        async with aclosing(operation.follow()) as progress:
            await anext(progress)

        assert operation.running
        work.end.set_result(None)
        await staying


async def test_cancelled_operation_raises_an_error() -> None:
    async with begun() as (_, operation, _):
        waiting = asyncio.create_task(operation.wait())
        await settle()
        operation.cancel()

        with pytest.raises(OperationEndedError, match=r"the pull of .* was cancelled"):
            await waiting


async def test_second_cancel_changes_nothing() -> None:
    async with begun() as (_, operation, work):
        await settle()
        operation.cancel()
        operation.cancel(Ending.INTERRUPTED)
        await operation.ended()

        assert work.cleaned
        assert operation.ending is Ending.CANCELLED


async def test_cancel_after_the_end_changes_nothing() -> None:
    async with begun() as (_, operation, work):
        work.end.set_result(None)
        await operation.ended()

        operation.cancel()

        assert operation.ending is None
        operation.result()


async def test_closing_interrupts_all_operations_and_waits_for_them() -> None:
    async with begun() as (operations, operation, work):
        await settle()

        await operations.close()

        assert work.cleaned
        assert operation.ending is Ending.INTERRUPTED
        with pytest.raises(OperationEndedError, match="interrupted"):
            operation.result()


async def test_work_that_starts_during_closing_is_interrupted() -> None:
    async with begun() as (operations, operation, _):
        later = Work()
        closing = asyncio.create_task(operations.close())
        await asyncio.sleep(0)
        begun_late = a_start(operations, "b:1", later)
        await settle()
        await closing

        assert not operation.running
        assert begun_late.ending is Ending.INTERRUPTED
        assert not begun_late.running


async def test_finish_completes_the_work_despite_cancellation() -> None:
    gate, done = asyncio.Event(), []

    async def work() -> None:
        await gate.wait()
        done.append(True)

    finishing = asyncio.create_task(finish(work()))
    await settle()
    finishing.cancel()
    await settle()
    assert not finishing.done()
    gate.set()

    with pytest.raises(asyncio.CancelledError):
        await finishing
    assert done == [True]


async def test_finish_raises_the_error_of_the_work() -> None:
    async def work() -> None:
        raise StalledError("a:1", seconds=20)

    with pytest.raises(StalledError):
        await finish(work())
