"""The past: the state and a difference at any position of a long log.

The models take turns, so that each stretch of the log has events of all of them. The
figures are those of the slowest of ten positions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks.dataset import copy_filled_in_turns, open_manager
from benchmarks.measure import Median, Row, at_most
from benchmarks.sizes import Sizes
from herdbook.core import ModelManager

POSITIONS = 10


async def run(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure questions about the past."""
    path = folder / "past.db"
    await copy_filled_in_turns(path, sizes.past, sizes.served)
    async with open_manager(path) as manager:
        first = await _timed(partial(manager.as_of, sizes.past))
        width = sizes.past // POSITIONS
        asked = [width * number + width // 2 for number in range(POSITIONS)]
        state = await _slowest(manager, asked, sizes.rounds, _as_of)
        change = await _slowest(manager, asked, sizes.rounds, _diff)
    what = f"{sizes.past:,} events, {sizes.served:,} models"
    return [
        Row(
            what=f"state at a position, {what}", unit="ms", ours=state, goal=at_most(50)
        ),
        Row(what=f"difference, {what}", unit="ms", ours=change, goal=at_most(100)),
        Row(what=f"first state, without snapshots, {what}", unit="ms", ours=first),
    ]


Ask = Callable[[ModelManager, int], Awaitable[object]]


async def _as_of(manager: ModelManager, position: int) -> object:
    return await manager.as_of(position)


async def _diff(manager: ModelManager, position: int) -> object:
    head = await manager.head()
    return await manager.diff(position, (position + head.position) // 2)


async def _slowest(
    manager: ModelManager, asked: list[int], rounds: int, ask: Ask
) -> Median:
    """Return the longest of the medians of each position, ms."""
    times: dict[int, list[float]] = {position: [] for position in asked}
    for _ in range(rounds):
        for position in asked:
            times[position].append(await _timed(partial(ask, manager, position)))
    return max(Median.of(taken) for taken in times.values())


async def _timed(ask: Callable[[], Awaitable[object]]) -> float:
    started = perf_counter()
    await ask()
    return (perf_counter() - started) * 1e3
