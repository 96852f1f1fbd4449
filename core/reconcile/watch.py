"""Watch the server in the background, and load pinned models after each refresh.

Each runs as a background task, which is restarted if it fails. An unreachable server
is not a failure of the task.

Several instances may use one log. The one that holds the node's lease refreshes; the
others follow the log, and one of them takes over when the lease is free.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Final

from herdbook.core.clock import Clock
from herdbook.core.concurrency.refresh_turns import RefreshTurns
from herdbook.core.concurrency.supervisor import BackgroundTask, TaskStatus, all_running
from herdbook.core.errors import OllamaError
from herdbook.core.logging import Logger
from herdbook.core.reconcile.reconciler import Reconciler
from herdbook.core.repository import ModelRepository
from herdbook.core.settings import ManagerSettings
from herdbook.events.errors import StoreError
from herdbook.events.instances import Instances
from herdbook.events.streams import node_stream

MISSED: Final = 3
"""Intervals without a successful refresh after which statuses are out of date."""

LEASE_POLL_S: Final = 2.0
"""Interval at which an instance without the lease tries to take it, seconds."""

YIELD_S: Final = 3 * LEASE_POLL_S
"""Time for which an instance leaves the lease to one that runs a gateway, seconds."""

_log = Logger("herdbook.watch")


class Watch:
    """The background tasks of one manager.

    Args:
        repository: Knows whether the server is reachable.
        reconciler: Refreshes the state of the server.
        keep_views: Saves snapshots of the views when they are due.
        load_pinned: Loads pinned models that were evicted, once there is room.
        refreshing: Shares the time among the refreshes of all nodes.
        instances: Have the lease of the node.
        clock: Measures the intervals.
        settings: The intervals.
    """

    def __init__(
        self,
        repository: ModelRepository,
        reconciler: Reconciler,
        *,
        keep_views: Callable[[], Awaitable[None]],
        load_pinned: Callable[[], Awaitable[None]],
        refreshing: RefreshTurns,
        instances: Instances,
        clock: Clock,
        settings: ManagerSettings,
    ) -> None:
        self._repository = repository
        self._reconciler = reconciler
        self._keep_views = keep_views
        self._load_pinned = load_pinned
        self._refreshing = refreshing
        self._instances = instances
        self._lease = node_stream(repository.node)
        self._follows = False
        self._clock = clock
        self._settings = settings
        self._lost_wait_s = settings.lost_wait_s
        self._refreshed = asyncio.Event()
        self._began: datetime | None = None
        self._tasks = tuple(
            BackgroundTask(name, work, clock=clock, node=repository.node)
            for name, work in (
                ("reconciler", self._keep_refreshing),
                ("pinned_models", self._keep_pinned),
            )
        )

    async def refresh_first(self, recovered: Collection[str]) -> None:
        """Refresh on opening, unless another instance refreshes this node already.

        Without background refreshes, refresh in any case: on behalf of a user.

        Args:
            recovered: Models whose work was just found interrupted.

        Raises:
            NodeAddressError: The log has another address for this node.
            OllamaError: The refresh failed; the node is recorded as lost.
        """
        if self._settings.reconcile_every_s is None:
            await self._reconciler.refresh(recovered=recovered)
        elif await self._instances.hold(self._lease):
            await self._reconciler.refresh(recovered=recovered, lease=self._lease)
        else:
            self._reconciler.check_address()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch the server while the block runs, if the settings ask for that."""
        if self._settings.reconcile_every_s is None:
            yield
            return
        self._began = self._clock.now()
        with self._refreshing.joined():
            async with all_running(*self._tasks):
                yield

    async def leave(self) -> None:
        """Let another instance refresh the node from now on."""
        if self._settings.reconcile_every_s is not None:
            with suppress(StoreError):  # then the lease ends with this instance
                await self._instances.release(self._lease)

    def tasks(self) -> list[TaskStatus]:
        """Return the status of each task; nothing if the server is not watched."""
        return [task.status for task in self._tasks] if self._began else []

    def overdue_since(self) -> datetime | None:
        """Return the time of the last successful refresh if several are missing since.

        None as long as refreshes succeed, and where the server is not watched, or
        is watched by another instance.
        """
        every_s = self._settings.reconcile_every_s
        if self._began is None or every_s is None or self._follows:
            return None
        state = self._reconciler.last_state
        last = state.at if state else self._began
        every_s = self._refreshing.refresh_every_s(every_s)
        allowed_s = MISSED * every_s + self._settings.refresh_timeout_s
        age_s = (self._clock.now() - last).total_seconds()
        return last if age_s > allowed_s else None

    async def _keep_refreshing(self, task: BackgroundTask) -> None:
        while True:
            taken_over = await self._wait_for_lease(task)
            if task.status.up and not taken_over:  # else it has waited already
                await self._clock.sleep(self._next_wait_s())
                await self._wait_for_lease(task)  # it may have been lost meanwhile
            try:
                async with self._refreshing:
                    await self._reconciler.refresh(lease=self._lease)
            except OllamaError as error:  # recorded as a lost server
                _log.warning(
                    "refresh_failed", node=self._repository.node, reason=str(error)
                )
            await self._keep_views()
            task.succeeded()
            self._refreshed.set()
            if self._reconciler.uses.relayed_elsewhere:
                await self._instances.release(self._lease)
                await self._clock.sleep(YIELD_S)

    async def _wait_for_lease(self, task: BackgroundTask) -> bool:
        """Wait until this instance holds the lease; return whether it had to wait."""
        while not await self._instances.hold(self._lease):
            if not self._follows:
                _log.info("refreshed_by_other_instance", node=self._repository.node)
            self._follows = True
            await self._reconciler.forget()
            await self._repository.catch_up()
            await self._keep_views()
            task.succeeded()
            await self._clock.sleep(self._refreshing.poll_every_s(LEASE_POLL_S))
        waited, self._follows = self._follows, False
        if waited:
            self._began = self._clock.now()
        return waited

    def _next_wait_s(self) -> float:
        """Return the seconds until the next refresh; more while the server is lost."""
        assert self._settings.reconcile_every_s is not None
        if self._repository.node_status().reached:
            self._lost_wait_s = self._settings.lost_wait_s
            return self._refreshing.refresh_every_s(self._settings.reconcile_every_s)
        wait_s = min(self._lost_wait_s, self._settings.lost_wait_max_s)
        self._lost_wait_s = 2 * wait_s
        return self._refreshing.refresh_every_s(wait_s)

    async def _keep_pinned(self, task: BackgroundTask) -> None:
        """Load pinned models after each refresh; a long load delays no refresh."""
        while True:
            await self._refreshed.wait()
            self._refreshed.clear()
            await self._load_pinned()
            task.succeeded()
