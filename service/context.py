"""What all handlers share: the manager, the operations, the live log, the answers.

Made once by ``application.py``; whoever opens it closes it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from herdbook.core import Clock, ManagerSettings, ModelManager, ReadModel
from herdbook.core.concurrency.supervisor import TaskStatus
from herdbook.presentation.times import Now
from herdbook.service.cache import ResponseCache
from herdbook.service.errors import OverloadedError
from herdbook.service.http.request import AnyRequest
from herdbook.service.live import Live, Reason
from herdbook.service.metrics import Metrics, Readings
from herdbook.service.operations.operations import Operations
from herdbook.service.settings import ServiceSettings

PAST_KEPT: Final = 16
"""Moments of the past that are kept: who looks at one asks for it again soon."""

REPLAYS_WAITING: Final = 8
"""How many may wait for a moment of the past: each takes seconds in a long log."""

RECONCILE_EVERY_S: Final = 5.0
"""Seconds between two looks at the server."""


def default_manager_settings(
    *, resume_pulls: bool = False, follow_node: bool = False
) -> ManagerSettings:
    """Return how the manager of a service goes about its work."""
    return ManagerSettings(
        refresh_timeout_s=5.0,
        reconcile_every_s=RECONCILE_EVERY_S,
        resume_pulls=resume_pulls,
        follow_node=follow_node,
    )


class Service:
    """One service over one manager.

    Attributes:
        manager: The manager.
        settings: What it was started with.
        clock: What time it is.
        operations: The long work.
        live: The log as it grows.
        metrics: What is measured.
        kept: Answers that are the same until the log moves.
    """

    def __init__(
        self,
        manager: ModelManager,
        settings: ServiceSettings,
        *,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.manager = manager
        self.settings = settings
        self.clock = clock
        self.metrics = metrics
        self.operations = Operations(manager, clock, fetched=metrics.fetched)
        self.live = Live(
            manager,
            clock,
            reader_events=settings.reader_events,
            heartbeat_s=settings.heartbeat_s,
        )
        self.response_cache = ResponseCache()
        self._past: OrderedDict[int | datetime, ReadModel] = OrderedDict()
        self._replaying = asyncio.Lock()
        self._waiting = 0

    @property
    def stopping(self) -> bool:
        """Whether it begins nothing any more."""
        return self.operations.stopping

    def background_tasks(self) -> list[TaskStatus]:
        """Return the status of each background task: of manager, log and service."""
        return [*self.manager.background_tasks(), *self.live.background_tasks()]

    async def readings(self) -> Readings:
        """Return what the gauges of the metrics show now.

        Raises:
            StoreError: The log does not answer.
        """
        lag = await self.manager.lag()
        return Readings(
            read_model=await self.manager.now(),
            lag=lag,
            readers=self.live.readers,
            tasks=self.background_tasks(),
            operations=self.operations.all(),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the log while the block runs, and end all work behind it."""
        async with self.live.running():
            try:
                yield
            finally:
                await self.stop()

    async def stop(self) -> None:
        """Begin nothing more, interrupt what is under way, send readers away."""
        await self.operations.close()
        self.live.close(Reason.STOPPING)

    async def read_model(self, as_of: str | None = None) -> ReadModel:
        """Return what the log says now, or said at a position or a time.

        Args:
            as_of: A moment as people write it: ``#988``, ISO 8601, ``2 hours ago``;
                None for now.

        Raises:
            CallerError: It is no read_model, lies in the future, or the log has no such
                position.
        """
        if as_of is None:
            return await self.manager.now()
        return await self.past(Now(self.clock.now()).parse(as_of))

    async def past(self, when: int | datetime) -> ReadModel:
        """Return what the log said at a position or a time; one replay at a time.

        Raises:
            OverloadedError: Too many wait for theirs already.
            CallerError: The log has no such position.
        """
        if when not in self._past and self._waiting >= REPLAYS_WAITING:
            raise OverloadedError(
                "the past", "is asked for by too many at once", "Try again in a moment"
            )
        self._waiting += 1
        try:
            return await self._replayed(when)
        finally:
            self._waiting -= 1

    async def _replayed(self, when: int | datetime) -> ReadModel:
        async with self._replaying:
            read_model = self._past.get(when)
            if read_model is None:
                read_model = self._past[when] = await self.manager.as_of(when)
            self._past.move_to_end(when)
            while len(self._past) > PAST_KEPT:
                self._past.popitem(last=False)
            return read_model


def service_of(request: AnyRequest) -> Service:
    """Return the service that a request was sent to."""
    service: Service = request.app.state.service
    return service
