"""Cancellations: each public coroutine of store and manager, at each await.

The sweeps are those of ``tests/proof``, which check every outcome; here they are
counted, and the log that they leave is compared with what was submitted and
acknowledged, without Herdbook.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from campaign.faults.truth import check, history
from proof import stepping
from proof import test_cancelled_manager as manager
from proof import test_cancelled_store as store

from herdbook.events.recorded import NewEvent
from herdbook.events.sqlite.store import SQLiteEventStore

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


@contextlib.contextmanager
def recorded_ids() -> Iterator[tuple[set[str], set[str]]]:
    """Note the ids of events that are submitted to a store, and those acknowledged."""
    submitted, acknowledged = set[str](), set[str]()
    original = SQLiteEventStore.append

    async def append(
        self: SQLiteEventStore,
        stream: str,
        events: Sequence[NewEvent],
        *more: Any,
        **named: Any,
    ) -> Any:
        submitted.update(each.event_id for each in events)
        done = await original(self, stream, events, *more, **named)
        acknowledged.update(each.event_id for each in done)
        return done

    SQLiteEventStore.append = append  # type: ignore[method-assign]
    try:
        yield submitted, acknowledged
    finally:
        SQLiteEventStore.append = original  # type: ignore[method-assign]


def cancelled(work: Path, _made: Any, number: int, _chance: Random) -> int:
    """Cancel one coroutine at every await; return the number of cancellations."""
    stepping.cancellations = 0
    with recorded_ids() as (submitted, acknowledged):
        stepping.run(CANCELLED[number](work))
    assert acknowledged, "nothing was appended"
    check(history(work / "herd.db"), [], submitted, acknowledged)
    return stepping.cancellations
