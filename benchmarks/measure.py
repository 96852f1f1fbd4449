"""Measure and report: interleaved runs, medians, one table.

Compared runs are interleaved, so that a slow minute of the machine affects all of them.
A missed goal is reported, not raised.
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
from typing import Self, TypeAlias

import msgspec

Run: TypeAlias = Callable[[], Awaitable[float]]
"""One run; it returns its own figure, such as seconds."""


class Kind(StrEnum):
    """The kind of a goal."""

    RATIO = "ratio"
    OURS = "ours"
    MORE = "more"


class Goal(msgspec.Struct, frozen=True):
    """A goal for a figure.

    Attributes:
        kind: A minimum ratio, a maximum for our figure, or a maximum difference to the
            other figure.
        bound: The bound, in the unit of the figure; ratios have no unit.
    """

    kind: Kind
    bound: float


class Median(float):
    """The median of figures, which also has their spread.

    Attributes:
        spread: The interquartile range of the figures divided by their median; half of
            them are that close to each other. It stays the same in another unit. None
            for a single figure.
    """

    spread: float | None

    def __new__(cls, value: float, spread: float | None) -> Self:
        """Return a median with a known spread."""
        median = super().__new__(cls, value)
        median.spread = spread
        return median

    @classmethod
    def of(cls, figures: Sequence[float]) -> Self:
        """Return the median of figures."""
        median = statistics.median(figures)
        if len(figures) == 1 or not median:
            return cls(median, None)
        low, _, high = statistics.quantiles(figures, n=4, method="inclusive")
        return cls(median, (high - low) / median)

    def __mul__(self, factor: float) -> Self:
        """Return the median in another unit."""
        return type(self)(float(self) * factor, self.spread)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table.

    Attributes:
        what: The subject.
        unit: The unit of both figures; lower is better in all units.
        ours: Our figure; a ``Median`` if it is one of several runs.
        beside: The peer or the floor; empty if there is none.
        theirs: Its figure, like ours.
        goal: The goal, if any.
    """

    what: str
    unit: str
    ours: float
    beside: str = ""
    theirs: float | None = None
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """How many times better our figure is; below 1 is worse."""
        return None if self.theirs is None else self.theirs / self.ours

    @property
    def spread(self) -> float | None:
        """The spread of our figure; None if it is not a median."""
        return self.ours.spread if isinstance(self.ours, Median) else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.goal is None:
            return None
        if self.goal.kind is Kind.OURS:
            return self.ours <= self.goal.bound
        assert self.theirs is not None, "the goal compares with something"
        if self.goal.kind is Kind.MORE:
            return self.ours - self.theirs <= self.goal.bound
        return self.theirs / self.ours >= self.goal.bound


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine of the run.

    Attributes:
        system: Operating system, its version and the kind of processor.
        python: Version of the interpreter.
        sqlite: Version of SQLite.
        processors: Number of processors.
        sync_us: Time to write a page and sync it to the disk, µs. A program that
            commits each command separately pays it each time, so the ratios of
            commands grow with it.
    """

    system: str
    python: str
    sqlite: str
    processors: int
    sync_us: float


def describe_machine(folder: Path) -> Machine:
    """Return the versions, and how fast the disk of a folder syncs."""
    page = bytes(4096)
    taken = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(50):
            started = perf_counter()
            file.seek(0)
            file.write(page)
            os.fsync(file.fileno())
            taken.append(perf_counter() - started)
    return Machine(
        system=platform.platform(),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        processors=os.cpu_count() or 1,
        sync_us=statistics.median(taken) * 1e6,
    )


def at_least(ratio: float) -> Goal:
    """Require a minimum ratio."""
    return Goal(Kind.RATIO, ratio)


def at_most(figure: float) -> Goal:
    """Require a maximum for our figure."""
    return Goal(Kind.OURS, figure)


def at_most_more(difference: float) -> Goal:
    """Require a maximum difference to the other figure."""
    return Goal(Kind.MORE, difference)


async def interleave(rounds: int, *runs: Run) -> list[Median]:
    """Return the median of each run's figures.

    The runs take turns, once more than ``rounds``: the first round fills caches and
    does not count.
    """
    figures: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds + 1):
        for run, taken in zip(runs, figures, strict=True):
            gc.collect()
            taken.append(await run())
    return [Median.of(taken[1:]) for taken in figures]


def percentile(figures: Sequence[float], percent: int) -> float:
    """Return the figure that this percentage of all figures does not exceed."""
    return sorted(figures)[max(-(-len(figures) * percent // 100), 1) - 1]


def print_progress(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text."""
    head = ("figure", "herdbook", "spread", "compared with", "", "ratio", "goal", "")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


_NUMBERS = (1, 2, 4, 5, 6)
_MET = {None: "", True: "ok", False: "missed"}


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.what,
        _figure(row.ours, row.unit),
        "" if row.spread is None else f"{row.spread * 100:.0f}%",
        row.beside,
        "" if row.theirs is None else _figure(row.theirs, row.unit),
        "" if row.ratio is None else f"{_digits(row.ratio)}x",
        _goal_text(row),
        _MET[row.met],
    )


def _goal_text(row: Row) -> str:
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
    """Return three significant digits."""
    if abs(figure) >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if abs(figure) >= 10 else f"{figure:.2f}"
