"""Answers in time slices are of one position, whatever is recorded meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import pytest
from support.manager_fixture import serve_manager

from herdbook.core import ModelManager, ModelRole
from herdbook.core.concurrency import time_slice
from herdbook.core.history.diff import difference
from herdbook.presentation import shapes

NAME = "llava:7b"
T = TypeVar("T")


@pytest.fixture(autouse=True)
def shortest_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other tasks run at every checkpoint."""
    monkeypatch.setattr(time_slice, "SLICE_S", 0.0)


async def while_used(manager: ModelManager, answer: Awaitable[T]) -> T:
    """Wait for an answer while all models are used again and again."""
    names = [status.name for status in await manager.all_statuses()]

    async def use() -> None:
        while True:
            for name in names:
                await manager.mark_used(name)
                await asyncio.sleep(0)

    before = (await manager.head()).position
    using = asyncio.create_task(use())
    try:
        while (await manager.head()).position == before:
            await asyncio.sleep(0)
        return await answer
    finally:
        using.cancel()


async def test_fixed_read_model_does_not_change() -> None:
    async with serve_manager() as (_, manager):
        live = await manager.now()
        fixed = live.fixed()
        before = await shapes.as_of(fixed, [])
        figures = fixed.statistics(NAME)
        order = fixed.explain(ModelRole.GENERAL)

        await manager.load(NAME)
        await manager.configure(NAME, {"num_ctx": 1024})
        await manager.mark_used(NAME)

        assert await shapes.as_of(fixed, []) == before
        assert fixed.statistics(NAME) == figures
        assert fixed.explain(ModelRole.GENERAL) == order
        assert live.position > fixed.position
        assert live.statistics(NAME) != figures


async def test_past_read_model_is_already_fixed() -> None:
    async with serve_manager() as (_, manager):
        past = await manager.as_of(1)

        assert past.fixed() is past


async def test_status_built_in_slices_matches_its_position() -> None:
    roles = [role.value for role in ModelRole]
    async with serve_manager() as (_, manager):
        for _ in range(10):
            result = await while_used(manager, shapes.as_of(await manager.now(), roles))

            then = await manager.as_of(result.position)
            assert result == await shapes.as_of(then, roles)


async def test_difference_built_in_slices_matches_its_positions() -> None:
    async with serve_manager() as (_, manager):
        one = await manager.as_of(1)
        await manager.load(NAME)
        for _ in range(10):
            found = await while_used(manager, difference(one, await manager.now()))

            assert found == await manager.diff(1, found.until)


async def test_replay_can_be_cancelled_at_every_checkpoint() -> None:
    async with serve_manager() as (_, manager):
        head = (await manager.head()).position
        for turns in range(3 * head):
            replaying = asyncio.create_task(manager.as_of(head))
            for _ in range(turns):
                await asyncio.sleep(0)
            replaying.cancel()
            await asyncio.wait([replaying])

        expected = await shapes.as_of(await manager.now(), [])
        assert await shapes.as_of(await manager.as_of(head), []) == expected
