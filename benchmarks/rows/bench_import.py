"""Import: ``import herdbook.core``, compared with its dependencies."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, at_least, interleave
from benchmarks.sizes import Sizes

DEPENDENCIES = ("aiosqlite", "httpx", "msgspec", "structlog", "transitions")

PROGRAM = """
import sys, time
started = time.perf_counter()
import {modules}
print(time.perf_counter() - started, *sys.modules)
"""


async def run(folder: Path, sizes: Sizes) -> list[Row]:  # noqa: ARG001 - as all
    """Measure the import, each time in a new interpreter.

    The library loads httpx and structlog when they are first used; the second row
    leaves them out on both sides.
    """
    _, loaded = _import("herdbook.core")
    needed = [name for name in DEPENDENCIES if name in loaded]
    medians = await interleave(
        sizes.rounds,
        partial(_run, "herdbook.core"),
        partial(_run, ", ".join(DEPENDENCIES)),
        partial(_run, ", ".join(needed)),
    )
    ours, everything, theirs = (median * 1e3 for median in medians)
    return [
        Row(
            what="import herdbook.core",
            unit="ms",
            ours=ours,
            beside=f"import {beside}",
            theirs=cost,
            goal=goal,
        )
        for beside, cost, goal in (
            ("its five dependencies", everything, at_least(0.71)),
            (", ".join(needed), theirs, None),
        )
    ]


async def _run(modules: str) -> float:
    seconds, _ = _import(modules)
    return seconds


def _import(modules: str) -> tuple[float, set[str]]:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(modules=modules)],
        capture_output=True,
        check=True,
        text=True,
    )
    seconds, *loaded = ran.stdout.split()
    return float(seconds), set(loaded)
