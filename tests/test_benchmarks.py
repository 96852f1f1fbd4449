"""The benchmarks run; their figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)  # the first of them waits for the run

ROOT = Path(__file__).parent.parent

GOALS = {
    "one durable append, alone": "≥ 0.6x",
    "command, 10 callers": "≥ 9x",
    "command, 100 callers": "≥ 15x",
    "command, 100 callers, p99": "≤ 6 ms",
    "command, PostgreSQL, 1 instance, 100 callers": "≥ 3x",
    "command, PostgreSQL, 4 instances, 100 callers": "≥ 3x",
    "rebuild of the status view": "≥ 0.5x",
    "rebuild of the status view, chain verified": "≥ 0.28x",
    "verification, an event": "≤ 8 µs",
    "replay, one stream": "≥ 50x",
    "open from a snapshot": "≤ 50 ms more",
    "fold of usage, an event": "≤ 4 us",
    "memory of a model": "≤ 4 kB",
    "status of 20 models over HTTP": "≥ 0.5x",
    "gateway: time to first byte, p50": "≤ 0.3 ms more",
    "gateway: time to first byte, p99": "≤ 1.5 ms more",
    "gateway: 1,000 requests of 50 clients": "≤ 250 ms",
    "gateway over 3 nodes: time to first byte, p50": "≤ 1.5 ms more",
}


class Ran:
    """What one run of all benchmarks printed and kept."""

    def __init__(self, text: str, kept: dict[str, Any], folder: Path) -> None:
        self.lines = text.splitlines()
        self.kept = kept
        self.machine = kept["machine"]
        self.rows = kept["rows"]
        self.folder = folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Run all of them, with sizes that say nothing."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-W", "error", "-m", "benchmarks", "--quick"]
    made = subprocess.run(
        [*command, "--json", str(folder / "rows.json")],
        cwd=folder,
        capture_output=True,
        check=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )
    return Ran(made.stdout, json.loads((folder / "rows.json").read_bytes()), folder)


@pytest.mark.parametrize("what", GOALS)
def test_table_shows_each_goal_and_whether_it_is_met(ran: Ran, what: str) -> None:
    lines = [
        line for line in ran.lines if line.startswith(what) and GOALS[what] in line
    ]

    assert lines
    assert {line.split()[-1] for line in lines} <= {"ok", "missed"}


def test_table_has_a_line_for_each_row(ran: Ran) -> None:
    result = ran.lines[1 : ran.lines.index("")]

    assert [row["what"] for row in ran.rows] == [
        line[: len(row["what"])] for line, row in zip(result, ran.rows, strict=True)
    ]


def test_rows_compare_with_the_figure_they_name(ran: Ran) -> None:
    for row in ran.rows:
        assert (row["theirs"] is None) == (row["beside"] == "")
        assert row["theirs"] is None or row["ratio"] == pytest.approx(
            row["theirs"] / row["ours"]
        )


def test_figures_are_more_than_nothing(ran: Ran) -> None:
    figures = [row[side] for row in ran.rows for side in ("ours", "theirs")]

    assert min(figure for figure in figures if figure is not None) > 0


def test_result_describes_the_machine(ran: Ran) -> None:
    assert set(ran.machine) == {"system", "python", "sqlite", "processors", "sync_us"}


def test_result_is_kept_in_a_stable_form(ran: Ran) -> None:
    assert ran.kept["schema"] == 1
    assert set(ran.kept) == {
        "schema",
        "started",
        "seconds",
        "commit",
        "rounds",
        "load",
        "machine",
        "rows",
    }
    assert {frozenset(row) for row in ran.rows} == {
        frozenset(
            (
                *("what", "unit", "ours", "beside", "theirs", "goal", "ratio", "met"),
                *("spread", "their_spread"),
            )
        )
    }
    assert [len(averages) for averages in ran.kept["load"]] == [3, 3]


def test_nothing_is_left_behind(ran: Ran) -> None:
    assert ran.rows
    assert list((ran.folder / "build").iterdir()) == []
