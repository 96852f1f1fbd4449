"""Memory: one model in all views of the manager."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path

from benchmarks.dataset import (
    EVENTS_PER_CYCLE,
    first_facts,
    lifecycle_facts,
    names,
    new_event,
    stream,
)
from benchmarks.measure import Row, at_most
from benchmarks.sizes import Sizes
from herdbook.core.views import Views
from herdbook.events import codec
from herdbook.events.recorded import RecordedEvent
from herdbook.events.shared.group import draft_append, plan_group
from herdbook.events.store import ANY, Head


async def run(folder: Path, sizes: Sizes) -> list[Row]:  # noqa: ARG001 - as all
    """Measure the memory of the views."""
    bytes_ = _weigh(sizes.remembered)
    return [
        Row(
            what=f"memory of a model, {sizes.remembered:,} in all views",
            unit="kB",
            ours=bytes_ / sizes.remembered / 1e3,
            goal=at_most(4),
        )
    ]


def _weigh(models: int) -> int:
    """Return the bytes that remain after the events are freed."""
    views = Views()
    gc.collect()
    tracemalloc.start()
    try:
        for event in _read(models):
            views.apply(event)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return kept


def _read(models: int) -> Iterator[RecordedEvent]:
    """Yield the events of all models as a log returns them, without shared objects."""
    head = Head()
    for name in names(models):
        facts = chain(
            first_facts(name), islice(lifecycle_facts(name), EVENTS_PER_CYCLE * 2 - 1)
        )
        draft = draft_append(stream(name), [new_event(fact) for fact in facts], ANY)
        plan = plan_group(
            [draft], head=head, versions={}, recorded={}, now=datetime.now(UTC)
        )
        head = plan.head
        yield from map(codec.read, plan.events)
