"""The sample history of a new demonstration log."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from herdbook.cli.programs import sample_history
from herdbook.cli.programs.run_sandbox import Options, served, world_of
from herdbook.core import ModelManager, ModelRegistry, ModelState, RecordedEvent
from herdbook.events.facts import ModelUnloaded, UnloadReason
from herdbook.projections.roles import ModelRole
from herdbook.sandbox.models.catalogue import read_catalogue
from herdbook.sandbox.models.names import Name

QUICK = Options(registry_rate=20e6)


async def read(manager: ModelManager) -> tuple[RecordedEvent, ...]:
    return (await manager.read_log(limit=1000)).events


async def test_sample_history_covers_what_the_product_records(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    clock = sample_history.clock()
    world = world_of(QUICK, clock)
    async with served(QUICK, world) as address:
        await sample_history.record(world, clock, log, ollama=address, node="sandbox")
        opened = ModelManager.open(log, ollama=address, node="sandbox")
        async with opened as manager:
            events = await read(manager)
            statuses = await manager.all_statuses()
    states = Counter(status.state for status in statuses)

    types = {event.type for event in events}
    assert {
        *("PullCompleted", "PullFailed", "PullCancelled", "NodeLost", "NodeReached"),
        *("ModelLoaded", "ModelUsed", "ModelUnloaded", "ConfigurationChanged"),
    } <= types
    unloads = [e.data.reason for e in events if isinstance(e.data, ModelUnloaded)]
    assert {UnloadReason.EVICTED, UnloadReason.REQUESTED, UnloadReason.EXPIRED} <= {
        *unloads
    }
    assert states[ModelState.LOADED] == 2
    assert states[ModelState.AVAILABLE] > 1
    assert states[ModelState.ERROR] == 1
    assert not any(status.is_old_failure(datetime.now(UTC)) for status in statuses)


async def test_sample_history_is_marked_as_a_demonstration(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    clock = sample_history.clock()
    world = world_of(QUICK, clock)
    async with served(QUICK, world) as address:
        await sample_history.record(world, clock, log, ollama=address, node="sandbox")
    async with ModelManager.open(log, ollama=address, refresh=False) as manager:
        events = await read(manager)
        verified = await manager.verify()

    actors = {event.actor for event in events} - {"reconciler"}
    assert len(actors) >= 3
    assert all(actor.startswith("demo") for actor in actors)
    times = [event.occurred_at for event in events]
    now = datetime.now(UTC)
    assert times == sorted(times)
    assert timedelta(days=2) < now - times[0] < timedelta(days=4)
    assert timedelta(0) <= now - times[-1] < timedelta(hours=1)
    assert verified.events == len(events)


async def test_sample_history_that_cannot_be_recorded_is_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = sample_history.clock()
    world = world_of(QUICK, clock)
    (tmp_path / "herd.db").mkdir()

    async with served(QUICK, world) as address:
        with caplog.at_level(logging.WARNING):
            await sample_history.record(
                world, clock, tmp_path / "herd.db", ollama=address, node="sandbox"
            )

    assert "sample history is incomplete" in caplog.text
    assert abs(datetime.now(UTC) - clock.wall(clock.now())) < timedelta(seconds=5)


@pytest.mark.parametrize("role", ModelRole)
def test_every_suggestion_can_be_pulled_in_the_sandbox(role: ModelRole) -> None:
    offered = {Name.parse(name) for name in read_catalogue().library}

    suggestions = ModelRegistry().suggest(role)

    assert suggestions
    assert {Name.parse(suggestion.pull) for suggestion in suggestions} <= offered
