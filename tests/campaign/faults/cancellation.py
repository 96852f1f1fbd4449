"""Cancellations: each public coroutine of store and manager, at each await.

The sweeps are those of ``tests/proof``, which check every outcome; here they are
counted, and the log that they leave is checked once more without Herdbook.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

from campaign.faults.truth import history
from proof import stepping
from proof import test_cancelled_manager as manager
from proof import test_cancelled_store as store

Sweep = Callable[[Path], Coroutine[Any, Any, None]]


def _of_store(name: str, again: int) -> Sweep:
    if name in store.READS:
        do, check = store.READS[name], store.nothing_new
    else:
        do, check = store.WRITES[name], store.complete_appends_only
    return lambda work: store.sweep(do, work / "herd.db", again, check)


def _of_manager(name: str, again: int) -> Sweep:
    return lambda work: manager.sweep(manager.CASES[name], work, again)


CANCELLED: list[Sweep] = [
    *(_of_store(name, again) for name in store.READS for again in (0,)),
    *(_of_store(name, again) for name in store.WRITES for again in (0, 1000)),
    *(_of_manager(name, 0) for name in manager.CASES),
    *(_of_manager(n, 1000) for n in ("pull", "load", "unload", "delete", "refresh")),
]


def cancelled(work: Path, _made: Any, number: int, _chance: Random) -> int:
    """Cancel one coroutine at every await; return the number of cancellations."""
    stepping.cancellations = 0
    stepping.run(CANCELLED[number](work))
    history(work / "herd.db")
    return stepping.cancellations
