"""Use between two positions of a log, with snapshots, restarts and other writers."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs
from support.manager_fixture import serve_manager
from support.uses import START, append, brute_force, random_events, recorded, used

from herdbook.core import (
    CallerError,
    ManualClock,
    Storage,
    UnknownDimensionError,
    Usage,
    UsageDimension,
)
from herdbook.core.checks.verification import verify as verify_log
from herdbook.core.history import usage as module
from herdbook.core.history.usage import UsageHistory
from herdbook.core.log.location import MEMORY
from herdbook.events.facts import ModelDiscovered
from herdbook.events.findings import Kind
from herdbook.projections.usage import view as view_module

BY = (UsageDimension.CLIENT,)


def counts(usage: Usage) -> dict[str, int]:
    total = usage.total
    return {name: getattr(total, name) for name in brute_force([])}


@pytest.mark.parametrize("seed", range(6))
async def test_usage_of_any_range_equals_the_sum_of_its_events(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "HOURS", 20)
    monkeypatch.setattr(view_module, "DAYS", 8)
    events, clock = random_events(seed, 250), ManualClock(START)
    chance = random.Random(seed)
    async with Storage.open(MEMORY, clock) as storage:
        history = UsageHistory(storage)
        known = 0
        for grown in (60, 100, 101, 250):
            await append(storage.store, clock, events[known:grown])
            known = grown
            for _ in range(20):
                after, until = sorted(chance.choices(range(grown + 20), k=2))
                usage = await history.read(BY, node="local", after=after, until=until)
                assert counts(usage) == brute_force(events[after : min(until, known)])
                assert usage.until == min(until, known)
            usage = await history.read(BY, node="local")
            assert counts(usage) == brute_force(events[:grown])


async def test_past_answers_do_not_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(view_module, "HOURS", 20)
    events, clock = random_events(3, 300), ManualClock(START)
    async with Storage.open(MEMORY, clock) as storage:
        history = UsageHistory(storage)
        await append(storage.store, clock, events[:150])
        then = await history.read(BY, node="local")
        await append(storage.store, clock, events[150:])

        assert await history.read(BY, node="local", until=150) == then


async def test_snapshot_is_used_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY", 50)
    events, clock = random_events(1, 130), ManualClock(START)
    async with Storage.open(tmp_path / "herd.db", clock) as storage:
        await append(storage.store, clock, events[:100])
        first = await UsageHistory(storage).read(BY, node="local")
        await append(storage.store, clock, events[100:])
    async with Storage.open(tmp_path / "herd.db", clock) as storage:
        snapshot = await storage.snapshots.load_view("usage")
        assert snapshot is not None
        assert snapshot.position == 100
        history = UsageHistory(storage)
        assert counts(await history.read(BY, node="local")) == brute_force(events)
        assert await history.read(BY, node="local", until=100) == first
        found = (await verify_log(storage)).findings
        assert not [each for each in found if each.kind is Kind.SNAPSHOT]


async def test_snapshots_of_a_read_only_log_are_not_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY", 5)
    clock = ManualClock(START)
    async with Storage.open(MEMORY, clock) as storage:
        await append(storage.store, clock, random_events(1, 10))
        await UsageHistory(storage._replace(read_only=True)).read(BY, node="local")
        assert await storage.snapshots.load_view("usage") is None
        await UsageHistory(storage).read(BY, node="local")
        assert await storage.snapshots.load_view("usage") is not None


async def test_snapshot_of_another_log_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY", 50)
    clock = ManualClock(START)
    async with Storage.open(tmp_path / "one.db", clock) as one:
        await append(one.store, clock, random_events(1, 60))
        await UsageHistory(one).read(BY, node="local")
        snapshot = await one.snapshots.load_view("usage")
    assert snapshot is not None
    events = random_events(2, 70)
    async with Storage.open(tmp_path / "other.db", clock) as other:
        await append(other.store, clock, events)
        await other.snapshots.save_view(snapshot)
        with capture_logs() as logs:
            usage = await UsageHistory(other).read(BY, node="local")
        assert counts(usage) == brute_force(events)
        assert [each["event"] for each in logs] == ["snapshot_unusable"]


async def test_verify_finds_a_changed_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY", 5)
    clock = ManualClock(START)
    async with Storage.open(tmp_path / "herd.db", clock) as storage:
        discovered = ModelDiscovered(digest="a" * 64, size_bytes=1)
        events = [recorded(1, discovered), *[recorded(n, used()) for n in range(2, 9)]]
        await append(storage.store, clock, events)
        await UsageHistory(storage).read(BY, node="local")
        assert (await verify_log(storage)).findings == ()
        stored = await storage.snapshots.load_view("usage")
        assert stored is not None
        changed = stored.data.replace(b'"ann"', b'"bob"')
        await storage.snapshots.save_view(msgspec.structs.replace(stored, data=changed))

        found = [each.message for each in (await verify_log(storage)).findings]

        assert found == ["the snapshot of usage differs from a replay"]


async def test_concurrent_queries_see_one_log() -> None:
    events, clock = random_events(5, 200), ManualClock(START)
    async with Storage.open(MEMORY, clock) as storage:
        await append(storage.store, clock, events)
        history = UsageHistory(storage)

        answers = await asyncio.gather(
            *(history.read(BY, node="local") for _ in range(5))
        )

        assert all(counts(each) == brute_force(events) for each in answers)


async def test_cancelled_query_leaves_a_view_that_continues() -> None:
    events, clock = random_events(6, 250), ManualClock(START)
    async with Storage.open(MEMORY, clock) as storage:
        await append(storage.store, clock, events)
        history = UsageHistory(storage)
        for _ in range(5):
            reading = asyncio.ensure_future(history.read(BY, node="local"))
            for _ in range(3):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

        assert counts(await history.read(BY, node="local")) == brute_force(events)


async def test_manager_answers_by_time_and_by_name() -> None:
    async with serve_manager("some") as (server, manager):
        name = next(one.name for one in await manager.all_statuses() if one.present)
        await manager.mark_used(name)
        server.time.advance(3_600)
        middle = server.clock.now()
        server.time.advance(3_600)
        with manager.acting_as("api:ann"):
            await manager.mark_used(name)

        since = await manager.usage("client", since=middle)
        before = await manager.usage("client", until=middle)
        every = await manager.usage()

        assert [row.group for row in since.rows] == [{"client": "api:ann"}]
        assert [row.group for row in before.rows] == [{"client": "library:python"}]
        assert [row.group for row in every.rows] == [{"model": name}]
        assert every.total.requests == 2
        with pytest.raises(UnknownDimensionError, match="Did you mean 'model'"):
            await manager.usage("modle")
        with pytest.raises(CallerError):
            await manager.usage(since=-1)
        with pytest.raises(CallerError):
            await manager.usage(until=middle.replace(tzinfo=None))


async def test_uses_by_other_programs_are_observed_not_requests() -> None:
    async with serve_manager("some") as (server, manager):
        name = "llama3.2:3b"
        await server.load(name)
        await manager.refresh()
        await server.clock.sleep(70)
        await server.request("POST", "/api/generate", model=name, stream=False)
        await manager.refresh()

        usage = await manager.usage(["model", "client", "outcome"])

        (row,) = usage.rows
        assert row.group == {"model": name, "client": None, "outcome": "observed"}
        assert (row.requests, row.observed) == (0, 2)  # one loaded the model
