"""The fault campaign: thousands of faults, each with a number that repeats it.

Every trial runs in a process of its own, on a copy of prepared files, with a time
limit. What is right is decided by ``truth.py``, which reads the files without Herdbook.

    python -m campaign.faults.run --seed 1 --share 1 --out results.json
    python -m campaign.faults.run --seed 1 --only "bit flips in the log" --number 17
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from campaign.faults import hook
from campaign.faults.cancellation import CANCELLED, cancelled
from campaign.faults.crashes import (
    ERRORS,
    failing_disk,
    jumping_clock,
    killed_at_random,
    killed_at_step,
)
from campaign.faults.damage import FILES, damaged_file, prepare
from campaign.faults.hostile import hostile_server
from campaign.faults.operations import OPERATIONS, one_log
from campaign.faults.truth import InventedError, LostError, SilentError

from herdbook.cli.commands import register_all

LIMIT_S = 300
"""Seconds after which a trial counts as hung, on a busy machine."""

STEPS = 2_000
"""Steps after which an operation counts as endless."""

STOPPED = 3
"""Exit code of a worker that ``--minutes`` stopped."""

KINDS = {LostError: "lost", InventedError: "invented", SilentError: "unreported"}

Trial = Callable[[Path, Any, int, Random], int]


class FaultClass(NamedTuple):
    """A class of faults.

    Attributes:
        name: Its name in the table.
        case: What is hit.
        prepare: Makes the files; returns what the trial needs.
        trial: Makes one fault and checks; returns the number of faults.
        trials: How many there are at full length.
        until_end: Whether the first trial without a fault is the last one.
    """

    name: str
    case: str
    prepare: Callable[[Path], Any]
    trial: Trial
    trials: int
    until_end: bool = False

    @property
    def key(self) -> str:
        """The name for ``--only``."""
        return f"{self.name}: {self.case}" if self.case else self.name


def classes() -> Iterator[FaultClass]:
    """Yield all classes of faults."""
    for case, operation in OPERATIONS.items():
        trial = partial(_at_step, partial(killed_at_step, operation))
        yield FaultClass("kill at a step", case, operation.prepare, trial, STEPS, True)
    for kind in ERRORS if hook.shim() else ():
        for case, operation in OPERATIONS.items():
            trial = partial(_at_step, partial(failing_disk, operation, kind))
            yield FaultClass(kind, case, operation.prepare, trial, STEPS, True)
    for name, processes, trials in (
        ("kill at a random time", 1, 500),
        ("kill of one of two processes", 2, 100),
        ("kill of one of eight processes", 8, 40),
    ):
        trial = partial(_at_random, partial(killed_at_random, processes))
        yield FaultClass(name, "", one_log, trial, trials)
    for what in FILES:
        for how, name, trials in (
            ("flip", "flipped bits", 400),
            ("cut", "cut end", 150),
        ):
            trial = partial(damaged_file, what, how)
            yield FaultClass(name, what, prepare, trial, trials)
    yield FaultClass(
        "clock that jumps", "", one_log, partial(_at_random, jumping_clock), 50
    )
    yield FaultClass("hostile server", "", one_log, hostile_server, 180)
    yield FaultClass(
        "cancellation at an await", "", _nothing, cancelled, len(CANCELLED)
    )


def _nothing(_: Path) -> None:
    """Prepare nothing."""


def _at_step(
    trial: Callable[[Path, Any, int], int], work: Path, made: Any, n: int, _: Random
) -> int:
    return trial(work, made, n + 1)


def _at_random(
    trial: Callable[[Path, Any, Random], int], work: Path, made: Any, _: int, by: Random
) -> int:
    return trial(work, made, by)


def in_fork(work: Callable[[], Any], result: Path) -> dict[str, Any]:
    """Run something in a process of its own; return what it returned or raised."""
    known = set(sys.modules)
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        try:
            report: dict[str, Any] = {"value": work()}
        except BaseException as error:  # noqa: BLE001 - everything is a result here
            kind = next((k for t, k in KINDS.items() if isinstance(error, t)), "failed")
            report = {"problem": kind, "text": traceback.format_exc()[-3000:]}
        report["modules"] = [name for name in sys.modules if name not in known]
        result.write_text(json.dumps(report))
        os._exit(0)
    end = time.monotonic() + LIMIT_S
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"problem": "hung", "text": f"no end after {LIMIT_S} s"}
        time.sleep(0.002)
    if not result.exists():
        return {"problem": "failed", "text": "the process ended without a result"}
    found: dict[str, Any] = json.loads(result.read_text())
    result.unlink()
    for name in found.pop("modules"):  # the next fork finds them imported
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    return found


def prepared_files(
    how: Callable[[Path], Any], folder: Path, done: dict[Any, tuple[Path, Any]]
) -> tuple[Path, Any]:
    """Return prepared files and what their check needs; they are made once."""
    if how not in done:
        prepared = folder / f"prepared-{len(done)}"
        prepared.mkdir()
        made = in_fork(lambda: how(prepared), folder / "result")
        if "problem" in made:
            raise RuntimeError(f"cannot be prepared: {made['text']}")
        done[how] = prepared, _rows(made["value"])
    return done[how]


def run_class(
    chosen: FaultClass, folder: Path, made: tuple[Path, Any], seed: int, numbers: range
) -> Iterator[dict[str, Any]]:
    """Yield the report of each trial of a class."""
    prepared, value = made
    result = folder / "result"
    for number in numbers:
        trial = folder / "trial"
        trial.mkdir()
        shutil.copytree(prepared, trial / "work")
        chance = Random(f"{seed}/{chosen.key}/{number}")

        def act(n: int = number, chance: Random = chance, at: Path = trial) -> int:
            return chosen.trial(at / "work", value, n, chance)

        report = in_fork(act, result)
        shutil.rmtree(trial)
        if chosen.until_end and report.get("value") == 0:
            break
        yield {"class": chosen.name, "case": chosen.case, "number": number, **report}


def _rows(value: Any) -> Any:
    """Return prepared histories, which JSON made lists, as rows again."""
    from campaign.faults.truth import Row  # noqa: PLC0415

    if isinstance(value, list):
        if len(value) == 2 and all(isinstance(one, str) for one in value):
            return Row(*value)
        return [_rows(one) for one in value]
    return value


def numbers_of(chosen: FaultClass, share: float, seed: int) -> range:
    """Return the numbers of the trials that a share of the campaign runs."""
    if share >= 1:
        return range(chosen.trials)
    if chosen.until_end:
        stride = round(1 / share)
        return range(seed % stride, chosen.trials, stride)
    return range(max(round(chosen.trials * share), 1))


def work_through(options: argparse.Namespace, worker: int, folder: Path) -> bool:
    """Run the trials of this worker; return whether it came to their end.

    It takes one trial of each class in turn, so that a campaign that is stopped by
    ``--minutes`` has tried all classes.
    """
    register_all()
    end = time.monotonic() + options.minutes * 60
    done: dict[Any, tuple[Path, Any]] = {}
    own = folder / str(worker)
    own.mkdir()
    trials = []
    for chosen in classes():
        if options.only not in chosen.key:
            continue
        numbers = numbers_of(chosen, options.share, options.seed)
        if options.number is not None:
            numbers = range(options.number, options.number + 1)
        if mine := numbers[worker :: options.jobs]:
            made = prepared_files(chosen.prepare, own, done)
            trials.append(run_class(chosen, own, made, options.seed, mine))
    gc.freeze()  # forks share the memory of what is imported
    with (folder / f"reports-{worker}").open("w", buffering=1) as reports:
        while trials:
            for each in tuple(trials):
                if time.monotonic() > end:
                    return False
                report = next(each, None)
                if report is None:
                    trials.remove(each)
                    continue
                reports.write(json.dumps(report) + "\n")
                if "problem" in report:
                    _print_problem(options.seed, report)
    return True


def _print_problem(seed: int, report: dict[str, Any]) -> None:
    key = f"{report['class']}: {report['case']}" if report["case"] else report["class"]
    sys.stderr.write(
        f"{report['problem']}: --seed {seed} --only '{key}' --number "
        f"{report['number']}\n{report['text']}\n"
    )


def summary(
    options: argparse.Namespace, folder: Path, seconds: float, *, complete: bool
) -> dict[str, Any]:
    """Return the result of the campaign, by class."""
    table: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("reports-*")):
        for line in file.read_text().splitlines():
            report = json.loads(line)
            none = dict.fromkeys(["faults", *KINDS.values(), "hung", "failed"], 0)
            row = table.setdefault(report["class"], {"cases": [], **none})
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
        "seconds": round(seconds),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "skipped": [] if hook.shim() else list(ERRORS),
        "classes": table,
    }


def main() -> None:
    """Run the campaign, or a part of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--share", type=float, default=1.0, help="part of it, up to 1")
    parser.add_argument("--only", default="", metavar="CLASS")
    parser.add_argument("--number", type=int, help="repeat one trial")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=600, help="stop after these")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    sys.stderr.write(f"seed {options.seed}\n")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="herdbook-faults-") as name:
        folder = Path(os.path.realpath(name))
        if "HERDBOOK_SHIM" not in os.environ:
            shimmed = hook.with_shim(folder)
            environment = {**os.environ, **shimmed, "HERDBOOK_SHIM": "1"}
            again = [sys.executable, "-m", "campaign.faults.run", *sys.argv[1:]]
            again += ["--seed", str(options.seed)]
            sys.exit(os.spawnve(os.P_WAIT, sys.executable, again, environment))
        workers = []
        for worker in range(options.jobs):
            child = os.fork()
            if not child:
                code = 1
                try:
                    code = 0 if work_through(options, worker, folder) else STOPPED
                except BaseException:  # noqa: BLE001 - the parent sees the code
                    traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            workers.append(child)
        codes = {os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in workers}
        seconds = time.monotonic() - began
        result = summary(options, folder, seconds, complete=codes == {0})
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


if __name__ == "__main__":
    main()
