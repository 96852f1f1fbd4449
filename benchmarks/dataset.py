"""The models of the benchmarks, and their events."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from hashlib import sha256
from itertools import cycle, islice
from pathlib import Path

from herdbook.core import ModelManager, views
from herdbook.events.facts import (
    CapabilitiesDetected,
    Capability,
    Fact,
    FactSource,
    LoadStarted,
    ModelDiscovered,
    ModelLoaded,
    ModelUnloaded,
    ModelUsed,
    Runner,
    UnloadReason,
)
from herdbook.events.recorded import Cause, NewEvent
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY
from herdbook.events.streams import StreamName, model_stream

NODE = "local"
SIZE_BYTES = 2_019_393_189
CONTEXT = 8192
EVENTS_PER_CYCLE = 4
"""Events in one cycle of a model: load started, loaded, used, unloaded."""

EVENTS_PER_APPEND = 400
"""Events in each append that fills a log."""

APPENDS_TOGETHER = 200
"""Most appends at the same time where the models take turns, one to a model."""


def names(count: int) -> list[str]:
    """Return a number of model names."""
    return [f"model-{number}:latest" for number in range(count)]


def stream(name: str) -> StreamName:
    """Return the stream of a model."""
    return model_stream(NODE, name)


def first_facts(name: str) -> tuple[Fact, ...]:
    """Return the facts of the first refresh of a model."""
    able = Capability(value=True, source=FactSource.SHOW, evidence="listed")
    return (
        ModelDiscovered(digest=digest(name), size_bytes=SIZE_BYTES),
        CapabilitiesDetected(
            digest=digest(name),
            weights=digest(name)[::-1],
            family="llama",
            parameter_count=3_212_749_888,
            quantization="Q4_K_M",
            context_trained=131_072,
            context_source=FactSource.SHOW,
            capabilities={
                "completion": able,
                "tools": able,
                "coding": Capability(value=False, source=FactSource.REGISTRY),
                "embedding": Capability(value=False, source=FactSource.SHOW),
                "thinking": Capability(value=False, source=FactSource.SHOW),
                "vision": Capability(value=False, source=FactSource.SHOW),
            },
            ranks={"general": 3, "tool_use": 2},
        ),
    )


def digest(name: str) -> str:
    """Return a unique digest."""
    return sha256(name.encode()).hexdigest()


def lifecycle_facts(name: str) -> Iterator[Fact]:
    """Yield the facts of a model's life, cycle after cycle, without end."""
    runner = Runner(
        name=name,
        digest=digest(name),
        context_length=CONTEXT,
        size_bytes=SIZE_BYTES,
        size_vram_bytes=SIZE_BYTES,
    )
    return cycle(
        (
            LoadStarted(instance="1", options={"num_ctx": CONTEXT}),
            ModelLoaded(runner=runner, duration_s=1.5),
            ModelUsed(purpose="chat"),
            ModelUnloaded(reason=UnloadReason.EXPIRED),
        )
    )


def new_event(fact: Fact) -> NewEvent:
    """Return a fact as a new event for a store."""
    return NewEvent(
        fact=fact,
        occurred_at=datetime.now(UTC),
        actor="library:benchmark",
        cause=Cause.OBSERVED,
    )


async def fill(path: Path, events: int, models: int) -> None:
    """Create a log of a number of events over a number of models, with a snapshot."""
    lives = {name: lifecycle_facts(name) for name in names(models)}
    async with await SQLiteEventStore.open(path) as store:
        for name in lives:
            await store.append(
                stream(name), [new_event(fact) for fact in first_facts(name)], ANY
            )
        left = events - (await store.head()).position
        for name in cycle(lives):
            if left <= 0:
                break
            facts = list(islice(lives[name], min(EVENTS_PER_APPEND, left)))
            await store.append(stream(name), [new_event(fact) for fact in facts], ANY)
            left -= len(facts)
        await views.save(await views.restore(store, store), store)


async def fill_in_turns(path: Path, events: int, models: int) -> None:
    """Create a log of a number of events; the models take turns, a cycle each."""
    lives = {name: lifecycle_facts(name) for name in names(models)}
    async with await SQLiteEventStore.open(path) as store:
        for name in lives:
            first = [new_event(fact) for fact in first_facts(name)]
            await store.append(stream(name), first, ANY)
        left = events - (await store.head()).position
        turns = cycle(lives)
        while left > 0:
            appends = []
            for name in islice(turns, min(APPENDS_TOGETHER, models)):
                facts = list(islice(lives[name], min(EVENTS_PER_CYCLE, left)))
                left -= len(facts)
                if facts:
                    new = [new_event(fact) for fact in facts]
                    appends.append(store.append(stream(name), new, ANY))
            await asyncio.gather(*appends)
        await views.save(await views.restore(store, store), store)


async def copy_filled_in_turns(path: Path, events: int, models: int) -> None:
    """Create such a log as a copy of one that all benchmarks of a run share.

    Filling one with a million events takes two minutes.
    """
    shared = path.parent.parent / f"{events}-events-of-{models}-models.db"
    if not shared.exists():
        await fill_in_turns(shared, events, models)
    shutil.copyfile(shared, path)


def open_manager(path: str | Path) -> AbstractAsyncContextManager[ModelManager]:
    """Open a log without connecting to a server."""
    return ModelManager.open(path, ollama="127.0.0.1:9", node=NODE, refresh=False)
