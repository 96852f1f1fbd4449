"""Loads of loaded models: what is recorded of them, and who sees and ends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from proof.oracle import assert_replay_equals_live
from support.manager_fixture import (
    SandboxServer,
    error_of,
    event_types,
    recorded_events,
    serve_manager,
    serve_sandbox,
    serve_two_managers,
)

from herdbook.core import (
    Activity,
    BusyError,
    Cause,
    HerdbookError,
    LoadFailedError,
    ManagerSettings,
    ModelManager,
    ModelState,
    OperationEndedError,
)
from herdbook.events import facts
from herdbook.events.facts import Fact, Setting
from herdbook.events.sqlite.instances import FileInstances

NAME = "llava:7b"
TWIN = "llava:latest"
OTHER_CONTEXT: dict[str, Setting] = {"num_ctx": 512}
UNSEEN: dict[str, Setting] = {"num_gpu": 0}
"""An option that the list of runners does not show."""

SLOW = {"runner_start_delay_s": 30}
FAILING = {"answer": {"path": "/api/generate", "times": 0, "status": 500, "body": "x"}}
PATIENT = ManagerSettings(log_poll_every_s=1.0, busy_retries=0)


async def reloads(manager: ModelManager) -> list[str]:
    """Return the types of the events since the model was loaded first."""
    types = await event_types(manager, NAME)
    return types[types.index("ModelLoaded") + 1 :]


@asynccontextmanager
async def reloading(
    server: SandboxServer, manager: ModelManager, options: dict[str, Setting]
) -> AsyncIterator[asyncio.Task[object]]:
    """Load a model, and be in the middle of loading it again with other options."""
    await manager.load(NAME)
    server.apply(**SLOW)
    running: asyncio.Task[object] = asyncio.create_task(
        manager.load(NAME, options=options)
    )
    await server.clock.sleep(3)
    yield running
    await asyncio.wait([running])


@pytest.mark.parametrize("options", [OTHER_CONTEXT, UNSEEN], ids=str)
async def test_slow_reload_is_an_activity_of_a_loaded_model(
    options: dict[str, Setting],
) -> None:
    async with serve_manager() as (server, manager):
        async with reloading(server, manager, options):
            status = await manager.get_status(NAME)
            (running,) = manager.under_way()

            assert (status.state, status.activity) == ("loaded", "reload")
            assert status.why is not None
            assert status.why.event == "ModelLoaded"
            assert running.activity is Activity.RELOAD
            found = (await manager.why(NAME)).ancestors
            assert (found[-1].link, found[-1].entry.type) == (
                "operation",
                "ReloadStarted",
            )
            assert await reloads(manager) == ["ReloadStarted"]

        status = await manager.get_status(NAME)
        assert (status.activity, status.work) == (None, None)
        assert (await reloads(manager))[0] == "ReloadStarted"
        assert (await reloads(manager))[-1] in {"ReloadCompleted", "ReloadUnchanged"}
        await assert_replay_equals_live(manager)


async def test_slow_reload_that_changes_nothing_is_unchanged() -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        busy = {"path": "/api/generate", "times": 2, "status": 503}
        server.apply(answer=busy | {"body": '{"error": "server busy"}'})

        status = await manager.load(NAME, keep_alive="1h")

        assert await reloads(manager) == ["ReloadStarted", "ReloadUnchanged"]
        assert status.runner is not None
        assert status.runner.expires_at is not None
        left = status.runner.expires_at - server.clock.now()
        assert 3500 < left.total_seconds() <= 3600
        assert status.keep_alive is not None


async def test_quick_load_that_changes_nothing_is_no_reload() -> None:
    async with serve_manager() as (_, manager):
        await manager.configure(NAME, {"num_ctx": 1024})
        await manager.load(NAME)

        await manager.load(NAME, keep_alive="1h")

        assert await reloads(manager) == ["KeepAliveRenewed"]


async def test_context_beyond_the_trained_one_is_no_reload_again() -> None:
    async with serve_manager() as (_, manager):
        trained = (await manager.get_status(NAME)).context_trained
        assert trained is not None
        more: dict[str, Setting] = {"num_ctx": 2 * trained}
        status = await manager.load(NAME, options=more)
        assert status.context_in_effect == trained

        await manager.load(NAME, options=more, keep_alive="1h")

        assert await reloads(manager) == ["KeepAliveRenewed"]


async def test_failed_reload_that_keeps_the_runner_is_recorded() -> None:
    async with serve_manager(settings=PATIENT) as (server, manager):
        for options in (OTHER_CONTEXT, UNSEEN):
            await manager.load(NAME)
            server.apply(**FAILING)
            with pytest.raises(HerdbookError):
                await manager.load(NAME, options=options)

            status = await manager.get_status(NAME)
            assert status.state is ModelState.LOADED
            assert status.last_failure is not None
            assert status.last_failure.event == "ReloadFailed"
            assert (await reloads(manager))[-2:] == ["ReloadStarted", "ReloadFailed"]
            server.apply(answer=None)

        await manager.load(NAME, keep_alive="1h")
        assert (await manager.get_status(NAME)).last_failure is None
        await assert_replay_equals_live(manager)


@pytest.mark.parametrize("options", [OTHER_CONTEXT, UNSEEN], ids=str)
async def test_failed_reload_that_loses_the_runner_is_a_failed_load(
    options: dict[str, Setting],
) -> None:
    async with serve_manager() as (server, manager):
        await manager.load(NAME)
        server.apply(runner_dies_saying="out of memory")

        with pytest.raises(LoadFailedError):
            await manager.load(NAME, options=options)

        status = await manager.get_status(NAME)
        assert (status.state, status.work) == (ModelState.ERROR, None)
        lost = ["ModelUnloaded", "LoadStarted", "LoadFailed"]
        assert (await reloads(manager))[-3:] == lost
        await assert_replay_equals_live(manager)


async def test_closing_the_manager_interrupts_the_reload(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server:
        async with server.open_manager(log) as manager:
            async with reloading(server, manager, OTHER_CONTEXT) as running:
                await manager.interrupt()

            assert isinstance(await error_of(running), OperationEndedError)
            assert (await reloads(manager))[:2] == [
                "ReloadStarted",
                "ReloadInterrupted",
            ]


async def test_reload_is_interrupted_if_the_server_is_lost() -> None:
    async with serve_manager() as (server, manager):
        async with reloading(server, manager, OTHER_CONTEXT) as running:
            server.apply(server="killed")

        assert isinstance(await error_of(running), HerdbookError)
        assert await reloads(manager) == ["ReloadStarted", "ReloadInterrupted"]


@pytest.mark.parametrize("options", [OTHER_CONTEXT, UNSEEN], ids=str)
async def test_reload_of_another_instance_is_seen_and_cancelled(
    options: dict[str, Setting], tmp_path: Path
) -> None:
    log = tmp_path / "herd.db"
    async with serve_two_managers(log, settings=PATIENT) as (server, one, other):
        async with reloading(server, one, options) as running:
            status = await other.get_status(NAME)
            assert (status.activity, status.work and status.work.actor) == (
                "reload",
                "library:one",
            )
            for command in (other.load(NAME), other.unload(NAME), other.delete(NAME)):
                with pytest.raises(BusyError, match="running reload"):
                    await command
            await other.refresh()  # leaves the model to who reloads it
            assert not await other.cancel(NAME, Activity.PULL)

            assert await other.cancel(NAME, Activity.LOAD)

        assert isinstance(await error_of(running), OperationEndedError)
        recorded = await recorded_events(one, NAME)
        assert [(event.type, event.actor) for event in recorded[-4:-1]] == [
            ("ReloadStarted", "library:one"),
            ("CancelRequested", "library:two"),
            ("ReloadCancelled", "library:two"),
        ]
        assert recorded[-1].type == "ModelUnloaded"
        assert not await other.cancel(NAME)
        await assert_replay_equals_live(one)


async def test_reload_of_a_dead_instance_is_interrupted(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server:
        async with server.open_manager(log) as manager:
            await manager.load(NAME)
            with FileInstances(tmp_path / "herd.db-instances") as dying:
                begun = facts.ReloadStarted(instance=dying.own)
                await manager._repository.record(NAME, [begun], cause=Cause.COMMAND)
            with pytest.raises(OperationEndedError, match="that ran it has ended"):
                await manager.cancel(NAME)

            (event,) = [
                each
                for each in await recorded_events(manager, NAME)
                if isinstance(each.data, facts.ReloadInterrupted)
            ]
            assert event.data == facts.ReloadInterrupted(instance=dying.own)
            assert (event.cause, event.actor) == (Cause.RECOVERY, "reconciler")
            assert (await manager.get_status(NAME)).work is None


async def test_events_during_a_reload_leave_it_running() -> None:
    async with serve_manager() as (server, manager):
        async with reloading(server, manager, OTHER_CONTEXT):
            await manager.mark_used(NAME)
            await manager.configure(NAME, {"pinned": True})

            status = await manager.get_status(NAME)
            assert (status.state, status.activity) == ("loaded", "reload")

        assert await reloads(manager) == [
            "ReloadStarted",
            "ModelUsed",
            "ConfigurationChanged",
            "ReloadCompleted",
        ]


async def test_reload_changes_the_runner_of_models_with_the_same_weights() -> None:
    async with serve_manager() as (server, manager):
        await server.copy(NAME, TWIN)
        await manager.load(NAME)
        await manager.refresh()

        await manager.load(NAME, options=OTHER_CONTEXT)

        (twin,) = (await recorded_events(manager, TWIN))[-1:]
        assert (twin.type, twin.cause) == ("RunnerChanged", Cause.OBSERVED)


ILLEGAL: list[tuple[Fact, ...]] = [
    (facts.ReloadCancelled(),),
    (facts.ReloadStarted(instance="a"), facts.ReloadStarted(instance="b")),
    (
        facts.ReloadStarted(instance="a"),
        facts.ReloadCancelled(),
        facts.ReloadCancelled(),
    ),
]


@pytest.mark.parametrize("wrong", ILLEGAL)
async def test_reload_in_an_illegal_order_is_refused(wrong: tuple[Fact, ...]) -> None:
    async with serve_manager() as (_, manager):
        await manager.load(NAME)
        before = (await manager.now()).position

        with pytest.raises(HerdbookError, match="not allowed"):
            await manager._repository.record(NAME, wrong, cause=Cause.COMMAND)

        assert (await manager.now()).position == before
