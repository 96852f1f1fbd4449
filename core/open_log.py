"""A log that is open in this process: what all managers of its nodes share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

from herdbook.core import views
from herdbook.core.clock import Clock
from herdbook.core.concurrency.refresh_turns import RefreshTurns
from herdbook.core.concurrency.supervisor import TaskStatus
from herdbook.core.history.past import MOST_AT_ONCE, Past
from herdbook.core.history.usage import UsageHistory
from herdbook.core.log.location import LogLocation
from herdbook.core.log.storage import Storage
from herdbook.core.logging import Logger
from herdbook.core.repository import LiveViews
from herdbook.events.errors import StoreError
from herdbook.events.instances import Fence, Holder, Instances

_log = Logger("herdbook.open_log")


class OpenLog:
    """The storage of a log, its views and its past, for the managers of its nodes.

    Attributes:
        storage: The log and its snapshots.
        live: The views that follow the log.
        past: The views at earlier positions.
        usage: The use of the models.
        refreshing: Shares the time among the background refreshes of all nodes.
    """

    def __init__(self, storage: Storage, live: LiveViews, clock: Clock) -> None:
        self.storage = storage
        self.live = live
        self.past = Past(storage)
        self.usage = UsageHistory(storage)
        self.refreshing = RefreshTurns()
        self._announcements = _Announcements(storage.instances)
        self._saving = asyncio.Lock()
        self._following = self.past.following(live.views, clock)
        self._follows = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, log: str | LogLocation | Path, clock: Clock, *, reading: bool = False
    ) -> AsyncIterator[Self]:
        """Open a log, and replay it.

        Args:
            log: The file, the address of the database, or ``:memory:``.
            clock: The clock.
            reading: Open a log that cannot be written too, for reading alone.

        Raises:
            StoreError: The log cannot be opened.
        """
        async with Storage.open(log, clock, reading=reading) as storage:
            restored = await views.restore(storage.store, storage.snapshots)
            yield cls(storage, LiveViews(storage.store, restored), clock)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Keep the snapshots of the past up to date while the block runs."""
        if self.storage.read_only:
            yield
            return
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._following.running())
            self._follows = True
            stack.callback(setattr, self, "_follows", False)
            yield

    def tasks(self) -> list[TaskStatus]:
        """Return the status of each background task of the log."""
        own = [self._following.status] if self._follows else []
        return [*own, *self.storage.tasks()]

    def instances(self) -> Instances:
        """Return this instance for one more manager, with announcements of its own."""
        return _ManagerInstances(self._announcements)

    async def save_snapshots(self, *, every: int) -> None:
        """Save the snapshots that are due; a failure is logged, not raised.

        Args:
            every: Save the newest views after this many events.
        """
        if self.storage.read_only:
            return
        current = self.live.views
        # One at a time: snapshots of different positions cannot be used together.
        async with self._saving:
            if current.position - current.saved_position >= every:
                try:
                    await views.save(current, self.storage.snapshots)
                except StoreError as error:  # snapshots are a cache of the log
                    _log.warning("snapshots_not_saved", reason=str(error))
            try:
                await self.past.follow(current, most=MOST_AT_ONCE)
            except StoreError as error:
                _log.warning("snapshots_not_saved", reason=str(error))


class _Announcements:
    """Joins what the managers of an instance announce: it announces all at once."""

    def __init__(self, instances: Instances) -> None:
        self.instances = instances
        self._streams: dict[object, Collection[str]] = {}
        self._turn = asyncio.Lock()  # the last one that is sent must be the newest

    async def announce(self, manager: object, streams: Collection[str]) -> None:
        """Announce the streams of a manager in addition to those of the others."""
        async with self._turn:
            if streams:
                self._streams[manager] = tuple(streams)
            else:
                self._streams.pop(manager, None)
            joined = [name for each in self._streams.values() for name in each]
            await self.instances.announce(joined)


class _ManagerInstances:
    """The instances on a log, as one manager of this process sees them."""

    def __init__(self, announcements: _Announcements) -> None:
        self._announcements = announcements
        self._instances = announcements.instances

    @property
    def own(self) -> str:
        """The id of this instance."""
        return self._instances.own

    async def alive(self, instance: str) -> bool:
        """Return whether an instance is alive."""
        return await self._instances.alive(instance)

    async def announce(self, streams: Collection[str]) -> None:
        """Announce the streams that this manager changes, instead of earlier ones."""
        await self._announcements.announce(self, streams)

    async def announced(self) -> frozenset[str]:
        """Return the streams that the other living instances announced."""
        return await self._instances.announced()

    async def hold(self, lease: str) -> bool:
        """Take a lease unless another instance has it; return whether it is held."""
        return await self._instances.hold(lease)

    async def holds(self, lease: str) -> bool:
        """Return whether this instance holds a lease now."""
        return await self._instances.holds(lease)

    async def holders(self, leases: Collection[str]) -> Mapping[str, Holder]:
        """Return the instance that holds each of some leases, if one does."""
        return await self._instances.holders(leases)

    def fence(self, lease: str) -> Fence:
        """Return the condition of an append that this instance holds a lease."""
        return self._instances.fence(lease)

    async def release(self, lease: str) -> None:
        """Release a lease."""
        await self._instances.release(lease)
