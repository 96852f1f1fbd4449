"""Usage of a long log: the fold, the first answer, and answers after that.

The uses are those of a gateway: each event has its client, tokens and durations, and
they are spread over three months.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

from benchmarks.dataset import (
    EVENTS_PER_APPEND,
    first_facts,
    names,
    new_event,
    open_manager,
    stream,
)
from benchmarks.measure import Median, Row, at_most
from benchmarks.sizes import Sizes
from herdbook.core import ManualClock, views
from herdbook.events.facts import ModelUsed, UseOutcome
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY
from herdbook.projections.usage.view import UsageView

MODELS, CLIENTS = 6, 16
SPREAD = timedelta(days=90)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
SEED = 1


async def run(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure the fold of usage, and answers from it."""
    path = folder / "usage.db"
    await _fill(path, sizes.past)
    fold = await _fold_us(path, sizes.rounds)
    async with open_manager(path) as manager:
        started = perf_counter()
        await manager.usage()
        first = (perf_counter() - started) * 1e3
        taken = []
        for _ in range(sizes.rounds):
            started = perf_counter()
            await manager.usage(["client", "day"])
            taken.append((perf_counter() - started) * 1e3)
    async with open_manager(path) as manager:
        started = perf_counter()
        await manager.usage()
        restored = (perf_counter() - started) * 1e3
    what = f"{sizes.past:,} uses"
    return [
        Row(what="fold of usage, an event", unit="us", ours=fold, goal=at_most(4)),
        Row(what=f"usage, {what}", unit="ms", ours=Median.of(taken), goal=at_most(500)),
        Row(what=f"usage from its snapshot, {what}", unit="ms", ours=restored),
        Row(what=f"first usage, without a snapshot, {what}", unit="ms", ours=first),
    ]


async def _fill(path: Path, uses: int) -> None:
    """Create a log of a number of uses, in batches of one model each."""
    clock, chance = ManualClock(BEGAN), random.Random(SEED)
    async with await SQLiteEventStore.open(path, clock=clock.now) as store:
        for name in names(MODELS):
            new = [new_event(fact) for fact in first_facts(name)]
            await store.append(stream(name), new, ANY)
        left = uses
        while left > 0:
            batch = min(EVENTS_PER_APPEND, left)
            left -= batch
            new = [new_event(_use(chance, clock.now())) for _ in range(batch)]
            await store.append(stream(chance.choice(names(MODELS))), new, ANY)
            await clock.advance(SPREAD.total_seconds() * batch / uses)
        await views.save(await views.restore(store, store), store)


def _use(chance: random.Random, at: datetime) -> ModelUsed:
    return ModelUsed(
        endpoint="/api/chat",
        client=f"client-{chance.randrange(CLIENTS)}",
        started_at=at,
        duration_s=chance.lognormvariate(0.5, 1),
        first_token_s=chance.lognormvariate(-2, 1),
        prompt_tokens=chance.randint(1, 999),
        output_tokens=chance.randint(1, 500),
        outcome=UseOutcome.COMPLETED,
        count=1,
    )


async def _fold_us(path: Path, rounds: int) -> Median:
    """Return the median time of the fold of one event, microseconds."""
    async with await SQLiteEventStore.open(path) as store:
        events = [event async for event in store.read_all(limit=20_000)]
    taken = []
    for _ in range(rounds):
        view = UsageView()
        started = perf_counter()
        for event in events:
            view.apply(event)
        taken.append((perf_counter() - started) / len(events) * 1e6)
    return Median.of(taken)
