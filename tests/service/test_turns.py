"""Long work is done in slices: others have their turn meanwhile."""

from __future__ import annotations

import asyncio
from time import perf_counter

from herdbook.service.templating import rendered, rendered_in_slices
from herdbook.service.turns import SLICE_S, Turns


async def test_others_have_their_turn() -> None:
    times = 0

    async def count() -> None:
        nonlocal times
        while True:
            times += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count())
    turns, until = Turns(), perf_counter() + 10 * SLICE_S
    while perf_counter() < until:
        await turns.give()
    other.cancel()

    assert times >= 3


async def test_a_page_in_slices_is_the_same_page() -> None:
    values = {"wanted": "/", "wrong": "a\u202eb <b>", "remedy": "c"}

    page = await rendered_in_slices("login.html", **values)

    assert page == rendered("login.html", **values)
    assert "a\\u202eb &lt;b&gt;" in page
