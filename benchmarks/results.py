"""The result of a run as JSON, so that runs can be compared later.

A file holds a ``Result``. Programs that read it check ``schema`` first: fields may be
added under the same number, and a new number means that a field changed or went.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from benchmarks.measure import Goal, Machine, Median, Row

SCHEMA = 1
FOLDER = Path(__file__).parent / "results"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A row with what follows from it.

    The attributes are those of ``Row``. A spread is that of a ``Median``: the
    interquartile range of the runs divided by their median; None for another figure.
    """

    what: str
    unit: str
    ours: float
    beside: str
    theirs: float | None
    goal: Goal | None
    ratio: float | None
    met: bool | None
    spread: float | None
    their_spread: float | None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one run measured.

    Attributes:
        schema: The number of this form.
        started: When the run started, with its offset from UTC.
        seconds: How long it took.
        commit: The commit of the checkout, with ``+`` if files were changed since;
            None outside a checkout.
        rounds: Interleaved runs of each figure, whose median is given.
        load: Load averages of 1, 5 and 15 minutes when the run started and when it
            ended. The run itself adds about 1; more means that others were busy.
        machine: Where it ran.
        rows: The figures, in the order of the table.
    """

    schema: int
    started: datetime
    seconds: float
    commit: str | None
    rounds: int
    load: tuple[tuple[float, float, float], tuple[float, float, float]]
    machine: Machine
    rows: list[Figure]


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return the rows with ratios and met goals."""
    return [
        Figure(
            what=row.what,
            unit=row.unit,
            ours=float(row.ours),
            beside=row.beside,
            theirs=None if row.theirs is None else float(row.theirs),
            goal=row.goal,
            ratio=row.ratio,
            met=row.met,
            spread=row.spread,
            their_spread=row.theirs.spread if isinstance(row.theirs, Median) else None,
        )
        for row in rows
    ]


def commit() -> str | None:
    """Return the commit of this checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],
            cwd=Path(__file__).parent,
            capture_output=True,
            check=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def write(result: Result, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")


def place(started: datetime) -> Path:
    """Return where the result of a whole run is kept."""
    return FOLDER / f"{started:%Y%m%dT%H%M%S}.json"
