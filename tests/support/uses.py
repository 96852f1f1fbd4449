"""Uses of models as the log has them, and their sums by brute force."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import UNSET

from herdbook.core import ManualClock
from herdbook.events.facts import (
    Fact,
    ModelUsed,
    NodeReached,
    UseFailed,
    UseOutcome,
    UsesNotRecorded,
)
from herdbook.events.recorded import Cause, NewEvent, Position, RecordedEvent
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY, EventStore
from herdbook.events.streams import model_stream, node_stream

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def used(**given: Any) -> ModelUsed:
    """Return a use through the gateway."""
    fields: dict[str, Any] = {
        "endpoint": "/api/chat",
        "client": "ann",
        "started_at": START,
        "duration_s": 2.0,
        "first_token_s": 0.5,
        "prompt_tokens": 10,
        "output_tokens": 100,
        "outcome": UseOutcome.COMPLETED,
        "count": 1,
    }
    return ModelUsed(**(fields | given))


def failed(**given: Any) -> UseFailed:
    """Return a request that no model answered."""
    fields: dict[str, Any] = {
        "endpoint": "/api/chat",
        "client": "ann",
        "started_at": START,
        "duration_s": 0.25,
        "outcome": UseOutcome.FAILED,
        "failure": "server_busy",
    }
    return UseFailed(**(fields | given))


def recorded(
    position: int,
    fact: Fact,
    *,
    model: str = "llama3.2:3b",
    node: str = "local",
    at: datetime | None = None,
    cause: Cause = Cause.COMMAND,
    actor: str = "api:ann",
) -> RecordedEvent:
    """Return a fact as an event of the log."""
    of_node = isinstance(fact, UsesNotRecorded | NodeReached)
    time = at or START + timedelta(seconds=position)
    return RecordedEvent(
        position=Position(position),
        stream=node_stream(node) if of_node else model_stream(node, model),
        version=position,
        event_id=str(position),
        type=type(fact).__name__,
        schema=2 if isinstance(fact, ModelUsed) else 1,
        data=fact,  # type: ignore[arg-type]
        occurred_at=time,
        recorded_at=time,
        actor=actor,
        cause=cause,
        correlation_id=None,
        causation_id=None,
        hash=f"{position:064x}",
    )


def random_events(seed: int, count: int) -> list[RecordedEvent]:
    """Return a log with many uses, over months, with clocks that are set back."""
    chance = random.Random(seed)
    at, events = START, []
    for position in range(1, count + 1):
        at += timedelta(seconds=chance.choice([0, 1, 60, 4_000, 90_000, 900_000]))
        if chance.random() < 0.03:
            at -= timedelta(seconds=chance.choice([1, 3_000, 200_000]))
        events.append(
            recorded(
                position,
                _random_fact(chance, at),
                model=chance.choice(["a:1", "b:1"]),
                node=chance.choice(["local", "local", "other"]),
                at=at,
                cause=chance.choice([Cause.COMMAND, Cause.OBSERVED]),
            )
        )
    return events


def _random_fact(chance: random.Random, at: datetime) -> Fact:
    client = f"c{chance.randint(0, 9)}"
    kind = chance.random()
    if kind < 0.1:
        return ModelUsed(purpose="by hand")
    if kind < 0.2:
        return failed(
            client=client,
            role=chance.choice([UNSET, "coding"]),
            estimated_tokens=chance.choice([UNSET, chance.randint(0, 500)]),
            count=chance.randint(1, 3),
        )
    if kind < 0.25:
        return UsesNotRecorded(count=5, since=at, until=at, reason="disk full")
    if kind < 0.3:
        return NodeReached(version="1", url="http://a")
    return used(
        client=client,
        role=chance.choice([UNSET, "coding"]),
        endpoint=chance.choice(["/api/chat", "/api/embed"]),
        duration_s=chance.expovariate(1),
        first_token_s=chance.choice([UNSET, chance.expovariate(5)]),
        prompt_tokens=chance.randint(0, 500),
        output_tokens=chance.choice([UNSET, chance.randint(0, 500)]),
        estimated_tokens=chance.choice([UNSET, chance.randint(0, 500)]),
        outcome=chance.choice(list(UseOutcome)),
        count=chance.randint(1, 4),
    )


def brute_force(events: Iterable[RecordedEvent], node: str = "local") -> dict[str, int]:
    """Return what some events add up to, counted one by one."""
    names = "requests", "failed", "client_left", "observed", "not_recorded"
    tokens = "prompt_tokens", "output_tokens", "estimated_tokens"
    total = dict.fromkeys((*names, *tokens), 0)
    for event in events:
        fact = event.data
        if event.stream.split("/")[1] != node:
            continue
        if isinstance(fact, UsesNotRecorded):
            total["not_recorded"] += fact.count
        if not isinstance(fact, ModelUsed | UseFailed):
            continue
        count = fact.count if isinstance(fact.count, int) else 1
        if fact.outcome is UNSET and event.cause is Cause.OBSERVED:
            total["observed"] += 1
            continue
        total["requests"] += count
        total["failed"] += count if fact.outcome is UseOutcome.FAILED else 0
        total["client_left"] += count if fact.outcome is UseOutcome.CLIENT_LEFT else 0
        for name in tokens:
            number = getattr(fact, name, UNSET)
            total[name] += number if isinstance(number, int) else 0
    return total


async def record(path: Path, events: Iterable[RecordedEvent]) -> None:
    """Append events to the log in a file, at their times."""
    clock = ManualClock(START)
    async with await SQLiteEventStore.open(path, clock=clock.now) as store:
        await append(store, clock, events)


async def append(
    store: EventStore, clock: ManualClock, events: Iterable[RecordedEvent]
) -> None:
    """Append events to a store with a clock, at their times."""
    for event in events:
        clock._start = event.recorded_at  # the clock may go back
        new = NewEvent(
            fact=event.data,
            occurred_at=event.occurred_at,
            actor=event.actor,
            cause=event.cause,
        )
        await store.append(event.stream, [new], ANY)
