"""Memory, disk space and requests over time, compared with a count by brute force."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec
import pytest
from support.uses import START, recorded, used

from herdbook.core import ManualClock, Storage
from herdbook.core.history.levels import Column, LevelKind, LevelsHistory
from herdbook.core.log.location import MEMORY
from herdbook.events.facts import (
    CapabilitiesDetected,
    Fact,
    FactSource,
    ModelDeleted,
    ModelDiscovered,
    ModelLoaded,
    ModelUnloaded,
    NodeLost,
    NodeReached,
    Runner,
    UnloadReason,
)
from herdbook.events.recorded import NewEvent, RecordedEvent
from herdbook.events.store import ANY
from herdbook.events.streams import node_stream
from herdbook.projections import levels as projection

A, B = "a" * 64, "b" * 64


def loaded(digest: str, size: int, name: str = "a:1") -> ModelLoaded:
    runner = Runner(name=name, digest=digest, size_bytes=size, size_vram_bytes=0)
    return ModelLoaded(runner=runner)


UNLOADED = ModelUnloaded(reason=UnloadReason.REQUESTED)


class Log:
    """Events at minutes after the start, and the charts over them."""

    def __init__(self, storage: Storage, clock: ManualClock) -> None:
        self.storage = storage
        self.clock = clock
        self.history = LevelsHistory(storage, "local")
        self.count = 0

    async def add(self, minute: float, fact: Fact, model: str = "a:1") -> None:
        self.count += 1
        event = recorded(self.count, fact, model=model)
        if isinstance(fact, NodeLost):
            event = msgspec.structs.replace(event, stream=node_stream("local"))
        await self.append(event, minute)

    async def append(self, event: RecordedEvent, minute: float) -> None:
        self.clock._start = START + timedelta(minutes=minute)
        new = NewEvent(
            fact=event.data,
            occurred_at=self.clock.now(),
            actor=event.actor,
            cause=event.cause,
        )
        await self.storage.store.append(event.stream, [new], ANY)

    async def columns(
        self,
        kind: LevelKind,
        *,
        first: float | None = 0,
        last: float = 10,
        until: int = 1 << 60,
        model: str | None = None,
    ) -> list[Column]:
        return await self.history.read(
            kind,
            begin=None if first is None else START + timedelta(minutes=first),
            end=START + timedelta(minutes=last),
            columns=10,
            until=until,
            model=model,
        )


def totals(columns: Iterable[Column]) -> list[int]:
    return [column.total for column in columns]


@asynccontextmanager
async def open_log() -> AsyncIterator[Log]:
    """Open a log in memory while the block runs."""
    clock = ManualClock(START)
    async with Storage.open(MEMORY, clock) as storage:
        yield Log(storage, clock)


async def test_memory_counts_a_shared_runner_once() -> None:
    async with open_log() as log:
        await log.add(1.5, loaded(A, 10))
        await log.add(1.6, loaded(A, 10, "a:1"), "b:1")  # the same runner
        await log.add(3.5, loaded(B, 5, "c:1"), "c:1")
        await log.add(5.5, UNLOADED)
        await log.add(6.5, UNLOADED, "b:1")

        whole = await log.columns(LevelKind.MEMORY)
        one = await log.columns(LevelKind.MEMORY, model="b:1")

        assert totals(whole) == [0, 10, 10, 15, 15, 15, 15, 5, 5, 5]
        assert whole[3].parts == {"a:1": 10, "c:1": 5}
        assert whole[3].at == START + timedelta(minutes=3.5)
        assert totals(one) == [0, 10, 10, 10, 10, 10, 10, 0, 0, 0]


async def test_short_load_appears_in_its_column() -> None:
    async with open_log() as log:
        await log.add(2.2, loaded(A, 10))
        await log.add(2.3, UNLOADED)

        assert totals(await log.columns(LevelKind.MEMORY))[1:4] == [0, 10, 0]


async def test_disk_counts_shared_weights_once() -> None:
    async with open_log() as log:
        for name in ("a:1", "b:1"):
            digest = name[0] * 64
            await log.add(1.5, ModelDiscovered(digest=digest, size_bytes=8), name)
            weights = CapabilitiesDetected(
                digest=digest,
                weights="w" * 64,
                family=None,
                parameter_count=None,
                quantization=None,
                context_trained=8192,
                context_source=FactSource.DEFAULT,
                context_default=None,
                temperature=None,
                temperature_source=FactSource.DEFAULT,
                capabilities={},
                ranks={},
            )
            await log.add(1.6, weights, name)
        await log.add(4.5, ModelDeleted())
        await log.add(6.5, ModelDeleted(), "b:1")

        found = totals(await log.columns(LevelKind.DISK))

        assert found == [0, 8, 8, 8, 8, 8, 0, 0, 0, 0]


async def test_times_without_an_answer_are_marked() -> None:
    async with open_log() as log:
        await log.add(0.5, loaded(A, 10))
        await log.add(3.5, NodeLost(kind="node_unreachable", message="no answer"))
        await log.add(5.5, NodeReached(version="1", url="http://a"))

        found = await log.columns(LevelKind.MEMORY)

        assert [column.unknown for column in found[2:7]] == [
            False,
            True,
            True,
            True,
            False,
        ]


async def test_requests_are_counted_by_model_and_minute() -> None:
    async with open_log() as log:
        await log.add(1.5, used(count=3))
        await log.add(1.6, used(count=2))
        await log.add(1.7, used(), "b:1")
        await log.add(8.5, used(), "b:1")

        found = await log.columns(LevelKind.REQUESTS)
        one = await log.columns(LevelKind.REQUESTS, model="b:1")
        first = await log.columns(LevelKind.REQUESTS, first=None)

        assert found[1].parts == {"a:1": 5, "b:1": 1}
        assert totals(one) == [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
        assert first[0].begin == START + timedelta(minutes=1)


async def test_past_levels_do_not_change() -> None:
    async with open_log() as log:
        await log.add(1.5, loaded(A, 10))
        await log.add(1.6, used())
        then = [await log.columns(kind, until=2) for kind in LevelKind]
        await log.add(3.5, UNLOADED)
        await log.add(3.6, used())

        assert [await log.columns(kind, until=2) for kind in LevelKind] == then
        assert await log.columns(LevelKind.MEMORY) != then[0]


@pytest.mark.parametrize("seed", range(4))
async def test_levels_of_random_loads_match_as_of_at_every_time(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_log() as log:
        monkeypatch.setattr(projection, "KEPT_EVERY", 7)
        chance, minute = random.Random(seed), 0.013
        memory: dict[str, int] = {}
        highest = [0] * 60
        for _ in range(200):
            before = minute
            minute += chance.choice([0.05, 0.3, 0.6])
            for column in range(int(before), min(int(minute), 59) + 1):
                highest[column] = max(highest[column], sum(memory.values()))
            model = chance.choice(["a:1", "b:1", "c:1"])
            if model in memory:
                del memory[model]
                await log.add(minute, UNLOADED, model)
            else:
                memory[model] = chance.randint(1, 9)
                await log.add(
                    minute, loaded(model[0] * 64, memory[model], model), model
                )
            if minute < 60:
                highest[int(minute)] = max(highest[int(minute)], sum(memory.values()))

        for first in (0, 10, 30, 45):
            found = await log.columns(LevelKind.MEMORY, first=first, last=first + 10)
            assert totals(found) == highest[first : first + 10]
