"""Several managers of one node on one log: one of them refreshes periodically."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from support.manager_fixture import (
    SandboxServer,
    event_types,
    serve_manager,
    serve_sandbox,
)

from herdbook.core import ManagerSettings, ModelManager
from herdbook.core.observer import NoObserver
from herdbook.core.open_log import OpenLog
from herdbook.core.reconcile.use_watch import Relayed
from herdbook.core.reconcile.watch import LEASE_POLL_S
from herdbook.events.streams import node_stream

NAME = "llama3.2:1b"
EVERY_S = 60.0


class Counting(NoObserver):
    """Counts the refreshes of a manager."""

    def __init__(self) -> None:
        self.refreshes = 0

    def asked(
        self,
        *,
        method: str,
        path: str,
        seconds: float,
        failure: str | None,
    ) -> None:
        self.refreshes += path == "/api/tags"


class NothingRelayed:
    """A gateway without requests."""

    def unrecorded(self) -> Mapping[str, Relayed]:
        return {}

    async def record_ended(self, name: str | None = None) -> int:
        del name
        return 0


@asynccontextmanager
async def opened(
    server: SandboxServer, log: Path, counting: Counting
) -> AsyncIterator[ModelManager]:
    async with ModelManager.open(
        log,
        ollama=server.url,
        clock=server.clock,
        settings=ManagerSettings(reconcile_every_s=EVERY_S),
        observer=counting,
    ) as manager:
        yield manager


async def test_one_of_two_refreshes_and_the_other_takes_over(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    first, second = Counting(), Counting()
    async with serve_sandbox() as server, AsyncExitStack() as stack:
        leading = AsyncExitStack()
        one = await leading.enter_async_context(opened(server, log, first))
        await server.clock.sleep(LEASE_POLL_S)
        two = await stack.enter_async_context(opened(server, log, second))
        assert second.refreshes == 0, "the first instance refreshes already"
        await server.clock.sleep(LEASE_POLL_S)
        at_first, at_second = first.refreshes, second.refreshes

        await server.delete(NAME)
        await server.clock.sleep(10 * EVERY_S)

        assert first.refreshes - at_first >= 9
        assert second.refreshes == at_second
        for manager in (one, two):
            assert (await event_types(manager, NAME)).count("ModelVanished") == 1
            status = await manager.get_status("llama3.1:8b")
            assert status.stale_since is None, "the other instance refreshes it"
            assert all(task.up for task in manager.background_tasks())

        await two.refresh()
        assert second.refreshes == at_second + 1, "a user's refresh needs no lease"

        await leading.aclose()
        await server.clock.sleep(2 * LEASE_POLL_S)
        assert second.refreshes == at_second + 2, "at once when it takes over"
        await server.clock.sleep(10 * EVERY_S)
        assert second.refreshes >= at_second + 11


async def test_manager_that_is_not_opened_leaves_the_lease(tmp_path: Path) -> None:
    """Its process lives on, with the managers of other nodes."""
    settings = ManagerSettings(reconcile_every_s=EVERY_S)
    lease = node_stream("local")
    async with (
        serve_sandbox() as server,
        OpenLog.open(tmp_path / "herd.db", server.clock) as log,
        OpenLog.open(tmp_path / "herd.db", server.clock) as other,
    ):

        async def open_manager() -> None:
            async with ModelManager.on(
                log, ollama=server.url, clock=server.clock, settings=settings
            ):
                pass

        def cancel(path: str) -> tuple[float, float]:
            requested.append(path)
            opening.cancel()
            return 0.0, 0.0

        requested = list[str]()
        opening = asyncio.create_task(open_manager())
        server.world.delays = cancel
        with pytest.raises(asyncio.CancelledError):
            await opening

        assert requested
        assert await other.instances().hold(lease)


async def test_refresh_without_the_lease_records_nothing(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox() as server:
        async with opened(server, log, Counting()) as one:
            await server.clock.sleep(LEASE_POLL_S)
            await server.delete(NAME)

            await one._reconciler.refresh(lease="node/another")
            assert "ModelVanished" not in await event_types(one, NAME)

            await one._reconciler.refresh(lease="node/local")
            assert (await event_types(one, NAME))[-1] == "ModelVanished"


async def test_instance_with_a_gateway_gets_the_lease(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    first, second = Counting(), Counting()
    async with serve_sandbox() as server, opened(server, log, first):
        await server.clock.sleep(LEASE_POLL_S)
        async with (
            opened(server, log, second) as two,
            two.uses.relaying(NothingRelayed()),
        ):
            await server.clock.sleep(2 * EVERY_S)
            at_first, at_second = first.refreshes, second.refreshes
            await server.clock.sleep(5 * EVERY_S)
            assert first.refreshes == at_first
            assert second.refreshes - at_second >= 4
        await server.clock.sleep(2 * EVERY_S)
        assert first.refreshes > at_first


async def test_running_refresh_is_completed_before_its_state_is_forgotten() -> None:
    async with serve_manager() as (server, manager):
        reconciler = manager._reconciler
        await server.delete(NAME)
        refreshing = asyncio.create_task(manager.refresh())
        while not reconciler._refreshing.locked():
            await asyncio.sleep(0)

        await reconciler.forget()

        assert reconciler.last_state is None
        await refreshing
        assert "ModelVanished" in await event_types(manager, NAME)
