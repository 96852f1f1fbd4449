"""Background refreshes continue until the manager is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.manager_fixture import SandboxServer, event_types, serve_sandbox

from herdbook import sandbox
from herdbook.core import Level, ManagerSettings, ModelManager, StoreFullError
from herdbook.core.concurrency.supervisor import TaskStatus
from herdbook.core.observer import NoObserver

NAME = "llama3.2:1b"
PINNED = "llama3.1:8b"
EVERY_S = 60.0
SETTINGS = ManagerSettings(reconcile_every_s=EVERY_S)


class Faulty(NoObserver):
    """An observer with a fault of its own: it raises while there is something to."""

    def __init__(self) -> None:
        self.raises: Exception | None = None

    def asked(
        self, *, method: str, path: str, seconds: float, failure: str | None
    ) -> None:
        if self.raises and path == "/api/tags":
            raise self.raises


@asynccontextmanager
async def watched(
    sandbox_settings: sandbox.Settings | None = None,
) -> AsyncIterator[tuple[SandboxServer, ModelManager, Faulty]]:
    observer = Faulty()
    async with serve_sandbox(settings=sandbox_settings) as server:
        opened = ModelManager.open(
            ":memory:",
            ollama=server.url,
            clock=server.clock,
            settings=SETTINGS,
            observer=observer,
        )
        async with opened as manager:
            yield server, manager, observer


def reconciler(manager: ModelManager) -> TaskStatus:
    return next(one for one in manager.background_tasks() if one.name == "reconciler")


async def test_failed_refresh_is_reported_and_the_next_one_runs() -> None:
    async with watched() as (server, manager, observer):
        observer.raises = OverflowError("a number of a million digits")
        await server.clock.sleep(EVERY_S + 0.5)

        broken = reconciler(manager)
        assert not broken.up
        assert "OverflowError" in broken.failure or "ExceptionGroup" in broken.failure
        assert (await manager.node_status()).reached, (
            "nothing invented about the server"
        )

        observer.raises = None
        await server.delete(NAME)
        await server.clock.sleep(EVERY_S + 5)

        well = reconciler(manager)
        assert well == TaskStatus(name="reconciler", restarts=well.restarts)
        assert well.restarts > 0
        assert (await event_types(manager, NAME))[-1] == "ModelVanished"


async def test_full_log_fails_refreshes_until_there_is_space() -> None:
    async with watched() as (server, manager, observer):
        observer.raises = StoreFullError("herd.db", "has no space left")
        await server.clock.sleep(EVERY_S + 1)
        assert reconciler(manager).code == "store_full"

        observer.raises = None
        await server.clock.sleep(EVERY_S + 5)

        assert reconciler(manager).up


async def test_statuses_are_stale_while_no_refresh_succeeds() -> None:
    async with watched() as (server, manager, observer):
        seen = server.clock.now()
        observer.raises = ZeroDivisionError()
        await server.clock.sleep(2 * EVERY_S)
        assert (await manager.get_status(NAME)).stale_since is None

        await server.clock.sleep(2 * EVERY_S)

        status = await manager.get_status(NAME)
        assert status.stale_since is not None
        assert abs((status.stale_since - seen).total_seconds()) < 1
        assert all(one.stale_since for one in await manager.all_statuses())
        assert (await manager.get_status("never-seen")).stale_since is not None

        observer.raises = None
        await manager.refresh()

        assert (await manager.get_status(NAME)).stale_since is None


async def test_lost_server_is_not_a_failure_of_the_task() -> None:
    async with watched() as (server, manager, _):
        server.apply(server="killed")
        await server.clock.sleep(10 * EVERY_S)

        assert not (await manager.node_status()).reached
        assert reconciler(manager) == TaskStatus(name="reconciler")


async def test_doctor_names_the_failing_refresh() -> None:
    async with watched() as (server, manager, observer):
        (well,) = [one for one in await manager.doctor() if one.check == "background"]
        assert well.level is Level.OK

        observer.raises = ZeroDivisionError("a fault")
        await server.clock.sleep(EVERY_S + 1)
        observer.raises = None

        (found,) = [one for one in await manager.doctor() if one.check == "background"]
        assert found.level is Level.PROBLEM
        assert found.what.startswith("reconciler is failing: unexpected error")


async def test_long_load_of_a_pinned_model_delays_no_refresh() -> None:
    one_runner = sandbox.Settings(max_loaded=1)
    async with watched(one_runner) as (server, manager, _):
        await manager.configure(PINNED, {"pinned": True, "keep_alive": -1})
        await manager.load(PINNED)
        await server.load(NAME, keep_alive="2m")
        await server.clock.sleep(EVERY_S)
        server.apply(runner_start_delay_s=4 * EVERY_S)
        await server.wait_until(lambda: bool(manager.under_way()))
        before = server.request_count("/api/tags")

        await server.clock.sleep(3 * EVERY_S)

        assert manager.under_way()
        assert server.request_count("/api/tags") >= before + 2


async def test_no_task_is_left_running_at_the_end() -> None:
    before = asyncio.all_tasks()
    async with watched() as (server, _, observer):
        observer.raises = OverflowError()
        await server.clock.sleep(EVERY_S + 0.5)  # it waits for its restart

    assert asyncio.all_tasks() <= before
