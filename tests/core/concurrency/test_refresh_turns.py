"""The refreshes of many nodes share the time of one process."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from herdbook.core.concurrency.refresh_turns import REFRESHES_AT_ONCE, RefreshTurns


async def test_nodes_are_refreshed_less_often_the_more_there_are() -> None:
    turns = RefreshTurns()
    with turns.joined():
        assert turns.refresh_every_s(5.0) == 5.0
        assert turns.poll_every_s(2.0) == 2.0
        with ExitStack() as stack:
            for _ in range(999):
                stack.enter_context(turns.joined())
            assert turns.refresh_every_s(5.0) == 25.0
            assert turns.refresh_every_s(60.0) == 60.0
            assert turns.poll_every_s(2.0) == 10.0
        assert turns.refresh_every_s(5.0) == 5.0


async def test_a_turn_is_waited_for_and_returned() -> None:
    turns, running, most = RefreshTurns(), 0, 0

    async def refresh() -> None:
        nonlocal running, most
        async with turns:
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(refresh() for _ in range(3 * REFRESHES_AT_ONCE)))

    assert most == REFRESHES_AT_ONCE
    assert running == 0
