"""Faults that random histories have found, one test each."""

from __future__ import annotations

import asyncio

import pytest
from support.manager_fixture import pull_to_end, recorded_events, serve_manager

from herdbook.core import HerdbookError, ModelState, OperationEndedError

SHARED, OTHER = "plain:latest", "update-me:v2"
"""Two names with the same weights file and different digests."""


async def test_model_that_reappears_is_recognized_by_its_weights() -> None:
    async with serve_manager() as (server, manager):
        await server.delete(OTHER)
        await manager.refresh()
        await server.pull(OTHER)
        await manager.refresh()
        await manager.load(SHARED)
        assert (await manager.get_status(OTHER)).state is ModelState.LOADED


async def test_model_whose_details_failed_once_is_requested_again() -> None:
    async with serve_manager() as (server, manager):
        await server.delete(OTHER)
        await manager.refresh()
        await server.pull(OTHER)
        server.apply(answer={"path": "/api/show", "body": "<html>"})
        await manager.refresh()
        assert (await manager.get_status(OTHER)).weights is None
        await manager.refresh()
        assert (await manager.get_status(OTHER)).weights is not None
        before = await recorded_events(manager)
        await manager.refresh()
        assert await recorded_events(manager) == before


async def test_pull_that_is_cancelled_at_its_start_leaves_no_model_loading() -> None:
    async with serve_manager() as (_, manager):
        for turns in range(0, 60, 3):
            pulling = asyncio.create_task(pull_to_end(manager, "smollm2:135m"))
            for _ in range(turns):
                await asyncio.sleep(0)
            pulling.cancel()
            await asyncio.wait({pulling})
            assert (await manager.get_status("smollm2:135m")).work is None


async def test_closing_interrupts_operations_and_their_followers() -> None:
    async with serve_manager() as (server, manager):
        pulling = asyncio.create_task(pull_to_end(manager, "smollm2:135m"))
        await server.wait_until(lambda: server.request_count("/api/pull") == 1)
    with pytest.raises(OperationEndedError):
        await pulling


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\ud800", "x" * 100_000])
def test_error_is_one_line_for_any_subject(text: str) -> None:
    line = str(HerdbookError(text, text, text))
    assert line.isprintable()
    assert len(line.encode()) < 10_000
