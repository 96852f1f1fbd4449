"""The classes of faults, and how many trials each has at full length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from campaign.faults import hook
from campaign.faults.archives import archived_log, damaged_archive
from campaign.faults.cancellation import CANCELLED, cancelled
from campaign.faults.crashes import (
    ERRORS,
    KILLS,
    failing_disk,
    jumping_clock,
    killed,
    killed_at_random,
)
from campaign.faults.damage import FILES, damaged_file, prepare
from campaign.faults.hostile import hostile_server
from campaign.faults.operations import OPERATIONS, Operation, one_log

STEPS = 2_000
"""Steps after which an operation counts as endless."""

MANY = 100
"""Steps that few operations have."""

ORDINALS = {2: "second", 3: "third"}

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
        cost: Factor by which a share of the campaign has fewer trials of a long
            operation.
        stride: At full length, 2 runs every second trial, 3 every third.
    """

    name: str
    case: str
    prepare: Callable[[Path], Any]
    trial: Trial
    trials: int
    until_end: bool = False
    cost: int = 1
    stride: int = 1

    @property
    def key(self) -> str:
        """The name for ``--only``."""
        return f"{self.name}: {self.case}" if self.case else self.name


def classes() -> Iterator[FaultClass]:
    """Yield all classes of faults."""
    for kind, arm in KILLS.items():
        if arm.needs_shim and not hook.shim():
            continue
        for case, operation in OPERATIONS.items():
            trial = partial(_at_step, partial(killed, operation, arm))
            yield _of_operation(kind, case, operation, trial, arm.needs_shim)
    for kind in ERRORS if hook.shim() else ():
        for case, operation in OPERATIONS.items():
            trial = partial(_at_step, partial(failing_disk, operation, kind))
            yield _of_operation(kind, case, operation, trial, True)
    for name, processes, trials in (
        ("kill at a random time", 1, 500),
        ("kill of one of two processes", 2, 100),
        ("kill of one of eight processes", 8, 40),
    ):
        trial = partial(_at_random, partial(killed_at_random, processes))
        yield FaultClass(name, "", one_log, trial, trials)
    for what in FILES:
        for how, name, trials in (
            ("flip", "flipped bits", 300),
            ("cut", "cut end", 150),
        ):
            trial = partial(damaged_file, what, how)
            yield FaultClass(name, what, prepare, trial, trials)
    for how, name, trials in (("flip", "flipped bits", 300), ("cut", "cut end", 150)):
        trial = partial(damaged_archive, how)
        yield FaultClass(name, "an archive", archived_log, trial, trials, cost=2)
    yield FaultClass(
        "clock that jumps", "", one_log, partial(_at_random, jumping_clock), 50
    )
    yield FaultClass("hostile server", "", one_log, hostile_server, 180)
    yield FaultClass(
        "cancellation at an await", "", _nothing, cancelled, len(CANCELLED)
    )


def _of_operation(
    kind: str, case: str, operation: Operation, trial: Trial, is_call: bool
) -> FaultClass:
    """Return the class of a fault at the steps, or the calls, of an operation."""
    stride = operation.stride if is_call else 1
    if stride > 1:
        case = f"{case} (every {ORDINALS[stride]} call)"
    return FaultClass(
        kind,
        case,
        operation.prepare,
        trial,
        trials=STEPS,
        until_end=True,
        cost=operation.cost,
        stride=stride,
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


def numbers_of(chosen: FaultClass, share: float, seed: int) -> range:
    """Return the numbers of the trials that a share of the campaign runs."""
    if share >= 1:
        start = Random(f"{seed}/{chosen.key}").randrange(chosen.stride)
        return range(start, chosen.trials, chosen.stride)
    if chosen.until_end:
        stride = round(chosen.cost / share)
        start = seed % stride
        if chosen.cost > 1:  # another step of the operation for each class
            start = Random(f"{seed}/{chosen.key}").randrange(stride // 20)
        # Most operations have fewer steps: a second trial would meet no fault.
        end = chosen.trials if stride < MANY else start + 1
        return range(start, end, stride)
    return range(max(round(chosen.trials * share / chosen.cost), 1))
