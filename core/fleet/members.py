"""Which nodes of a log Herdbook manages, and the events that change that."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from herdbook.core.clock import Clock
from herdbook.core.errors import (
    BusyError,
    CallerError,
    NodeAddressError,
    UnknownNodeError,
)
from herdbook.core.errors.validation import violation
from herdbook.core.fleet.placement import MEMORY_TAGS
from herdbook.core.models.sizes import parse_size
from herdbook.core.ollama.address import authorization, base_url, same_server
from herdbook.core.repository import (
    ATTEMPTS,
    LiveViews,
    ModelRepository,
    changes_too_often,
)
from herdbook.events.errors import WrongExpectedVersionError
from herdbook.events.facts import (
    Fact,
    NodeAdded,
    NodeConfigured,
    NodeMoved,
    NodeRemoved,
    NodeSettings,
)
from herdbook.events.recorded import Cause
from herdbook.events.streams import check_node, node_stream
from herdbook.projections.nodes import default_node, managed_nodes
from herdbook.projections.status import NodeStatus

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_TEXT: Final = 200
_MOST_TEXTS: Final = 100


def node_url(node: str, given: str) -> str:
    """Return the URL of a node to record.

    Raises:
        InvalidAddressError: It is not an address to connect to.
        CallerError: It contains a password, which must not be recorded.
    """
    if authorization(given) is not None:
        raise CallerError(
            f"the address of node {node!r}",
            "contains a user or a password, which would be recorded",
            "Leave it out, and name an environment variable that contains the API key: "
            "key_env in the API, --key-env on the command line",
        )
    return base_url(given)


def check_settings(node: str, settings: NodeSettings) -> NodeSettings:
    """Check the settings of a node, and return them unchanged.

    Raises:
        CallerError: One of them is not valid.
    """
    if settings.key_env and not _VARIABLE.fullmatch(settings.key_env):
        raise _invalid(node, "key_env", "must be the name of an environment variable")
    try:
        msgspec.convert(msgspec.to_builtins(settings), NodeSettings)
    except msgspec.ValidationError as error:
        raise _invalid(
            node, "", f"are not valid: {violation(str(error)).text('a value')}"
        ) from error
    texts = {
        "tags": [text for pair in settings.tags.items() for text in pair],
        "models": settings.models,
        "prefer": settings.prefer,
    }
    for name, each in texts.items():
        if len(each) > _MOST_TEXTS:
            raise _invalid(node, name, f"has more than {_MOST_TEXTS} entries")
        for text in each:
            if not text or len(text) > _LONGEST_TEXT or not text.isprintable():
                raise _invalid(
                    node,
                    name,
                    f"has {text[:80]!r}, which is empty, too long or not printable",
                )
    for tag in MEMORY_TAGS:
        if tag in settings.tags and parse_size(settings.tags[tag]) is None:
            problem = f"is {settings.tags[tag]!r}, not a size such as '24GB'"
            raise _invalid(node, f"tags.{tag}", problem)
    return settings


def _invalid(node: str, setting: str, problem: str) -> CallerError:
    subject = f"setting {setting!r}" if setting else "the settings"
    return CallerError(f"{subject} of node {node!r}", problem)


class Members:
    """Records which nodes of a log are managed.

    Args:
        live: The log and its views.
        clock: The clock.
        actor: Recorded as who requested a change, outside of ``acting_as``.
        chosen: The only node to manage; None for all.

    Attributes:
        chosen: The same name.
    """

    def __init__(
        self, live: LiveViews, *, clock: Clock, actor: str, chosen: str | None = None
    ) -> None:
        self._live = live
        self._clock = clock
        self._actor = actor
        self.chosen = chosen

    async def now(self) -> list[NodeStatus]:
        """Return the managed nodes, by name, at the end of the log.

        Raises:
            StoreError: The log cannot be read.
        """
        await self._live.catch_up()
        return self._members()

    async def check_known(self, name: str, given: str | None) -> None:
        """Check that a node is in the log, or is a new one with a server of its own.

        Args:
            name: The node.
            given: The address that was given for it; None for none.

        Raises:
            UnknownNodeError: The log has other nodes, and no address is given, or one
                that another node has.
        """
        await self._live.catch_up()
        nodes = self._live.views.status.nodes()
        if any(one.name == name for one in nodes):
            return
        others = [one for one in nodes if one.url and one.removed_at is None]
        own = bool(given) and not any(
            same_server(one.url, base_url(given)) for one in others
        )
        if others and not own:
            raise UnknownNodeError(name, known=tuple(one.name for one in others))

    async def meant(self, given: str | None) -> str | None:
        """Return the node that an address is for, if none is named.

        Args:
            given: The address that was given on opening; None for none.

        Returns:
            The only node, or ``local``; None if there are several others.

        Raises:
            CallerError: There are several others, and none has the address.
            StoreError: The log cannot be read.
        """
        if self.chosen is not None:
            return self.chosen
        nodes = await self.now()
        name = default_node(nodes)
        if name is None and given:
            url = base_url(given)
            if not any(same_server(one.url, url) for one in nodes):
                names = ", ".join(one.name for one in nodes)
                raise CallerError(
                    url,
                    "is not the address of a node in this log",
                    f"Nodes: {names}. Add it as another node, or choose one of them: "
                    "--node NAME",
                )
        return name

    def has(self, name: str) -> bool:
        """Return whether a node is to be managed, as far as the views have read."""
        return name in self.names() and self.chosen in (None, name)

    def names(self) -> list[str]:
        """Return the names of all nodes, sorted, as far as the views have read."""
        return [one.name for one in self._members()]

    def status(self, name: str) -> NodeStatus:
        """Return the status of a node, managed or not, as the views have it."""
        known = self._live.views.status.node(node_stream(name))
        return known or NodeStatus(name=name)

    async def add(
        self, name: str, url: str, settings: NodeSettings, *, planned: bool = False
    ) -> None:
        """Record that a node is managed from now on.

        Args:
            name: Its name.
            url: Address of its server.
            settings: How Herdbook uses it.
            planned: The change is one of several that lead to different addresses.

        Raises:
            CallerError: The name, the address or a setting is not valid, the node
                is managed already, or another node has the address.
            NodeAddressError: The log has another address for a node with this name.
        """
        check_node(name)
        address, settings = node_url(name, url), check_settings(name, settings)

        def decide(node: NodeStatus) -> list[Fact]:
            if node.managed:
                raise CallerError(
                    f"node {name!r}",
                    f"already exists, at {node.url}",
                    "Change its settings instead",
                )
            known = node.url and node.removed_at is None
            if known and not same_server(node.url, address):
                raise NodeAddressError(name, known=node.url, given=address)
            if not planned:
                self._check_address(name, address)
            changed = settings != node.settings
            configured = [NodeConfigured(settings=settings)] if changed else []
            return [NodeAdded(url=address), *configured]

        await self._record(name, decide)

    async def configure(self, name: str, settings: NodeSettings) -> None:
        """Record the settings of a node, if they change.

        Raises:
            UnknownNodeError: There is no such node.
            CallerError: A setting is not valid.
        """
        check_settings(name, settings)

        def decide(node: NodeStatus) -> list[Fact]:
            self._check_member(node)
            changed = settings != node.settings
            return [NodeConfigured(settings=settings)] if changed else []

        await self._record(name, decide)

    async def move(self, name: str, url: str, *, planned: bool = False) -> None:
        """Record another address of a node, if it changes.

        Args:
            name: The node.
            url: The new address.
            planned: As for ``add``.

        Raises:
            UnknownNodeError: There is no such node.
            CallerError: The address is not valid, or another node has it.
        """
        address = node_url(name, url)

        def decide(node: NodeStatus) -> list[Fact]:
            self._check_member(node)
            if not node.url or same_server(node.url, address):
                return []
            if not planned:
                self._check_address(name, address)
            return [NodeMoved(from_url=node.url, to_url=address)]

        await self._record(name, decide)

    async def remove(self, name: str) -> None:
        """Record that a node is no longer managed. Its models stay on its server.

        Raises:
            UnknownNodeError: There is no such node.
            BusyError: An operation on one of its models is running.
            CallerError: It is the only node.
        """

        def decide(node: NodeStatus) -> list[Fact]:
            self._check_member(node)
            if not node.managed and len(self._members()) == 1:
                raise CallerError(
                    f"node {name!r}", "is the only node", "Add another one first"
                )
            for status in self._live.views.status.records(name):
                if status.work is not None or status.update is not None:
                    raise BusyError(
                        f"node {name!r}",
                        f"has a running operation on {status.name}",
                        "Wait until it ends, or cancel it",
                    )
            return [NodeRemoved()]

        await self._record(name, decide)

    def _members(self) -> list[NodeStatus]:
        return managed_nodes(self._live.views.status.nodes(), self.chosen)

    def _check_address(self, name: str, address: str) -> None:
        """Check that no other node has an address.

        Two nodes with one server would record what the other does as the work of
        another program.

        Raises:
            CallerError: Another node has it.
        """
        for one in self._members():
            if one.name != name and one.url and same_server(one.url, address):
                raise CallerError(
                    address,
                    f"is the address of node {one.name!r}",
                    "Use that node. To give it another name, remove it first",
                )

    def _check_member(self, node: NodeStatus) -> None:
        """Check that a node is managed.

        Raises:
            UnknownNodeError: It is not.
        """
        known = tuple(each.name for each in self._members())
        if node.name not in known:
            raise UnknownNodeError(node.name, known=known)

    async def _record(
        self, name: str, decide: Callable[[NodeStatus], Sequence[Fact]]
    ) -> None:
        """Record what a function decides from the current status of a node."""
        repository = ModelRepository(
            self._live, node=name, clock=self._clock, actor=self._actor
        )
        for _ in range(ATTEMPTS):
            await repository.catch_up()
            facts = decide(self.status(name))
            try:
                if facts:
                    await repository.record_node(*facts, cause=Cause.COMMAND)
            except WrongExpectedVersionError:
                continue  # it changed meanwhile: decide again
            return
        raise changes_too_often(f"node {name!r}", ATTEMPTS)
