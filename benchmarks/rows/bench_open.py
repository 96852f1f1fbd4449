"""Opening: a long log with a snapshot, compared with an empty one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks.dataset import fill, open_manager
from benchmarks.measure import Row, at_most_more, interleave
from benchmarks.sizes import Sizes


async def run(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure opening a manager."""
    full, empty = folder / "full.db", folder / "empty.db"
    await fill(full, sizes.opened, sizes.models)
    async with open_manager(empty):
        pass
    medians = await interleave(
        sizes.rounds, partial(_open, full), partial(_open, empty)
    )
    ours, theirs = (median * 1e3 for median in medians)
    return [
        Row(
            what=f"open from a snapshot, {sizes.opened:,} events",
            unit="ms",
            ours=ours,
            beside="open an empty log",
            theirs=theirs,
            goal=at_most_more(50),
        )
    ]


async def _open(path: Path) -> float:
    started = perf_counter()
    async with open_manager(path):
        return perf_counter() - started
