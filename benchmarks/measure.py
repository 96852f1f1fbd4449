"""How figures are taken and shown: interleaved runs, medians, one table.

What is compared is run in turns, so that a slow minute of the machine meets all of
it. Nothing here judges by absolute speed: a goal that is missed is said, not raised.
"""

from __future__ import annotations

import gc
import os
import platform
import sqlite3
import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

import msgspec

Run: TypeAlias = Callable[[], Awaitable[float]]
"""One run of what is measured; it returns its own figure, such as seconds."""


class Kind(StrEnum):
    """What a goal is about."""

    RATIO = "ratio"
    OURS = "ours"
    MORE = "more"


class Goal(msgspec.Struct, frozen=True):
    """What is aimed at.

    Attributes:
        kind: The ratio is at least ``bound``, our figure at most, or what ours is
            more than the other's at most.
        bound: The bound, in the unit of the figure; a ratio has none.
    """

    kind: Kind
    bound: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table.

    Attributes:
        what: What was measured.
        unit: Of both figures; less is better in all of them.
        ours: Our figure.
        beside: The peer or the floor; empty where there is none.
        theirs: Its figure.
        goal: What is aimed at, if anything.
    """

    what: str
    unit: str
    ours: float
    beside: str = ""
    theirs: float | None = None
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """How many times as good as the other we are; below 1 is worse."""
        return None if self.theirs is None else self.theirs / self.ours

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.goal is None:
            return None
        if self.goal.kind is Kind.OURS:
            return self.ours <= self.goal.bound
        assert self.theirs is not None, "the goal compares with something"
        if self.goal.kind is Kind.MORE:
            return self.ours - self.theirs <= self.goal.bound
        return self.theirs / self.ours >= self.goal.bound


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was measured.

    Attributes:
        python: Version of the interpreter.
        sqlite: Version of SQLite.
        processors: How many there are.
        sync_us: What it takes to write a page and see it on the disk, µs. Whoever
            commits each command on its own pays it each time, so the ratios of
            commands grow with it.
    """

    python: str
    sqlite: str
    processors: int
    sync_us: float


def look_around(folder: Path) -> Machine:
    """Return where we are, and how fast the disk below a folder syncs."""
    page = bytes(4096)
    taken = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(50):
            begun = perf_counter()
            file.seek(0)
            file.write(page)
            os.fsync(file.fileno())
            taken.append(perf_counter() - begun)
    return Machine(
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        processors=os.cpu_count() or 1,
        sync_us=statistics.median(taken) * 1e6,
    )


def at_least(ratio: float) -> Goal:
    """Aim at being that many times as good as the other."""
    return Goal(Kind.RATIO, ratio)


def at_most(figure: float) -> Goal:
    """Aim at a figure of ours."""
    return Goal(Kind.OURS, figure)


def at_most_more(difference: float) -> Goal:
    """Aim at a figure that is not much more than the other's."""
    return Goal(Kind.MORE, difference)


async def interleave(rounds: int, *runs: Run) -> list[float]:
    """Return the median of each run's figures.

    They are run in turns, once more than ``rounds``: what the first round gives is
    not counted, since it fills caches.
    """
    figures: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds + 1):
        for run, taken in zip(runs, figures, strict=True):
            gc.collect()
            taken.append(await run())
    return [statistics.median(taken[1:]) for taken in figures]


def percentile(figures: Sequence[float], percent: int) -> float:
    """Return the figure that so many percent of all are not above."""
    return sorted(figures)[max(-(-len(figures) * percent // 100), 1) - 1]


def say(text: str) -> None:
    """Tell what is being measured, beside the table."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text."""
    head = ("what", "ours", "beside", "theirs", "ratio", "goal", "")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


_NUMBERS = (1, 3, 4, 5)
_MET = {None: "", True: "ok", False: "missed"}


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.what,
        _figure(row.ours, row.unit),
        row.beside,
        "" if row.theirs is None else _figure(row.theirs, row.unit),
        "" if row.ratio is None else f"{_digits(row.ratio)}x",
        _words(row),
        _MET[row.met],
    )


def _words(row: Row) -> str:
    if row.goal is None:
        return ""
    bound = f"{row.goal.bound:g}"
    match row.goal.kind:
        case Kind.RATIO:
            return f"≥ {bound}x"
        case Kind.OURS:
            return f"≤ {bound} {row.unit}"
        case Kind.MORE:
            return f"≤ {bound} {row.unit} more"


def _figure(figure: float, unit: str) -> str:
    return f"{_digits(figure)} {unit}"


def _digits(figure: float) -> str:
    """Return three digits that count: more would be noise."""
    if abs(figure) >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if abs(figure) >= 10 else f"{figure:.2f}"


def as_json(rows: Sequence[Row], machine: Machine) -> bytes:
    """Return the rows for programs, with what follows from them."""
    told = {
        "machine": machine,
        "rows": [
            {**msgspec.to_builtins(row), "ratio": row.ratio, "met": row.met}
            for row in rows
        ],
    }
    return msgspec.json.format(msgspec.json.encode(told))
