"""Several nodes with one log: a manager for each of them, as they come and go."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec

from herdbook.core.clock import Clock, SystemClock
from herdbook.core.concurrency.supervisor import BackgroundTask, TaskStatus
from herdbook.core.desired.desired import DesiredSet
from herdbook.core.errors import NoPlaceError, UnknownNodeError
from herdbook.core.fleet import desired_nodes, placement
from herdbook.core.fleet.desired_nodes import NodePlan
from herdbook.core.fleet.members import DEFAULT, Members, members
from herdbook.core.fleet.nodes_file import NodeAction, NodeStep
from herdbook.core.fleet.placement import NodeView, Place
from herdbook.core.history.levels import LevelKind
from herdbook.core.history.read_model import ReadModel
from herdbook.core.logging import Logger
from herdbook.core.manager import ModelManager
from herdbook.core.models.registry import ModelRegistry
from herdbook.core.observer import Observer
from herdbook.core.ollama.address import base_url, same_server, server_setting
from herdbook.core.open_log import OpenLog
from herdbook.core.settings import ManagerSettings
from herdbook.events.facts import NodeSettings
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.streams import check_node
from herdbook.projections.roles import ModelRole
from herdbook.projections.status import ModelStatus, NodeStatus

LOOK_EVERY_S: Final = 1.0
"""Seconds between two looks for nodes that other processes added or removed."""

FITTED_FOR_S: Final = 60.0
"""Seconds until the memory that has fitted on a node is read from the log again."""

ANY: Final = "any"
ALL: Final = "all"
"""In place of the name of a node: one node that placement chooses, or every node."""

_log = Logger("herdbook.fleet")


class Fleet:
    """The nodes of a log, each with its manager.

    Open it with ``async with Fleet.open(...) as fleet``. A log in which no node was
    added has one, named ``local``. While background refreshes are on, the fleet follows
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
        open_node: Callable[[NodeStatus], AbstractAsyncContextManager[ModelManager]],
        *,
        chosen: str | None,
        clock: Clock,
    ) -> None:
        self.log = log
        self.registry = registry
        self._members = members
        self._open_node = open_node
        self._chosen = chosen
        self._clock = clock
        self._began = clock.now()
        self._running: dict[str, _Running] = {}
        self._moved: set[str] = set()  # the log has their address, not the options
        self._fitted: dict[str, _Fitted] = {}
        self._syncing = asyncio.Lock()
        self._keeper = BackgroundTask("nodes", self._keep_up, clock=clock)
        self._follows = False

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
            ollama: Address of the chosen node, or of ``local``; by default its address
                in the log if it was added, or ``OLLAMA_HOST``.
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
            CallerError: An argument is not valid.
        """
        clock, settings = clock or SystemClock(), settings or ManagerSettings()
        registry = registry or ModelRegistry()
        default = DEFAULT if node is None else check_node(node)
        base_url(server_setting(ollama))

        def open_node(one: NodeStatus) -> AbstractAsyncContextManager[ModelManager]:
            own = one.name == default
            given = own and one.name not in fleet._moved and (ollama or not one.managed)
            return ModelManager.on(
                opened,
                ollama=ollama if given else one.url,
                api_key=None if own and not one.settings.key_env else _key_of(one),
                node=one.name,
                actor=actor,
                registry=registry,
                settings=settings,
                clock=clock,
                observer=observer,
                refresh=refresh,
            )

        async with OpenLog.open(log, clock, reading=reading) as opened:
            members = Members(opened.live, clock=clock, actor=actor, default=default)
            fleet = cls(opened, registry, members, open_node, chosen=node, clock=clock)
            async with AsyncExitStack() as stack:
                stack.push_async_callback(fleet._close)
                await fleet._sync(strict=True)
                if settings.reconcile_every_s is not None:
                    await stack.enter_async_context(opened.following())
                    await stack.enter_async_context(fleet._keeper.running())
                    fleet._follows = True
                yield fleet

    @property
    def names(self) -> list[str]:
        """Names of the nodes that have a manager, sorted."""
        return sorted(name for name, one in self._running.items() if one.manager)

    @property
    def home(self) -> ModelManager:
        """A manager for questions about the log as a whole, whatever node it has."""
        names = self.names
        for running in self._running.values() if not names else ():
            if running.error is not None:
                raise running.error
        return self.manager(DEFAULT if DEFAULT in names else names[0])

    @property
    def all_names(self) -> list[str]:
        """Names of all nodes to choose from, managed now or not, sorted."""
        return sorted(self._running)

    @property
    def is_several(self) -> bool:
        """Whether there is more than one node to choose from."""
        return len(self._running) > 1

    def manager(self, name: str) -> ModelManager:
        """Return the manager of a node.

        Raises:
            UnknownNodeError: There is no such node.
            HerdbookError: The node cannot be managed now, such as one whose server has
                another address.
        """
        running = self._running.get(name)
        if running is not None and running.manager is not None:
            return running.manager
        if running is not None and running.error is not None:
            raise running.error
        raise UnknownNodeError(name, known=tuple(self._running))

    def problem(self, name: str) -> Exception | None:
        """Return why a node cannot be managed now; None if it can."""
        running = self._running.get(name)
        return None if running is None else running.error

    def managers(self) -> list[ModelManager]:
        """Return all managers, by the name of their node."""
        return [self.manager(name) for name in self.names]

    async def nodes(self) -> list[NodeStatus]:
        """Return the status of each managed node, by name.

        Raises:
            StoreError: The log cannot be read.
        """
        nodes = await self._members.now()
        return [one for one in nodes if self._chosen in (None, one.name)]

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

    async def now(self) -> list[ReadModel]:
        """Return the read model of each node at the end of the log, by node.

        Raises:
            StoreError: The log cannot be read.
        """
        nodes = await self.nodes()
        return [self._latest(node) for node in nodes]

    def _latest(self, node: NodeStatus) -> ReadModel:
        running = self._running.get(node.name)
        if running is not None and running.manager is not None:
            return running.manager.latest()
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
        nodes = members(then.nodes(), self._members.default)
        chosen = [one.name for one in nodes if self._chosen in (None, one.name)]
        return [then.of(name) for name in chosen]

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
                capacity_bytes=await self._capacity(node),
                requests=busy.get(node.name, {}),
            )
            for node in nodes
        ]

    async def _capacity(self, node: NodeStatus) -> int | None:
        """Return the memory for models of a node: from a tag, or what has fitted."""
        tagged = placement.capacity(node.settings)
        if tagged is not None or node.name not in self.names:
            return tagged
        now = self._clock.monotonic()
        known = self._fitted.get(node.name)
        if known is not None and now - known.at < FITTED_FOR_S:
            return known.size_bytes
        manager = self.manager(node.name)
        columns = await manager.levels(
            LevelKind.MEMORY, end=self._clock.now(), columns=1
        )
        fitted = max((column.total for column in columns), default=0) or None
        self._fitted[node.name] = _Fitted(now, fitted)
        return fitted

    async def places(self, role: ModelRole | str) -> list[Place]:
        """Return the models for a role on all nodes, the best first.

        Raises:
            UnknownRoleError: The role does not exist.
            StoreError: The log cannot be read.
        """
        return placement.places_for(role, await self.views())

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
        size = self._expected_size(name, views)
        places = placement.place_for_new(name, size, views)
        if not places:
            raise NoPlaceError(name, placement.refusals(name, size, views))
        return places

    def _expected_size(self, name: str, views: Sequence[NodeView]) -> int | None:
        sizes = (view.models.status(name).size_bytes for view in views)
        known = next((size for size in sizes if size is not None), None)
        listed = self.registry.find(name) if known is None else None
        if listed is None or not listed.is_about(name):
            return known
        return listed.download_bytes

    async def ensure_available(self, model: str, on: str = ANY) -> list[ModelStatus]:
        """Pull a model where it has to be, unless it is there; wait until it is.

        Args:
            model: The model.
            on: Name of a node; ``any`` for one node, chosen by placement if none has
                the model; ``all`` for every node that may have it.

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
        if on == ANY:
            there = placement.places_of(model, await self.views())
            place = there[0] if there else (await self.place_for(model))[0]
            return [await self.manager(place.node).ensure_available(model)]
        nodes = [place.node for place in await self.place_for(model)]
        pulls = [self.manager(node).ensure_available(model) for node in sorted(nodes)]
        ended = await asyncio.gather(*pulls, return_exceptions=True)
        found = []
        for result in ended:
            if isinstance(result, BaseException):
                raise result
            found.append(result)
        return found

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
        parts = desired_nodes.by_node(
            desired, views, lambda name: self._expected_size(name, views)
        )
        return [
            NodePlan(node=name, plan=await self.manager(name).plan(part, prune=prune))
            for name, part in parts.items()
        ]

    async def add(
        self, name: str, url: str, settings: NodeSettings | None = None
    ) -> NodeStatus:
        """Manage one more node, from now on and in all processes on the log.

        Args:
            name: Its name in the log.
            url: Address of its server, in the format of ``OLLAMA_HOST``.
            settings: How Herdbook uses it.

        Raises:
            CallerError: An argument is not valid, or the node is managed already.
            NodeAddressError: The log has another address for a node with this name.
        """
        await self._members.add(name, url, settings or NodeSettings())
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
            CallerError: The address is not valid.
        """
        await self._members.move(name, url)
        return await self._changed(name)

    async def remove(self, name: str) -> NodeStatus:
        """Stop managing a node. Its models stay on its server, its past in the log.

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
                return await self.add(step.node, step.url, step.settings)
            case NodeAction.MOVE:
                return await self.move(step.node, step.url)
            case NodeAction.CONFIGURE:
                assert step.settings is not None
                return await self.configure(step.node, step.settings)
            case NodeAction.REMOVE:
                return await self.remove(step.node)

    async def _changed(self, name: str) -> NodeStatus:
        await self._sync()
        return self._members.status(name)

    def background_tasks(self) -> list[TaskStatus]:
        """Return the status of each background task of the nodes and of the log."""
        keeper = [self._keeper.status] if self._follows else []
        several = len(self._running) > 1
        tasks = [
            task if not several else _of_node(task, name)
            for name, running in sorted(self._running.items())
            for task in running.tasks()
        ]
        return [*keeper, *tasks, *self.log.tasks()]

    async def _keep_up(self, task: BackgroundTask) -> None:
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            await self._sync()
            task.worked()

    async def _sync(self, *, strict: bool = False) -> None:
        """Open the managers of new nodes, and close those of nodes that are gone.

        Args:
            strict: Raise the error of a node that is the only one.
        """
        async with self._syncing:
            wanted = {node.name: node for node in await self.nodes()}
            if not wanted and self._chosen is not None:
                known = [node.name for node in await self._members.now()]
                raise UnknownNodeError(self._chosen, known=tuple(known))
            for name, running in list(self._running.items()):
                if name in wanted and running.has_moved(wanted[name]):
                    self._moved.add(name)
                if name not in wanted or running.is_outdated(wanted[name]):
                    await self._stop(name)
            new = [one for name, one in wanted.items() if name not in self._running]
            only = strict and len(wanted) == 1
            for node in new:
                running = _Running(node, self._open_node, clock=self._clock, once=only)
                self._running[node.name] = running
                await running.start()
            for node in new:
                error = await self._running[node.name].opened()
                if error is not None and only:
                    raise error

    async def _stop(self, name: str) -> None:
        await self._running.pop(name).stop()

    async def _close(self) -> None:
        async with self._syncing:
            for name in list(self._running):
                await self._stop(name)


class _Fitted(NamedTuple):
    """The most memory that the runners of a node had at once, as of some time."""

    at: float
    size_bytes: int | None


class _Running:
    """The manager of a node, in a task of its own that opens and closes it.

    A manager that cannot be opened is opened again with back-off, unless it is to be
    opened ``once``.

    Attributes:
        node: The node as it was when the manager was opened.
        manager: The manager; None unless it is open.
        error: Why it could not be opened; None if it could.
    """

    def __init__(
        self,
        node: NodeStatus,
        open_node: Callable[[NodeStatus], AbstractAsyncContextManager[ModelManager]],
        *,
        clock: Clock,
        once: bool = False,
    ) -> None:
        self.node = node
        self._once = once
        self.manager: ModelManager | None = None
        self._open_node = open_node
        self._tried = asyncio.Event()
        self.error: Exception | None = None
        self._task = BackgroundTask("node", self._manage, clock=clock)
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Start to open the manager."""
        await self._stack.enter_async_context(self._task.running())

    async def opened(self) -> Exception | None:
        """Wait until the manager is open; return the error if it cannot be opened."""
        await self._tried.wait()
        return self.error

    async def stop(self) -> None:
        """Close the manager."""
        await self._stack.aclose()

    def is_outdated(self, node: NodeStatus) -> bool:
        """Return whether a node has changed so that it needs another manager."""
        other_key = node.settings.key_env != self.node.settings.key_env
        return other_key or self.has_moved(node)

    def has_moved(self, node: NodeStatus) -> bool:
        """Return whether the server of a node has another address."""
        before = self.manager.url if self.manager else self.node.url
        return bool(node.url and before) and not same_server(node.url, before)

    def tasks(self) -> list[TaskStatus]:
        """Return the status of its background tasks; of the failure to open it."""
        if self.manager is not None:
            return self.manager.watch_tasks()
        return [self._task.status]

    async def _manage(self, task: BackgroundTask) -> None:
        try:
            async with self._open_node(self.node) as manager:
                self.manager, self.error = manager, None
                task.worked()
                self._tried.set()
                await asyncio.get_running_loop().create_future()  # until cancelled
        except Exception as error:
            self.error = error
            if not self._once:
                raise
        finally:
            self.manager = None
            self._tried.set()


def _key_of(node: NodeStatus) -> str:
    """Return the API key of a node; empty if it needs none."""
    name = node.settings.key_env
    key = os.environ.get(name, "") if name else ""
    if name and not key:
        # The server refuses requests without it: then the node is recorded as lost.
        _log.warning("api_key_not_set", node=node.name, variable=name)
    return key


def _of_node(task: TaskStatus, node: str) -> TaskStatus:
    """Return the status of a task with the name of its node."""
    return msgspec.structs.replace(task, name=f"{task.name}/{node}")
