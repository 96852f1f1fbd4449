"""Several nodes with one log: a manager for each of them, as they come and go."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Self

import msgspec

from herdbook.core.clock import Clock, SystemClock
from herdbook.core.concurrency.supervisor import TaskStatus
from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.desired.desired import DesiredSet
from herdbook.core.errors import (
    BusyError,
    CallerError,
    NoPlaceError,
    UnknownNodeError,
)
from herdbook.core.fleet import desired_nodes, placement
from herdbook.core.fleet.desired_nodes import NodePlan
from herdbook.core.fleet.managers import NodeManagers
from herdbook.core.fleet.members import Members
from herdbook.core.fleet.nodes_file import NodeAction, NodeStep
from herdbook.core.fleet.placement import NodeView, Place
from herdbook.core.history.read_model import ReadModel
from herdbook.core.logging import Logger
from herdbook.core.manager import ModelManager
from herdbook.core.models.registry import ModelRegistry
from herdbook.core.observer import Observer
from herdbook.core.ollama.address import base_url, server_setting
from herdbook.core.open_log import OpenLog
from herdbook.core.settings import ManagerSettings
from herdbook.events.facts import NodeSettings
from herdbook.events.instances import Holder
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.streams import check_node, node_stream
from herdbook.projections.nodes import FIRST_NODE, managed_nodes
from herdbook.projections.recommendation import Candidate
from herdbook.projections.roles import ModelRole
from herdbook.projections.status import ModelStatus, NodeStatus

ANY: Final = "any"
ALL: Final = "all"
"""In place of the name of a node: one node that placement chooses, or every node."""

_log = Logger("herdbook.fleet")


class Fleet:
    """The nodes of a log, each with its manager.

    Open it with ``async with Fleet.open(...) as fleet``. A new log has one node, named
    ``local``. While background refreshes are on, the fleet follows
    the log: nodes that other processes add or remove get or lose their manager.

    Attributes:
        log: The log.
        registry: Known models.
    """

    def __init__(
        self,
        log: OpenLog,
        registry: ModelRegistry,
        members: Members,
        managers: NodeManagers,
        *,
        clock: Clock,
    ) -> None:
        self.log = log
        self.registry = registry
        self._members = members
        self._managers = managers
        self._began = clock.now()

    @classmethod
    @asynccontextmanager
    async def open(  # noqa: PLR0913 - each may be left out, and most are
        cls,
        log: str | Path | PostgresAddress = "herd.db",
        *,
        ollama: str | None = None,
        node: str | None = None,
        actor: str = "library:python",
        registry: ModelRegistry | None = None,
        settings: ManagerSettings | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        refresh: bool = True,
        reading: bool = False,
    ) -> AsyncIterator[Self]:
        """Open a log, and a manager for each of its nodes.

        Args:
            log: As ``ModelManager.open`` has it.
            ollama: Address of the chosen node, the only one, or ``local``; by default
                ``OLLAMA_HOST``, or its address in the log if it was added or if
                ``OLLAMA_HOST`` is not set.
            node: Manage only this node; None for all.
            actor: Recorded as who requested a change, outside of ``acting_as``.
            registry: Known models; by default the shipped catalogue.
            settings: Timeouts, retries and intervals of each manager.
            clock: The clock; for tests.
            observer: Receives measurements of appends and requests.
            refresh: Refresh all nodes on opening. One that does not answer is recorded
                as lost and raises no error.
            reading: Open a log that cannot be written too.

        Raises:
            StoreError: The log cannot be opened.
            NodeAddressError: The log has another address for the only node.
            UnknownNodeError: The log does not have ``node``, but others, and no address
                of another server is given for it.
            CallerError: An argument is not valid.
        """
        clock, settings = clock or SystemClock(), settings or ManagerSettings()
        registry = ModelRegistry() if registry is None else registry
        if node is not None:
            check_node(node)
        base_url(server_setting(ollama))

        def open_node(
            one: NodeStatus, wait: bool
        ) -> AbstractAsyncContextManager[ModelManager]:
            own = one.name == meant
            # An added node has its key in a variable of its own, or none.
            keyed = own and (not one.managed or one.name in (node, FIRST_NODE))
            return ModelManager.on(
                opened,
                ollama=ollama if own and one.name not in managers.moved else one.url,
                api_key=None if keyed and not one.settings.key_env else _key_of(one),
                node=one.name,
                actor=actor,
                registry=registry,
                settings=settings,
                clock=clock,
                observer=observer,
                refresh=refresh,
                wait=wait,
            )

        async with OpenLog.open(log, clock, reading=reading) as opened:
            members = Members(opened.live, clock=clock, actor=actor, chosen=node)
            managers = NodeManagers(members, open_node, clock=clock)
            meant = await members.meant(ollama)
            async with AsyncExitStack() as stack:
                stack.push_async_callback(managers.close)
                if node is not None:
                    await members.check_known(node, server_setting(ollama))
                await managers.sync(strict=True)
                if settings.reconcile_every_s is not None:
                    await stack.enter_async_context(opened.following())
                    await stack.enter_async_context(managers.following())
                yield cls(opened, registry, members, managers, clock=clock)

    @property
    def names(self) -> list[str]:
        """Names of the nodes that have a manager, sorted."""
        return self._managers.open_names()

    @property
    def home(self) -> ModelManager:
        """Any of the managers, for questions about the whole log."""
        # The only node has no manager for a moment while it gets another address.
        names = self.names or self.all_names or self._members.names()
        return self.manager(FIRST_NODE if FIRST_NODE in names else names[0])

    @property
    def all_names(self) -> list[str]:
        """Names of all nodes to choose from, managed now or not, sorted."""
        return self._managers.names

    @property
    def is_several(self) -> bool:
        """Whether there is more than one node to choose from."""
        return len(self.all_names) > 1

    def manager(self, name: str) -> ModelManager:
        """Return the manager of a node.

        Raises:
            UnknownNodeError: There is no such node.
            BusyError: The node was added or moved, and is not open here yet.
            HerdbookError: The node cannot be managed now, such as one whose server has
                another address.
        """
        manager = self._managers.find(name)
        if manager is not None:
            return manager
        error = self.problem(name)
        if error is None and self._members.has(name):
            error = BusyError(
                f"node {name!r}",
                "was added or moved and is not open in this process yet",
                "Retry in a few seconds, or open the log again",
            )
        raise error or UnknownNodeError(name, known=tuple(self.all_names))

    def problem(self, name: str) -> Exception | None:
        """Return why a node cannot be managed now; None if it can."""
        return self._managers.error(name)

    def managers(self) -> list[ModelManager]:
        """Return all managers, by the name of their node."""
        return [self.manager(name) for name in self.names]

    async def nodes(self) -> list[NodeStatus]:
        """Return the status of each managed node, by name.

        Raises:
            StoreError: The log cannot be read.
        """
        return await self._managers.nodes()

    async def node(self, name: str) -> NodeStatus:
        """Return the status of a managed node.

        Raises:
            UnknownNodeError: There is no such node.
            StoreError: The log cannot be read.
        """
        nodes = {node.name: node for node in await self.nodes()}
        if name not in nodes:
            raise UnknownNodeError(name, known=tuple(nodes))
        return nodes[name]

    async def check_recorded(self, name: str) -> None:
        """Check that the log has a node, now or before it was removed.

        Raises:
            UnknownNodeError: It never had one with this name.
            StoreError: The log cannot be read.
        """
        names = [node.name for node in await self.nodes()]
        recorded = {node.name for node in self.log.live.views.status.nodes()}
        if name not in recorded.union(names):
            raise UnknownNodeError(name, known=tuple(names))

    @property
    def own_instance(self) -> str:
        """The id of this instance on the log."""
        return self.log.storage.instances.own

    async def reconcilers(self) -> dict[str, Holder]:
        """Return which instance refreshes each node periodically, if one does.

        Raises:
            StoreError: It cannot be found out.
        """
        leases = {str(node_stream(one.name)): one.name for one in await self.nodes()}
        holders = await self.log.storage.instances.holders(leases)
        return {leases[lease]: holder for lease, holder in holders.items()}

    async def now(self) -> list[ReadModel]:
        """Return the read model of each node at the end of the log, by node.

        Raises:
            StoreError: The log cannot be read.
        """
        nodes = await self.nodes()
        return [self._latest(node) for node in nodes]

    def _latest(self, node: NodeStatus) -> ReadModel:
        manager = self._managers.find(node.name)
        if manager is not None:
            return manager.latest()
        return ReadModel(  # nobody refreshes it now
            self.log.live.views,
            self.registry,
            node.name,
            live=True,
            overdue_since=self._began,
        )

    async def as_of(self, when: int | datetime) -> list[ReadModel]:
        """Return the read models of the nodes at a position or time, by node.

        Raises:
            CallerError: The log has no such position, or the time has no time zone.
        """
        return self.nodes_of(await self.home.as_of(when))

    def nodes_of(self, then: ReadModel) -> list[ReadModel]:
        """Return the read models of all nodes at the position of one of them."""
        nodes = managed_nodes(then.nodes(), self._members.chosen)
        return [then.of(node.name) for node in self._managers.chosen(nodes)]

    async def statuses(self) -> list[ModelStatus]:
        """Return the status of each model on each node, by node and name."""
        return [status for one in await self.now() for status in one.statuses()]

    async def on_which(self, model: str) -> list[str]:
        """Return the names of the nodes that have a model.

        Raises:
            InvalidNameError: The name is not valid.
        """
        read_models = await self.now()
        return [one.node for one in read_models if one.status(model).present]

    async def views(
        self, requests: Mapping[str, dict[str, int]] | None = None
    ) -> list[NodeView]:
        """Return what placement knows about each node, by name.

        Args:
            requests: Requests in progress, by node and model, as far as known.

        Raises:
            StoreError: The log cannot be read.
        """
        busy, nodes = requests or {}, await self.nodes()
        return [
            NodeView(
                node=node,
                models=self._latest(node),
                requests=busy.get(node.name, {}),
            )
            for node in nodes
        ]

    async def places(self, role: ModelRole | str) -> list[Place]:
        """Return the models for a role on all nodes, the best first.

        Raises:
            UnknownRoleError: The role does not exist.
            StoreError: The log cannot be read.
        """
        read_models = await self.now()
        order = read_models[0].order_everywhere(role) if read_models else ()
        return await self.places_in(order)

    async def places_in(self, order: Iterable[Candidate]) -> list[Place]:
        """Return the models of the order of a role that nodes may run, the best first.

        Args:
            order: Models by the order of a role, on any nodes.

        Raises:
            StoreError: The log cannot be read.
        """
        views = await self.views()
        if not views:
            return []
        fixed = ReadModel.fixed_together([view.models for view in views])
        nodes = [
            msgspec.structs.replace(view, models=models)
            for view, models in zip(views, fixed, strict=True)
        ]
        found, time_slice = [], TimeSlice()
        for place in placement.places_by_key(order, nodes):
            found.append(place)
            await time_slice.checkpoint()
        return placement.best_first(found)

    async def recommend(self, role: ModelRole | str) -> Place | None:
        """Return the best model for a role and its node; None if there is none.

        Raises:
            UnknownRoleError: The role does not exist.
            StoreError: The log cannot be read.
        """
        return next(iter(await self.places(role)), None)

    async def place_for(self, model: str) -> list[Place]:
        """Return the nodes where a model can be pulled, the best first.

        Raises:
            InvalidNameError: The name is not valid.
            NoPlaceError: No node may get it.
            StoreError: The log cannot be read.
        """
        views = await self.views()
        name = views[0].models.spelled(model)
        size = placement.expected_size(name, views, self.registry)
        places = placement.place_for_new(name, size, views)
        if not places:
            raise NoPlaceError(name, placement.refusals(name, size, views))
        return places

    async def ensure_available(self, model: str, on: str = ANY) -> list[ModelStatus]:
        """Pull a model where it has to be, unless it is there; wait until it is.

        Args:
            model: The model.
            on: Name of a node; ``any`` for one node, chosen by placement if none that
                answers has the model; ``all`` for every node that may have it. If one
                of them fails, the others still get it.

        Returns:
            The status on each of these nodes.

        Raises:
            InvalidNameError: The name is not valid.
            UnknownNodeError: There is no such node.
            NoPlaceError: No node may get it.
            OllamaError: A server does not answer, or a pull failed.
            OperationEndedError: A pull was cancelled.
        """
        if on not in (ANY, ALL):
            return [await self.manager(on).ensure_available(model)]
        views = await self.views()
        if on == ANY:
            there = placement.places_of(model, views)
            if not there or there[0].away:
                try:
                    there = await self.place_for(model)
                except NoPlaceError:
                    if not there:
                        raise
            return [await self.manager(there[0].node).ensure_available(model)]
        name = views[0].models.spelled(model)
        size = placement.expected_size(name, views, self.registry)
        nodes = placement.permitting(name, size, views)
        if not nodes:
            raise NoPlaceError(name, placement.refusals(name, size, views))

        async def ensure(node: str) -> ModelStatus:
            return await self.manager(node).ensure_available(model)

        pulls = (ensure(view.name) for view in nodes)
        ended = await asyncio.gather(*pulls, return_exceptions=True)
        found = []
        for result in ended:
            if isinstance(result, BaseException):
                raise result
            found.append(result)
        return found

    async def freeze(self) -> DesiredSet:
        """Return the current state of all nodes as a desired set.

        With several nodes, each model names those that have it.

        Raises:
            InvalidDesiredError: A model has different settings on two nodes.
        """
        if not self.is_several:
            return await self.home.freeze()
        parts = {name: await self.manager(name).freeze() for name in self.names}
        return desired_nodes.joined(parts)

    async def plan(self, desired: DesiredSet, *, prune: bool = False) -> list[NodePlan]:
        """Return the steps of each node to a desired set, by node; run none.

        Args:
            desired: The desired set.
            prune: Also delete the models of each node, and remove the settings, that
                the set does not name.

        Raises:
            InvalidDesiredError: The set contradicts itself, or names no node.
            NoPlaceError: No node may have a model.
            CloudModelError: The set wants a cloud model in memory.
            OllamaError: A server does not answer.
        """
        views = await self.views()
        parts = desired_nodes.by_node(desired, views, self.registry)
        return [
            NodePlan(node=name, plan=await self.manager(name).plan(part, prune=prune))
            for name, part in parts.items()
        ]

    async def add(
        self, name: str, url: str, settings: NodeSettings | None = None
    ) -> NodeStatus:
        """Add a node, which all processes on the log then manage.

        Args:
            name: Its name in the log.
            url: Address of its server, in the format of ``OLLAMA_HOST``.
            settings: How Herdbook uses it.

        Raises:
            CallerError: An argument is not valid, the node is managed already, another
                node has the address, or this fleet was opened for another node only.
            NodeAddressError: The log has another address for a node with this name.
        """
        return await self._add(name, url, settings, planned=False)

    async def _add(
        self, name: str, url: str, settings: NodeSettings | None, *, planned: bool
    ) -> NodeStatus:
        if self._members.chosen not in (None, name):
            raise CallerError(
                f"node {name!r}",
                f"would not be managed here: only {self._members.chosen!r} is",
                "Add it with 'herdbook node add', and serve the log without --node "
                "and without a sandbox",
            )
        settings = settings or NodeSettings()
        await self._members.add(name, url, settings, planned=planned)
        return await self._changed(name)

    async def configure(self, name: str, settings: NodeSettings) -> NodeStatus:
        """Change all settings of a node.

        Raises:
            UnknownNodeError: There is no such node.
            CallerError: A setting is not valid.
        """
        await self._members.configure(name, settings)
        return await self._changed(name)

    async def move(self, name: str, url: str) -> NodeStatus:
        """Record that the server of a node has another address.

        Raises:
            UnknownNodeError: There is no such node.
            CallerError: The address is not valid, or another node has it.
        """
        await self._members.move(name, url)
        return await self._changed(name)

    async def remove(self, name: str) -> NodeStatus:
        """Stop managing a node.

        Its models stay on its server, and its history stays in the log.

        Raises:
            UnknownNodeError: There is no such node.
            BusyError: An operation on one of its models is running.
            CallerError: It is the only node.
        """
        await self._members.remove(name)
        return await self._changed(name)

    async def apply(self, step: NodeStep) -> NodeStatus:
        """Make one change of the nodes, as a file of nodes requires it.

        Raises:
            HerdbookError: The change is refused, or cannot be recorded.
        """
        match step.action:
            case NodeAction.ADD:
                return await self._add(step.node, step.url, step.settings, planned=True)
            case NodeAction.MOVE:
                await self._members.move(step.node, step.url, planned=True)
                return await self._changed(step.node)
            case NodeAction.CONFIGURE:
                assert step.settings is not None
                return await self.configure(step.node, step.settings)
            case NodeAction.REMOVE:
                return await self.remove(step.node)

    async def _changed(self, name: str) -> NodeStatus:
        await self._managers.sync()
        return self._members.status(name)

    def background_tasks(self) -> list[TaskStatus]:
        """Return the status of each background task of the nodes and of the log."""
        return [*self._managers.tasks(), *self.log.tasks()]


def _key_of(node: NodeStatus) -> str:
    """Return the API key of a node; empty if it needs none."""
    name = node.settings.key_env
    key = os.environ.get(name, "") if name else ""
    if name and not key:
        # The server refuses requests without it: then the node is recorded as lost.
        _log.warning("api_key_not_set", node=node.name, variable=name)
    return key
