"""Queries about now and the past: status, history, statistics and live events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

import pytest
from support.manager_fixture import SandboxServer, recorded_events, serve_manager

from herdbook.core import (
    CallerError,
    Cause,
    FactSource,
    HistoryFilter,
    InvalidNameError,
    LoadFailedError,
    ModelManager,
    ModelRole,
    ModelState,
    ReadModel,
    RecordedEvent,
    UnknownRoleError,
)
from herdbook.core.clock import settle
from herdbook.core.models.registry import ModelRegistry
from herdbook.core.views import Views

NAME = "llava:7b"


@asynccontextmanager
async def with_a_past() -> AsyncIterator[tuple[SandboxServer, ModelManager, list[int]]]:
    """Give a herd, and the log's positions before, during and after a load."""
    async with serve_manager() as (server, manager):
        positions = [(await manager.now()).position]
        for step in (manager.load, manager.unload):
            server.time.advance(100)
            await step(NAME)
            positions.append((await manager.now()).position)
        yield server, manager, positions


async def test_status_at_a_position_is_the_status_of_that_time() -> None:
    async with with_a_past() as (_, manager, positions):
        moments = [await manager.as_of(position) for position in positions]

        assert [moment.status(NAME).state for moment in moments] == [
            ModelState.AVAILABLE,
            ModelState.LOADED,
            ModelState.AVAILABLE,
        ]
        assert [moment.position for moment in moments] == positions


async def test_status_at_a_time_is_the_status_of_that_time() -> None:
    async with with_a_past() as (server, manager, positions):
        now = server.clock.now()

        before = await manager.as_of(now - timedelta(seconds=150))
        during = await manager.as_of(now - timedelta(seconds=50))

        assert (before.position, during.position) == (positions[0], positions[1])
        assert during.status(NAME).state is ModelState.LOADED
        assert during.asked == now - timedelta(seconds=50)


@pytest.mark.parametrize("when", ["yesterday 10:00", None, 1.5])
async def test_values_that_are_neither_position_nor_time_are_refused(
    when: object,
) -> None:
    async with serve_manager() as (_, manager):
        with pytest.raises(CallerError, match="not a position or a time") as refused:
            await manager.as_of(when)  # type: ignore[arg-type]

        assert "datetime with a time zone" in refused.value.remedy


async def test_status_is_plain_data_for_json() -> None:
    async with serve_manager() as (_, manager):
        status = await manager.load("llava:7b")
        data = json.loads(json.dumps(status.to_dict()))

        assert data["state"] == "loaded"
        assert data["present"] is True
        assert data["name"] == "llava:7b"
        assert data["runner"]["size_bytes"] > 0
        assert data["capabilities"]["vision"]["value"] is True
        assert data["since"].endswith("Z")


async def test_nothing_is_known_before_the_first_event() -> None:
    async with with_a_past() as (server, manager, _):
        for when in (0, server.clock.now() - timedelta(days=1)):
            moment = await manager.as_of(when)

            assert (moment.position, moment.statuses()) == (0, [])
            assert moment.recommend(ModelRole.GENERAL) is None
            assert not moment.node_status().reached


async def test_recommendation_at_a_position_is_that_of_its_time() -> None:
    async with serve_manager() as (_, manager):
        await manager.mark_used("qwen3:0.6b")
        then = (await manager.now()).position
        await manager.mark_used("plain")

        now, moment = await manager.recommend("general"), await manager.as_of(then)

        chosen = moment.recommend("general")
        assert now is not None
        assert chosen is not None
        assert (now.name, chosen.name) == ("plain:latest", "qwen3:0.6b")
        assert moment.explain("general").chosen[0] == chosen


async def test_read_model_at_the_newest_position_is_the_current_one() -> None:
    async with with_a_past() as (_, manager, positions):
        then, now = await manager.as_of(positions[-1]), await manager.now()

        assert then.statuses() == now.statuses()
        assert then.node_status() == now.node_status()


@pytest.mark.parametrize("position", [-1, 10_000])
async def test_positions_outside_the_log_are_refused(position: int) -> None:
    async with serve_manager() as (_, manager):
        with pytest.raises(CallerError):
            await manager.as_of(position)


async def test_time_without_a_zone_is_refused() -> None:
    async with serve_manager() as (server, manager):
        with pytest.raises(CallerError):
            await manager.as_of(server.clock.now().replace(tzinfo=None))


async def test_configuration_and_options_at_a_position_are_those_of_its_time() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure("plain", {"num_ctx": 1024})
        then = (await manager.now()).position
        await manager.configure("plain", {"num_ctx": 2048})

        moment = await manager.as_of(then)

        assert moment.options_for("plain").options["num_ctx"] == 1024


async def test_model_that_was_never_seen_is_not_present() -> None:
    async with serve_manager() as (_, manager):
        status = await manager.get_status("nobody")

        assert (status.name, status.state) == ("nobody:latest", ModelState.NOT_PRESENT)
        assert (status.version, status.since) == (0, None)


async def test_capabilities_of_an_absent_model_are_the_expected_ones() -> None:
    async with serve_manager() as (_, manager):
        can = await manager.capabilities("qwen2.5-coder:7b")

        assert can["coding"].value
        assert can["coding"].source is FactSource.REGISTRY


async def test_invalid_name_is_refused() -> None:
    async with serve_manager() as (_, manager):
        with pytest.raises(InvalidNameError):
            await manager.get_status("no name/at:all")


async def test_role_that_does_not_exist_is_refused() -> None:
    async with serve_manager() as (_, manager):
        for ask in (manager.recommend, manager.explain, manager.suggest):
            with pytest.raises(UnknownRoleError):
                await ask("cooking")


def test_read_model_of_an_empty_log_needs_no_server() -> None:
    moment = ReadModel(Views(), ModelRegistry(), "local")

    assert moment.spelled("LLaMA3.1") == "LLaMA3.1:latest"
    assert moment.statuses() == []


async def test_history_of_a_model_is_in_order() -> None:
    async with with_a_past() as (_, manager, _):
        entries = await manager.history(NAME)

        assert [entry.type for entry in entries] == [
            "ModelDiscovered",
            "CapabilitiesDetected",
            "LoadStarted",
            "ModelLoaded",
            "ModelUnloaded",
        ]
        assert [entry.version for entry in entries] == [1, 2, 3, 4, 5]
        assert {entry.model for entry in entries} == {NAME}


async def test_history_of_all_models_has_every_event() -> None:
    async with with_a_past() as (_, manager, positions):
        entries = await manager.history()

        assert [e.position for e in entries] == list(range(1, positions[-1] + 1))
        assert entries[0].model is None


async def test_history_applies_the_filter() -> None:
    async with with_a_past() as (server, manager, _):
        recent = server.clock.now() - timedelta(seconds=150)
        filters = [
            HistoryFilter(types=frozenset({"ModelLoaded"})),
            HistoryFilter(causes=frozenset({Cause.COMMAND})),
            HistoryFilter(actors=("library:",)),
            HistoryFilter(since=recent),
            HistoryFilter(limit=2),
            HistoryFilter(until=recent, types=frozenset({"ModelLoaded"})),
        ]

        counts = [len(await manager.history(NAME, chosen)) for chosen in filters]

        assert counts == [1, 3, 3, 3, 2, 0]


async def test_history_of_one_operation_is_found_by_its_correlation() -> None:
    async with with_a_past() as (_, manager, _):
        loaded = next(e for e in await manager.history(NAME) if e.type == "ModelLoaded")

        chosen = HistoryFilter(correlation_id=loaded.correlation_id)

        types = [entry.type for entry in await manager.history(None, chosen)]
        assert types == ["LoadStarted", "ModelLoaded"]


async def test_statistics_count_what_happened() -> None:
    async with with_a_past() as (server, manager, _):
        await manager.mark_used(NAME)
        await manager.refresh()
        server.apply(runner_dies_saying="out of memory")
        with pytest.raises(LoadFailedError):
            await manager.load(NAME)

        figures = await manager.statistics(NAME)

        assert (figures.loads, figures.timed_loads, figures.uses) == (1, 1, 1)
        assert figures.failures == {"out_of_memory": 1}
        assert figures.unloads["requested"] == 1
        assert figures.seconds_in["loaded"] == pytest.approx(100, abs=1)


async def test_statistics_of_a_pull_have_its_rate() -> None:
    async with serve_manager("none") as (server, manager):
        await manager.ensure_available("llama3.2:1b")

        figures = await manager.statistics("LLAMA3.2:1b")

        assert figures.pulls == 1
        assert figures.pull_seconds == pytest.approx(server.time.now(), abs=0.01)
        assert figures.pull_rate_bytes_s is not None
        assert figures.pull_rate_bytes_s > 1e8


async def test_statistics_of_an_unknown_model_are_empty() -> None:
    async with serve_manager() as (_, manager):
        assert (await manager.statistics("nobody")).pulls == 0


async def test_subscribers_receive_events_live() -> None:
    async with serve_manager() as (_, manager):
        subscribed = asyncio.create_task(first(manager, 2))
        await settle()
        await manager.load(NAME)

        events = await subscribed

        assert [event.type for event in events] == ["LoadStarted", "ModelLoaded"]


async def test_events_start_after_the_requested_position() -> None:
    async with serve_manager() as (_, manager):
        events = await first(manager, 3, after=2)

        assert [event.position for event in events] == [3, 4, 5]
        assert events == (await recorded_events(manager))[2:5]


async def first(
    manager: ModelManager, count: int, *, after: int | None = None
) -> list[RecordedEvent]:
    """Return the first so many events of a subscription."""
    async with aclosing(manager.events(after=after)) as events:
        return [await anext(events) for _ in range(count)]


async def test_log_of_a_busy_day_verifies() -> None:
    async with with_a_past() as (_, manager, positions):
        verification = await manager.verify()

        assert verification.findings == ()
        assert verification.events == positions[-1]
