"""Trials in processes of their own, some dozens in each.

A trial that ends its process, or does not end at all, is the result of that trial; the
others continue in a new process.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from campaign.faults.truth import InventedError, LostError, SilentError

LIMIT_S = 300
"""Seconds after which a trial counts as hung, on a busy machine."""

KINDS = {LostError: "lost", InventedError: "invented", SilentError: "unreported"}

Report = dict[str, Any]
Work = Callable[[int], Any]


def in_process(
    work: Work, numbers: Sequence[int], *, until_zero: bool = False
) -> Iterator[Report]:
    """Run numbered trials in another process; yield the report of each.

    Args:
        work: Runs one trial.
        numbers: The trials.
        until_zero: Whether a trial that returns 0 is the last one.
    """
    left = list(numbers)
    while left:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            _run(work, left, writer, until_zero)
        os.close(writer)
        problem = {"problem": "failed", "text": "the process ended without a result"}
        for line in _lines(reader):
            if line is None:
                os.killpg(child, signal.SIGKILL)
                problem = {"problem": "hung", "text": f"no end after {LIMIT_S} s"}
                break
            report = json.loads(line)
            for name in report.pop("modules"):  # the next fork finds them imported
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
            left.remove(report["number"])
            if until_zero and report.get("value") == 0:
                left.clear()
            yield report
        os.close(reader)
        os.waitpid(child, 0)
        if left:
            yield {"number": left.pop(0), **problem}


def _run(work: Work, numbers: Sequence[int], writer: int, until_zero: bool) -> None:
    """Run trials, write the report of each, and end this process."""
    os.setpgid(0, 0)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    gc.freeze()  # so that the memory of the parent stays shared
    known = set(sys.modules)
    for number in numbers:
        report: Report = {"number": number}
        try:
            report["value"] = work(number)
        except BaseException as error:  # noqa: BLE001 - everything is a result here
            kind = next((k for t, k in KINDS.items() if isinstance(error, t)), "failed")
            report |= {"problem": kind, "text": traceback.format_exc()[-3000:]}
        report["modules"] = [name for name in sys.modules if name not in known]
        known.update(report["modules"])
        os.write(writer, json.dumps(report).encode() + b"\n")
        if until_zero and report.get("value") == 0:
            break
    os._exit(0)


def _lines(reader: int) -> Iterator[bytes | None]:
    """Yield the lines of a pipe to its end; None if none came for too long."""
    rest = b""
    while True:
        if not select.select([reader], [], [], LIMIT_S)[0]:
            yield None
            return
        if not (more := os.read(reader, 65536)):
            return
        *whole, rest = (rest + more).split(b"\n")
        yield from whole
