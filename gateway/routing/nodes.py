"""The nodes behind a gateway, opened and closed as they come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple, Self

import msgspec

from herdbook.core import Fleet, HerdbookError, InvalidNameError, ModelManager
from herdbook.core.fleet.placement import NodeView
from herdbook.core.logging import Logger
from herdbook.core.models.registry import ModelRegistry
from herdbook.events.shared.cancellation import end
from herdbook.gateway.access.quotas import TokenCounter
from herdbook.gateway.recording.recorder import recording
from herdbook.gateway.recording.uses import UseTracker
from herdbook.gateway.rewriting.requests import Rewriter
from herdbook.gateway.routing.upstreams import Upstream
from herdbook.gateway.settings import GatewaySettings

FOLLOW_EVERY_S: Final = 1.0
"""Seconds between two checks of the nodes of the fleet."""

_log = Logger("herdbook.gateway")


class Node:
    """A node that has a manager, and what the gateway keeps open for it."""

    def __init__(
        self, manager: ModelManager, upstream: Upstream, stack: AsyncExitStack
    ) -> None:
        self.manager = manager
        self.upstream = upstream
        self._stack = stack

    async def close(self) -> None:
        """Close its connections, and record what is left of its uses."""
        await self._stack.aclose()


class ClosedNode(NamedTuple):
    """A node that requests cannot be sent to now, though the log has it.

    Attributes:
        view: What placement knows about it.
        reason: Why it has no manager, in words.
    """

    view: NodeView
    reason: str


class Nodes:
    """Follows the nodes of a fleet.

    Args:
        fleet: The nodes.
        settings: The settings of the gateway.
        token_counter: Takes the tokens of uses.
        failed: Called if recording stops by itself, which only a bug causes.

    Attributes:
        by_name: The nodes that requests can be sent to, by name.
        upstreams: The same, as the relay needs them.
        views: What placement knows about each of several nodes; empty for one node.
        closed: The other nodes of the log, such as one that is just being moved.
    """

    def __init__(
        self,
        fleet: Fleet,
        settings: GatewaySettings,
        token_counter: TokenCounter,
        failed: Callable[[], None],
    ) -> None:
        self.by_name: dict[str, Node] = {}
        self.upstreams: Sequence[Upstream] = ()
        self.views: dict[str, NodeView] = {}
        self.closed: dict[str, ClosedNode] = {}
        self._fleet = fleet
        self._settings = settings
        self._token_counter = token_counter
        self._failed = failed
        self._leaving: list[Node] = []

    @asynccontextmanager
    async def following(self) -> AsyncIterator[Self]:
        """Follow the nodes while the block runs.

        Uses that were not recorded yet are recorded when it ends.

        Raises:
            StoreError: The log cannot be read.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close_all)
            await self._follow_once()
            following = asyncio.ensure_future(self._follow())
            following.add_done_callback(
                lambda task: None if task.cancelled() else self._failed()
            )
            stack.push_async_callback(end, following)
            yield self

    @property
    def registry(self) -> ModelRegistry:
        """Known models, with their sizes."""
        return self._fleet.registry

    def has(self, node: str, model: str) -> bool:
        """Return whether a node has a model; False for a name that is not valid."""
        return has_model(self.views[node], model)

    def answers(self, upstream: Upstream) -> bool:
        """Return whether the server of a node answered the last refresh."""
        return self.views[upstream.name].node.reached

    def any_of(self, nodes: Iterable[Upstream]) -> Upstream:
        """Return the node for requests that any of some nodes can answer.

        One that may have all models is preferred, because the files of a model are sent
        before its name is known.
        """

        def order(upstream: Upstream) -> tuple[bool, bool, bool]:
            settings = self.views[upstream.name].node.settings
            restricted = bool(settings.models) or settings.max_model_bytes is not None
            return settings.drained, not self.answers(upstream), restricted

        return min(nodes, key=order)

    def _why_closed(self, name: str) -> str:
        problem = self._fleet.problem(name)
        return str(problem or "it is being opened. Try again in a few seconds")

    async def _close_all(self) -> None:
        async with AsyncExitStack() as stack:
            for node in (*self.by_name.values(), *self._leaving):
                stack.push_async_callback(node.close)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_EVERY_S)
            try:
                await self._follow_once()
            except HerdbookError as error:  # the nodes stay as they were
                _log.warning("nodes_not_read", reason=str(error))

    async def _follow_once(self) -> None:
        managers = {name: self._fleet.manager(name) for name in self._fleet.names}
        # Placement has nothing to choose for one node, and what it knows costs reads.
        several = len(managers) > 1 or self._fleet.is_several
        views = await self._fleet.views() if several else []
        self.closed = {
            view.name: ClosedNode(view, self._why_closed(view.name))
            for view in views
            if view.name not in managers
        }
        if several:
            managers = {
                one.name: managers[one.name] for one in views if one.name in managers
            }
        nodes = dict(self.by_name)
        left = [
            nodes.pop(name)
            for name, node in self.by_name.items()
            if managers.get(name) is not node.manager
        ]
        opened: dict[str, Node] = {}
        try:
            for name, manager in managers.items():
                if name not in nodes and not self._is_this_gateway(name, manager):
                    opened[name] = await self._opened(name, manager)
        except BaseException:
            self._leaving += opened.values()
            raise
        self._leaving += left
        self.by_name = dict(sorted((nodes | opened).items()))
        self.upstreams = tuple(node.upstream for node in self.by_name.values())
        for upstream in self.upstreams:
            upstream.forget_answers()
        # Counted here as requests come and go, so that each sees those before it.
        self.views = {
            view.name: msgspec.structs.replace(
                view,
                requests=self.by_name[view.name].upstream.requests,
                answered=self.by_name[view.name].upstream.answered,
            )
            for view in views
            if view.name in self.by_name
        }
        await self._close_left()

    async def _close_left(self) -> None:
        """Close the nodes that are gone, once their requests have ended."""
        for node in list(self._leaving):
            if not node.upstream.requests:
                self._leaving.remove(node)
                await node.close()

    async def _opened(self, name: str, manager: ModelManager) -> Node:
        running: set[UseTracker] = set()
        async with AsyncExitStack() as stack:
            recorder = await stack.enter_async_context(
                recording(
                    manager.uses,
                    running=running,
                    token_counter=self._token_counter,
                    failed=self._failed,
                )
            )
            upstream = Upstream(
                name,
                manager.url,
                self._settings,
                recorder,
                None if self._settings.plain else Rewriter(manager.uses),
                running=running,
                authorization=manager.authorization.encode(),
            )
            stack.push_async_callback(upstream.pool.close)
            return Node(manager, upstream, stack.pop_all())

    def _is_this_gateway(self, name: str, manager: ModelManager) -> bool:
        """Return whether a node is the gateway itself, which would relay to itself."""
        if not self._settings.is_at(manager.url):
            return False
        _log.warning("node_is_this_gateway", node=name, url=manager.url)
        return True


def has_model(view: NodeView, model: str) -> bool:
    """Return whether a node has a model; False for a name that is not valid."""
    try:
        return view.models.status(model).present
    except InvalidNameError:
        return False
