"""The objects that all handlers share: nodes, operations, event stream and cache."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from herdbook.core import Clock, Fleet, ManagerSettings, ModelManager, ReadModel
from herdbook.core.concurrency.supervisor import TaskStatus
from herdbook.core.desired.desired import read
from herdbook.core.errors import AmbiguousNodeError, UnknownNodeError
from herdbook.core.fleet import queries
from herdbook.core.upkeep.upkeep import Upkeep
from herdbook.presentation.times import Now
from herdbook.service.cache import ResponseCache
from herdbook.service.encoded_models import EncodedModels
from herdbook.service.errors import OverloadedError
from herdbook.service.event_stream import Live, Reason
from herdbook.service.http.request import AnyRequest
from herdbook.service.metrics import Metrics, Readings
from herdbook.service.operations.client_operations import ClientOperations
from herdbook.service.settings import ServiceSettings

MAX_PAST_MODELS: Final = 16
"""Maximum number of cached read models of the past: pages ask for one repeatedly."""

MAX_WAITING_REPLAYS: Final = 8
"""Maximum number of requests that wait for a replay, which can take seconds."""

RECONCILE_EVERY_S: Final = 5.0
"""Seconds between two refreshes of the server's state."""


def default_manager_settings(
    *, resume_pulls: bool = False, follow_node: bool = False
) -> ManagerSettings:
    """Return the settings of a manager that belongs to a service."""
    return ManagerSettings(
        refresh_timeout_s=5.0,
        reconcile_every_s=RECONCILE_EVERY_S,
        resume_pulls=resume_pulls,
        follow_node=follow_node,
    )


class Service:
    """One service and its nodes.

    Attributes:
        fleet: The nodes.
        settings: The settings of the service.
        clock: The clock.
        operations: The operations that clients started.
        live: The live event stream.
        upkeep: Backups and anchors of the log at intervals.
        metrics: The metrics.
        response_cache: Encoded responses, valid until the log changes.
        encoded_models: The JSON of each model, valid until the model changes.
    """

    def __init__(
        self,
        fleet: Fleet,
        settings: ServiceSettings,
        *,
        clock: Clock,
        metrics: Metrics,
        upkeep: Upkeep,
    ) -> None:
        self.fleet = fleet
        self.settings = settings
        self.clock = clock
        self.metrics = metrics
        self.upkeep = upkeep
        self.operations = ClientOperations(fleet, clock, fetched=metrics.fetched)
        self.live = Live(
            fleet,
            clock,
            reader_events=settings.reader_events,
            heartbeat_s=settings.heartbeat_s,
        )
        self.response_cache = ResponseCache()
        self.encoded_models = EncodedModels()
        self._past: OrderedDict[int | datetime, ReadModel] = OrderedDict()
        self._replaying = asyncio.Lock()
        self._waiting = 0

    @property
    def manager(self) -> ModelManager:
        """A manager for questions about the log as a whole."""
        return self.fleet.home

    @property
    def stopping(self) -> bool:
        """Whether the service refuses new operations because it is stopping."""
        return self.operations.stopping

    def background_tasks(self) -> list[TaskStatus]:
        """Return the status of the background tasks of nodes, log and service."""
        return [*self.fleet.background_tasks(), *self.live.background_tasks()]

    async def desired_models(self) -> list[str]:
        """Return the names of the models in the desired set of the settings.

        Raises:
            InvalidDesiredError: The file cannot be read or is not valid.
        """
        file = self.settings.desired
        if file is None:
            return []
        return [one.name for one in (await asyncio.to_thread(read, file)).models]

    async def readings(self) -> Readings:
        """Return the current values of the gauges.

        Raises:
            StoreError: The log cannot be read.
        """
        lag = await self.manager.lag()
        return Readings(
            read_models=await self.fleet.now(),
            refreshes=frozenset(
                name
                for name, one in (await self.fleet.reconcilers()).items()
                if one.instance == self.fleet.own_instance
            ),
            lag=lag,
            readers=self.live.readers,
            tasks=[*self.background_tasks(), *self.upkeep.tasks()],
            upkeep=self.upkeep.statuses(),
            operations=self.operations.all(),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the background tasks during the block, then stop all operations."""
        async with self.live.running(), self.upkeep.running():
            try:
                yield
            finally:
                await self.stop()

    async def stop(self) -> None:
        """Refuse new operations, interrupt running ones and end event streams."""
        await self.operations.close()
        self.live.close(Reason.STOPPING)

    async def read_models(
        self, as_of: str | None = None, node: str | None = None
    ) -> list[ReadModel]:
        """Return the read models of all nodes, of now or of a position or time.

        Args:
            as_of: A position or time: ``#988``, ISO 8601, ``2 hours ago``; None for
                now.
            node: Only this node; None for all.

        Raises:
            CallerError: The text is not a time, is in the future, or the log has no
                such position.
            UnknownNodeError: There is no such node.
        """
        if as_of is None:
            nodes = await self.fleet.now()
        else:
            then = await self.past(Now(self.clock.now()).parse(as_of))
            nodes = self.fleet.nodes_of(then)
        if node is None:
            return nodes
        chosen = [one for one in nodes if one.node == node]
        if not chosen:
            raise UnknownNodeError(node, known=tuple(one.node for one in nodes))
        return chosen

    async def read_model(
        self, as_of: str | None = None, node: str | None = None
    ) -> ReadModel:
        """Return the read model of one node, of now or of a position or time.

        Args:
            as_of: As ``read_models`` has it.
            node: The node; None for the only one.

        Raises:
            AmbiguousNodeError: There are several nodes, and none is named.
            UnknownNodeError: There is no such node.
            CallerError: As ``read_models`` has it.
        """
        nodes = await self.read_models(as_of, node)
        if len(nodes) > 1:
            raise AmbiguousNodeError("", tuple(one.node for one in nodes))
        return nodes[0]

    async def read_model_with(
        self, model: str, *, as_of: str | None = None, node: str | None = None
    ) -> ReadModel:
        """Return the read model of the node that a request about a model means.

        Args:
            model: Name of the model.
            as_of: As ``read_models`` has it.
            node: The node; None for the one that has the model.

        Raises:
            InvalidNameError: The name is not valid.
            AmbiguousNodeError: Several nodes have the model.
            ModelNotFoundError: None of several nodes knows the model.
            UnknownNodeError: There is no such node.
            CallerError: As ``read_models`` has it.
        """
        nodes = await self.read_models(as_of, node)
        name = queries.node_in(nodes, model)
        return next(one for one in nodes if one.node == name)

    async def manager_with(self, model: str, node: str | None = None) -> ModelManager:
        """Return the manager of the node that a request about a model means.

        Raises:
            CallerError: As ``read_model_with`` has it.
        """
        read_model = await self.read_model_with(model, node=node)
        return self.fleet.manager(read_model.node)

    async def past(self, when: int | datetime) -> ReadModel:
        """Return the read model of a position or time; replays run one at a time.

        Raises:
            OverloadedError: Too many requests wait for a replay.
            CallerError: The log has no such position.
        """
        if when not in self._past and self._waiting >= MAX_WAITING_REPLAYS:
            raise OverloadedError(
                "the service",
                "is replaying the log for too many other requests",
                "Try again in a few seconds",
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
            while len(self._past) > MAX_PAST_MODELS:
                self._past.popitem(last=False)
            return read_model


def service_of(request: AnyRequest) -> Service:
    """Return the service that handles a request."""
    service: Service = request.app.state.service
    return service
