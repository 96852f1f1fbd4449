"""A manager for each node of a log, opened and closed as nodes come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from typing import Final

import msgspec

from herdbook.core.clock import Clock
from herdbook.core.concurrency.supervisor import BackgroundTask, TaskStatus
from herdbook.core.errors import NodeAddressError, UnknownNodeError
from herdbook.core.fleet.members import Members
from herdbook.core.logging import Logger
from herdbook.core.manager import ModelManager
from herdbook.core.ollama.address import same_server
from herdbook.projections.status import NodeStatus

SYNC_EVERY_S: Final = 1.0
"""Seconds between two checks for nodes that other processes added or removed."""

_log = Logger("herdbook.nodes")

OpenNode = Callable[[NodeStatus, bool], AbstractAsyncContextManager[ModelManager]]
"""Opens the manager of a node; the second argument says whether to wait for its first
refresh."""


class NodeManagers:
    """The managers of the nodes, one each.

    Args:
        members: The nodes of the log.
        open_node: Opens the manager of a node.
        clock: The clock.

    Attributes:
        moved: Names of the nodes whose address changed in the log since they were
            opened: it counts more than the one that was given on opening.
    """

    def __init__(
        self,
        members: Members,
        open_node: OpenNode,
        *,
        clock: Clock,
    ) -> None:
        self.moved: set[str] = set()
        self._members = members
        self._open_node = open_node
        self._clock = clock
        self._managers: dict[str, _NodeManager] = {}
        self._syncing = asyncio.Lock()
        self._keeper = BackgroundTask("nodes", self._keep_in_sync, clock=clock)
        self._follows = False

    @property
    def names(self) -> list[str]:
        """Names of all nodes, with a manager or not, sorted."""
        return sorted(self._managers)

    def open_names(self) -> list[str]:
        """Return the names of the nodes whose manager is open, sorted."""
        return sorted(name for name, one in self._managers.items() if one.manager)

    def find(self, name: str) -> ModelManager | None:
        """Return the manager of a node; None if it is not open."""
        one = self._managers.get(name)
        return None if one is None else one.manager

    def error(self, name: str) -> Exception | None:
        """Return why the manager of a node cannot be opened; None if it is open."""
        one = self._managers.get(name)
        return None if one is None else one.error

    def tasks(self) -> list[TaskStatus]:
        """Return the status of each background task of the nodes."""
        keeper = [self._keeper.status] if self._follows else []
        several = len(self._managers) > 1
        return keeper + [
            _of_node(task, name) if several else task
            for name, one in sorted(self._managers.items())
            for task in one.tasks()
        ]

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Open and close managers as nodes come and go, until the block is left."""
        self._follows = True
        async with self._keeper.running():
            yield

    async def nodes(self) -> list[NodeStatus]:
        """Return the nodes that should have a manager, by name.

        Raises:
            StoreError: The log cannot be read.
        """
        return self.chosen(await self._members.now())

    def chosen(self, nodes: Iterable[NodeStatus]) -> list[NodeStatus]:
        """Return those of the given nodes that are to be managed."""
        return [one for one in nodes if self._members.chosen in (None, one.name)]

    async def _keep_in_sync(self, task: BackgroundTask) -> None:
        while True:
            await self._clock.sleep(SYNC_EVERY_S)
            await self.sync(wait=False)
            task.succeeded()

    async def sync(self, *, wait: bool = True, strict: bool = False) -> None:
        """Open the managers of new nodes, and close those of nodes that are gone.

        Args:
            wait: Wait for the first refresh of each new node. Until then, requests
                about the node are refused.
            strict: Raise the error of a node that is the only one.

        Raises:
            UnknownNodeError: The chosen node does not exist.
            StoreError: The log cannot be read.
            HerdbookError: If ``strict``: the manager of the only node cannot be opened.
        """
        async with self._syncing:
            wanted = {node.name: node for node in await self.nodes()}
            if not wanted and self._members.chosen is not None:
                known = [node.name for node in await self._members.now()]
                raise UnknownNodeError(self._members.chosen, known=tuple(known))
            for name, one in list(self._managers.items()):
                if name in wanted and one.has_moved(wanted[name]):
                    self.moved.add(name)
                if name not in wanted or one.is_outdated(wanted[name]):
                    await self._stop(name)
            new = [wanted[name] for name in wanted if name not in self._managers]
            only = strict and len(wanted) == 1
            for node in new:
                one = _NodeManager(
                    node, self._open_node, clock=self._clock, wait=wait, once=only
                )
                self._managers[node.name] = one
                await one.start()
            for node in new:
                error = await self._managers[node.name].opened()
                if error is not None and only:
                    raise error

    async def _stop(self, name: str) -> None:
        await self._managers.pop(name).stop()

    async def close(self) -> None:
        """Close all managers, together: none refreshes while others close."""
        async with self._syncing:
            ended = await asyncio.gather(
                *(self._stop(name) for name in list(self._managers)),
                return_exceptions=True,
            )
        for result in ended:
            if isinstance(result, BaseException):
                raise result


class _NodeManager:
    """The manager of a node, in a task of its own that opens and closes it.

    A manager that cannot be opened is opened again with back-off, unless it is to be
    opened ``once``. If the log has another address for the node, trying again does not
    help: the task waits until the address in the log changes, which stops it.

    Attributes:
        node: The node as it was when the manager was opened.
        manager: The manager; None unless it is open.
        error: Why it could not be opened; None if it could.
    """

    def __init__(
        self,
        node: NodeStatus,
        open_node: OpenNode,
        *,
        clock: Clock,
        wait: bool = True,
        once: bool = False,
    ) -> None:
        self.node = node
        self._wait = wait
        self._once = once
        self.manager: ModelManager | None = None
        self._open_node = open_node
        self._tried = asyncio.Event()
        self.error: Exception | None = None
        self._task = BackgroundTask("node", self._manage, clock=clock, node=node.name)
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
            async with self._open_node(self.node, self._wait) as manager:
                self.manager, self.error = manager, None
                task.succeeded()
                self._tried.set()
                await asyncio.get_running_loop().create_future()  # until cancelled
        except NodeAddressError as error:
            self.error = error
            self._tried.set()
            if not self._once:
                _log.info("node_not_managed", node=self.node.name, reason=str(error))
                await asyncio.get_running_loop().create_future()  # until cancelled
        except Exception as error:
            self.error = error
            if not self._once:
                raise
        finally:
            self.manager = None
            self._tried.set()


def _of_node(task: TaskStatus, node: str) -> TaskStatus:
    """Return the status of a task with the name of its node."""
    return msgspec.structs.replace(task, name=f"{task.name}/{node}")
