"""The fault campaign: thousands of faults, each with a number that repeats it.

Every trial works on a copy of prepared files, with a time limit. What is right is
decided by ``truth.py``, which reads the files without Herdbook.

    python -m campaign.faults.run --seed 1 --share 1 --out results.json
    python -m campaign.faults.run --seed 1 --only "flipped bits: the log" --number 17
    python -m campaign.faults.run --seed 1 --minutes 8 --reports folder  # continues
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from campaign.faults import hook
from campaign.faults.classes import FaultClass, classes, numbers_of
from campaign.faults.crashes import ERRORS
from campaign.faults.processes import KINDS, Report, in_process
from campaign.faults.truth import Row

from herdbook.cli.commands import register_all

BATCH = 25
"""Trials in one process."""

STOPPED = 3
"""Exit code of a worker that ``--minutes`` stopped."""


class FinishedTrials:
    """Trials that are reported, in this run or in earlier ones with the same folder."""

    def __init__(self, folder: Path) -> None:
        self._numbers: defaultdict[str, set[int]] = defaultdict(set)
        self._ends: dict[str, int] = {}
        self._until_end = {one.key for one in classes() if one.until_end}
        self.reports: list[Report] = []
        self.seconds = 0.0
        for file in sorted(folder.glob("reports-*")):
            for line in file.read_text().splitlines():
                self._take(json.loads(line))

    def _take(self, report: Report) -> None:
        if "seconds" in report:
            self.seconds += report["seconds"]
        elif report.get("value") == 0 and report["key"] in self._until_end:
            end = self._ends.get(report["key"], report["number"])
            self._ends[report["key"]] = min(end, report["number"])
        elif report["number"] not in self._numbers[report["key"]]:
            self._numbers[report["key"]].add(report["number"])
            self.reports.append(report)

    def without(self, key: str, numbers: range) -> list[int]:
        """Return the numbers of a class that are left."""
        end = self._ends.get(key, numbers.stop)
        return [n for n in numbers if n < end and n not in self._numbers[key]]


class PlannedTrials(NamedTuple):
    """Trials of a class that are to be run.

    Attributes:
        chosen: The class.
        files: The prepared files.
        value: What its check needs.
        numbers: The trials.
    """

    chosen: FaultClass
    files: Path
    value: Any
    numbers: list[int]


def plan(options: argparse.Namespace, folder: Path) -> list[PlannedTrials]:
    """Prepare the files of all classes; return the trials that are left."""
    register_all()
    before = FinishedTrials(folder)
    prepared: dict[Any, tuple[Path, Any]] = {}
    planned = []
    for chosen in classes():
        if options.only not in chosen.key:
            continue
        numbers = numbers_of(chosen, options.share, options.seed)
        if options.number is not None:
            numbers = range(options.number, options.number + 1)
        if left := before.without(chosen.key, numbers):
            if chosen.prepare not in prepared:
                files = options.scratch / f"prepared-{len(prepared)}"
                prepared[chosen.prepare] = files, _prepare(chosen, files)
            planned.append(PlannedTrials(chosen, *prepared[chosen.prepare], left))
    return planned


def _prepare(chosen: FaultClass, files: Path) -> Any:
    files.mkdir()
    (made,) = in_process(lambda _: chosen.prepare(files), [0])
    if "problem" in made:
        raise RuntimeError(f"cannot be prepared: {made['text']}")
    return _rows(made["value"])


def _rows(value: Any) -> Any:
    """Return prepared histories, which JSON made lists, as rows again."""
    if isinstance(value, list):
        if len(value) == 2 and all(isinstance(one, str) for one in value):
            return Row(*value)
        return [_rows(one) for one in value]
    return value


def run_class(
    planned: PlannedTrials, own: Path, seed: int, numbers: list[int]
) -> Iterator[list[Report]]:
    """Yield the reports of each batch of trials of a class."""
    chosen = planned.chosen

    def trial(number: int) -> int:
        folder = own / f"trial-{number}"
        folder.mkdir()
        os.chdir(folder)
        shutil.copytree(planned.files, folder / "work")
        chance = Random(f"{seed}/{chosen.key}/{number}")
        try:
            return chosen.trial(folder / "work", planned.value, number, chance)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    for begin in range(0, len(numbers), BATCH):
        batch = numbers[begin : begin + BATCH]
        reports = []
        for report in in_process(trial, batch, until_zero=chosen.until_end):
            more = {"key": chosen.key, "class": chosen.name, "case": chosen.case}
            reports.append({**more, **report})
        yield reports
        if chosen.until_end and reports[-1].get("value") == 0:
            return
        for left in own.glob("trial-*"):
            shutil.rmtree(left, ignore_errors=True)


def run_trials(
    options: argparse.Namespace, planned: list[PlannedTrials], worker: int, folder: Path
) -> bool:
    """Run the trials of this worker; return whether it came to their end.

    It takes a batch of each class in turn, so that a campaign that is stopped by
    ``--minutes`` has tried all classes.
    """
    end = time.monotonic() + options.minutes * 60
    own = options.scratch / str(worker)
    own.mkdir()
    jobs = options.jobs
    trials = [  # the single trial of a class is not always that of the first worker
        run_class(each, own, options.seed, each.numbers[(worker + nth) % jobs :: jobs])
        for nth, each in enumerate(planned)
    ]
    file = folder / f"reports-{time.time():.0f}-{worker}"
    with file.open("w", buffering=1) as reports:
        while trials:
            for each in tuple(trials):
                if time.monotonic() > end:
                    return False
                batch = next(each, None)
                if batch is None:
                    trials.remove(each)
                for report in batch or ():
                    reports.write(json.dumps(report) + "\n")
                    if "problem" in report:
                        _print_problem(options.seed, report)
    return True


def _print_problem(seed: int, report: Report) -> None:
    sys.stderr.write(
        f"{report['problem']}: --seed {seed} --only '{report['key']}' --number "
        f"{report['number']}\n{report['text']}\n"
    )


def summary(
    options: argparse.Namespace, folder: Path, *, complete: bool
) -> dict[str, Any]:
    """Return the result of the campaign, by class."""
    done = FinishedTrials(folder)
    table: dict[str, dict[str, Any]] = {}
    for chosen in classes():
        none = dict.fromkeys(["faults", *KINDS.values(), "hung", "failed"], 0)
        table.setdefault(chosen.name, {"cases": [], **none})
    for report in done.reports:
        row = table[report["class"]]
        row["faults"] += report.get("value", 1)
        if report["case"] and report["case"] not in row["cases"]:
            row["cases"].append(report["case"])
        if "problem" in report:
            row[report["problem"]] += 1
    return {
        "seed": options.seed,
        "share": options.share,
        "complete": complete,
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(done.seconds),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "skipped": [] if hook.shim() else list(ERRORS),
        "classes": {name: row for name, row in table.items() if row["faults"]},
    }


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--share", type=float, default=1.0, help="part of it, up to 1")
    parser.add_argument("--only", default="", metavar="CLASS")
    parser.add_argument("--number", type=int, help="repeat one trial")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=600, help="stop after these")
    parser.add_argument(
        "--reports",
        type=Path,
        metavar="FOLDER",
        help="keep the report of each trial there, and continue after earlier ones",
    )
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    return parser.parse_args()


def main() -> None:
    """Run the campaign, or a part of it."""
    options = _parsed()
    sys.stderr.write(f"seed {options.seed}\n")
    with tempfile.TemporaryDirectory(prefix="herdbook-faults-") as name:
        options.scratch = Path(os.path.realpath(name))
        if "HERDBOOK_SHIM" not in os.environ:
            shimmed = hook.with_shim(options.scratch)
            environment = {**os.environ, **shimmed, "HERDBOOK_SHIM": "1"}
            again = [sys.executable, "-m", "campaign.faults.run", *sys.argv[1:]]
            again += ["--seed", str(options.seed)]
            sys.exit(os.spawnve(os.P_WAIT, sys.executable, again, environment))
        folder = (options.reports or options.scratch).resolve()
        folder.mkdir(exist_ok=True)
        codes = _run_workers(options, folder)
        result = summary(options, folder, complete=codes == {0})
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    problems = sum(
        row[kind]
        for row in result["classes"].values()
        for kind in (*KINDS.values(), "hung", "failed")
    )
    sys.exit(1 if problems or codes - {0, STOPPED} else 0)


def _run_workers(options: argparse.Namespace, folder: Path) -> set[int]:
    """Share the trials among processes; return their exit codes."""
    began = time.monotonic()
    planned = plan(options, folder)
    gc.freeze()  # forks share the memory of what is imported
    workers = []
    for worker in range(options.jobs):
        child = os.fork()
        if not child:
            code = 1
            try:
                ended = run_trials(options, planned, worker, folder)
                code = 0 if ended else STOPPED
            except BaseException:  # noqa: BLE001 - the parent sees the code
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        workers.append(child)
    codes = {os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in workers}
    seconds = {"seconds": round(time.monotonic() - began)}
    (folder / f"reports-{time.time():.0f}-time").write_text(json.dumps(seconds) + "\n")
    return codes


if __name__ == "__main__":
    main()
