"""Which node of a fleet answers a request.

A request about a model goes where the model is in memory, to the node that answered the
conversation before, else to the least busy one. Placement (``core/fleet/placement.py``)
has the order; this module knows what is in progress, and which nodes fail.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Self

import msgspec

from herdbook.core import (
    Fleet,
    HerdbookError,
    InvalidNameError,
    ModelManager,
    UnknownRoleError,
)
from herdbook.core.fleet import placement
from herdbook.core.fleet.placement import NodeView, Place, Readiness
from herdbook.core.logging import Logger
from herdbook.gateway.answers import Refusal
from herdbook.gateway.bodies import Fields, fields_of, items_of
from herdbook.gateway.endpoints import (
    MODEL_CARDS,
    NAMING,
    SAFE_METHODS,
    Effect,
)
from herdbook.gateway.heads import Headers, value_of
from herdbook.gateway.recording import recording
from herdbook.gateway.rewriting import (
    ROLE,
    Choice,
    Rewriter,
    asked_model,
    no_model_allowed,
    no_model_fits,
)
from herdbook.gateway.settings import GatewaySettings
from herdbook.gateway.spending import Spending
from herdbook.gateway.upstreams import (
    NODE_HEADER,
    Route,
    Upstream,
    Wanted,
    recommended,
)
from herdbook.gateway.uses import Watched

LOOK_EVERY_S: Final = 1.0
"""Seconds between two looks at the nodes of the fleet."""

CONVERSATIONS: Final = 10_000
"""Conversations whose node is remembered; the oldest are forgotten first."""

_OPENING: Final = 2_000
"""Bytes of each message that identify a conversation."""

_MOST_MESSAGES: Final = 8
"""Messages that identify a conversation at most."""

_OPENINGS: Final = ("messages", "system", "instructions", "prompt", "input")
"""Fields that a request of a conversation repeats at its beginning."""


_log = Logger("herdbook.gateway")


class FleetRouter:
    """Chooses the node of each request, and follows the nodes as they come and go.

    Args:
        fleet: The nodes.
        settings: The settings of the gateway.
        spending: Takes the tokens of uses.
        failed: Called if recording stops by itself, which only a bug causes.
    """

    def __init__(
        self,
        fleet: Fleet,
        settings: GatewaySettings,
        spending: Spending,
        failed: Callable[[], None],
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._spending = spending
        self._failed = failed
        self._nodes: dict[str, _Node] = {}
        self._leaving: list[_Node] = []
        self._views: dict[str, NodeView] = {}
        self._conversations: OrderedDict[bytes, str] = OrderedDict()

    @property
    def upstreams(self) -> Sequence[Upstream]:
        """The nodes, by name."""
        return [node.upstream for node in self._nodes.values()]

    @asynccontextmanager
    async def following(self) -> AsyncIterator[Self]:
        """Follow the nodes of the fleet while the block runs.

        Uses that were not recorded yet are recorded when it ends.
        """
        await self._follow_once()
        following = asyncio.ensure_future(self._follow())
        following.add_done_callback(
            lambda task: None if task.cancelled() else self._failed()
        )
        try:
            yield self
        finally:
            following.cancel()
            await asyncio.wait([following])
            for node in (*self._nodes.values(), *self._leaving):
                await node.stack.aclose()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._follow_once()
            except HerdbookError as error:  # the nodes stay as they were
                _log.warning("nodes_not_read", reason=str(error))

    async def _follow_once(self) -> None:
        views = {view.name: view for view in await self._fleet.views()}
        managers = {
            name: self._fleet.manager(name)
            for name in self._fleet.names
            if name in views
        }
        for name, node in list(self._nodes.items()):
            if managers.get(name) is not node.manager:
                self._leaving.append(self._nodes.pop(name))
        await self._close_left()
        for name, manager in managers.items():
            if name not in self._nodes:
                self._nodes[name] = await self._opened(name, manager)
        self._nodes = dict(sorted(self._nodes.items()))
        # Counted here as requests come and go, so that each sees those before it.
        self._views = {
            name: msgspec.structs.replace(
                views[name], requests=self._nodes[name].upstream.requests
            )
            for name in self._nodes
        }

    async def _close_left(self) -> None:
        """Close the nodes that are gone, once their requests have ended."""
        for node in list(self._leaving):
            if not node.upstream.requests:
                self._leaving.remove(node)
                await node.stack.aclose()

    async def _opened(self, name: str, manager: ModelManager) -> _Node:
        running: set[Watched] = set()
        stack = AsyncExitStack()
        recorder = await stack.enter_async_context(
            recording(
                manager.uses,
                running=running,
                spending=self._spending,
                failed=self._failed,
            )
        )
        upstream = Upstream(
            name,
            msgspec.structs.replace(self._settings, server=manager.url),
            recorder,
            None if self._settings.plain else Rewriter(manager.uses.latest),
            running=running,
            authorization=manager.authorization.encode(),
        )
        stack.push_async_callback(upstream.pool.close)
        return _Node(manager, upstream, stack)

    def route(self, wanted: Wanted) -> Route:
        """Return where a request is sent.

        Raises:
            Refusal: No node can answer it.
        """
        nodes = self._able(wanted)
        # Read once: the name and the conversation are both in it.
        wanted = wanted._replace(fields=_fields_of(wanted))
        asked = _named(wanted)
        if len(self._nodes) == 1:
            return Route(nodes[0], asked)
        if wanted.endpoint.effect is Effect.CHANGE:
            upstream = self._to_change(asked, wanted, nodes)
            return self._route(upstream, asked)
        if not asked:
            return self._route(self._any(nodes), "")
        if asked.startswith(ROLE) and not self._settings.plain:
            return self._by_role(asked.removeprefix(ROLE), wanted, nodes)
        if "," in asked and not self._settings.plain:
            return self._by_list(asked, wanted, nodes)
        places = self._places(asked, nodes)
        if not places:
            self._refuse_if_only_elsewhere(asked, wanted)
            return self._route(self._any(nodes), asked)
        place = self._chosen(places, wanted)
        return self._route(self._nodes[place.node].upstream, place.model)

    def recommend(self, role: str) -> str | None:
        """Return the model that answers for a role; None if there is none."""
        if len(self._nodes) == 1:
            return recommended(self.upstreams[0], role)
        places = placement.places_for(role, list(self._views.values()))
        return places[0].model if places else None

    async def lists(self, path: str) -> list[tuple[str, bytes]]:
        """Return the body of the list at a path of each node that answers, by name."""
        nodes = [
            (n, each) for n, each in self._nodes.items() if each.upstream.breaker.closed
        ]
        asked = [self._list_of(node, path) for _, node in nodes]
        bodies = await asyncio.gather(*asked)
        return [
            (name, body)
            for (name, _), body in zip(nodes, bodies, strict=True)
            if body is not None
        ]

    async def _list_of(self, node: _Node, path: str) -> bytes | None:
        try:
            async with asyncio.timeout(self._settings.connect_within_s):
                return await node.manager.get(path)
        except (HerdbookError, TimeoutError) as error:
            _log.warning(
                "list_not_read", node=node.upstream.name, path=path, reason=str(error)
            )
            return None

    def _able(self, wanted: Wanted) -> list[Upstream]:
        """Return the nodes that may get a request now, by name.

        Raises:
            Refusal: There is none, or the demanded one does not exist.
        """
        demanded = value_of(wanted.request.headers, NODE_HEADER.lower())
        if demanded is not None:
            name = demanded.decode("latin-1").strip()
            node = self._nodes.get(name)
            if node is None:
                names = ", ".join(self._nodes)
                raise Refusal(404, f"There is no node '{name[:80]}'. Nodes: {names}.")
            left = [] if name in wanted.tried else [node.upstream]
        else:
            left = [each for each in self.upstreams if each.name not in wanted.tried]
        resting = [each for each in left if not each.breaker.allows]
        able = [each for each in left if each.breaker.allows] or resting
        if not able:
            raise Refusal(502, "No node answers.")
        return able

    def _places(self, asked: str, nodes: Iterable[Upstream]) -> list[Place]:
        """Return where a model can be used, the best first."""
        able = {each.name for each in nodes}
        try:
            places = placement.places_of(asked, self._views.values())
        except InvalidNameError:  # the server reports that
            return []
        return [place for place in places if place.node in able]

    def _by_role(self, role: str, wanted: Wanted, nodes: list[Upstream]) -> Route:
        able, limits = {each.name for each in nodes}, wanted.caller.limits
        try:
            places = placement.places_for(role, list(self._views.values()))
        except UnknownRoleError as error:
            raise Refusal(404, str(error)) from error
        fit = [place for place in places if place.node in able]
        allowed = [place for place in fit if limits.allow(place.model)]
        if fit and not allowed:
            raise no_model_allowed(role)
        if not allowed:
            raise no_model_fits(role)
        place = self._chosen(allowed, wanted)
        reason = f"role {role}: {'; '.join(place.reasons)}"
        choice = Choice(place.model, role, reason)
        return self._route(self._nodes[place.node].upstream, place.model, choice)

    def _by_list(self, asked: str, wanted: Wanted, nodes: list[Upstream]) -> Route:
        for name in asked.split(","):
            places = self._places(name.strip(), nodes)
            if places:
                place = self._chosen(places, wanted)
                choice = Choice(place.model, "", f"first of {asked}")
                upstream = self._nodes[place.node].upstream
                return self._route(upstream, place.model, choice)
        raise Refusal(404, f"No node has one of the models '{asked[:200]}'.")

    def _to_change(self, asked: str, wanted: Wanted, nodes: list[Upstream]) -> Upstream:
        """Return the node whose models a request changes.

        Raises:
            Refusal: No node may get the model, or several have it.
        """
        demanded = value_of(wanted.request.headers, NODE_HEADER.lower()) is not None
        if demanded or not asked:
            return self._any(nodes)
        having = [each for each in nodes if self._has(each.name, asked)]
        if wanted.endpoint.path == "/api/delete" and len(having) > 1:
            names = ", ".join(each.name for each in having)
            header = NODE_HEADER.decode()
            raise Refusal(
                409, f"'{asked[:200]}' is on {names}. Name the node: {header}: NODE."
            )
        if having:
            return having[0]
        if wanted.endpoint.path != "/api/pull":
            return self._any(nodes)
        able = {each.name for each in nodes}
        views = [view for name, view in self._views.items() if name in able]
        places = placement.place_for_new(asked, None, views)
        if not places:
            reasons = "; ".join(placement.refusals(asked, None, views))
            raise Refusal(409, f"'{asked[:200]}' has no place: {reasons}.")
        return self._nodes[places[0].node].upstream

    def _has(self, node: str, asked: str) -> bool:
        try:
            return self._views[node].models.status(asked).present
        except InvalidNameError:
            return False

    def _refuse_if_only_elsewhere(self, asked: str, wanted: Wanted) -> None:
        """Refuse a use of a model that is only on nodes which must not run it.

        Raises:
            Refusal: That is so.
        """
        if wanted.endpoint.effect is not Effect.USE:
            return
        having = [name for name in self._views if self._has(name, asked)]
        if having:
            names = ", ".join(having)
            raise Refusal(
                503, f"'{asked[:200]}' is only on {names}, which cannot run it now."
            )

    def _any(self, nodes: list[Upstream]) -> Upstream:
        """Return the node for requests that any node can answer."""
        undrained = [
            each for each in nodes if not self._views[each.name].node.settings.drained
        ]
        return (undrained or nodes)[0]

    def _chosen(self, places: list[Place], wanted: Wanted) -> Place:
        """Return the node that answered the conversation before, else the first one.

        It only stays there while the model is in memory there.
        """
        key = _conversation(places[0].model, wanted)
        if key is None:
            return places[0]
        before = self._conversations.get(key)
        loaded = (Readiness.IDLE, Readiness.BUSY)
        place = next(
            (one for one in places if one.node == before and one.readiness in loaded),
            places[0],
        )
        self._conversations[key] = place.node
        self._conversations.move_to_end(key)
        if len(self._conversations) > CONVERSATIONS:
            self._conversations.popitem(last=False)
        return place

    def _route(
        self, upstream: Upstream, model: str, choice: Choice | None = None
    ) -> Route:
        headers: Headers = [(NODE_HEADER, upstream.name.encode())]
        return Route(upstream, model, choice, headers)


class _Node:
    """A node that has a manager, and what the gateway keeps open for it."""

    def __init__(
        self, manager: ModelManager, upstream: Upstream, stack: AsyncExitStack
    ) -> None:
        self.manager = manager
        self.upstream = upstream
        self.stack = stack


def _fields_of(wanted: Wanted) -> Fields:
    """Return the fields of a request's body; empty if it is no object."""
    try:
        return {} if wanted.body is None else fields_of(wanted.body)
    except msgspec.DecodeError:  # the server reports what is wrong
        return {}


def _named(wanted: Wanted) -> str:
    """Return the model that a request names; empty if it names none."""
    path, fields = wanted.endpoint.path, wanted.fields
    if path.startswith(MODEL_CARDS) and wanted.request.method in SAFE_METHODS:
        return path.removeprefix(MODEL_CARDS)
    named = wanted.endpoint.effect is not Effect.NONE or path in NAMING
    if not named:
        return ""
    if path == "/api/copy":
        return _text(fields, "source")
    if path == "/api/create":
        return _text(fields, "from")
    return asked_model(wanted.endpoint, fields) or _text(fields, "name")


def _text(fields: Fields, field: str) -> str:
    """Return a text of a JSON object; empty if there is none."""
    try:
        return msgspec.json.decode(fields.get(field, b'""'), type=str)
    except msgspec.MsgspecError:
        return ""


def _conversation(model: str, wanted: Wanted) -> bytes | None:
    """Return what identifies a conversation: how it begins, its model and client.

    None for a request that is none. All requests of a conversation begin alike, and so
    share the prompt that the server has cached.
    """
    if wanted.endpoint.effect is not Effect.USE:
        return None
    fields = wanted.fields
    try:
        pieces = [
            piece
            for name in _OPENINGS
            if name in fields
            for piece in _beginning(fields[name])
        ]
    except msgspec.MsgspecError:
        return None
    if not pieces:
        return None
    digest = hashlib.blake2b(digest_size=16)
    for piece in (model.encode(), wanted.caller.name.encode(), *pieces):
        digest.update(len(piece).to_bytes(4))
        digest.update(piece)
    return digest.digest()


def _beginning(value: msgspec.Raw) -> list[bytes]:
    """Return the messages up to the first one of the user, or the start of a text."""
    raw = bytes(value).lstrip()
    if not raw.startswith(b"["):
        return [raw[:_OPENING]]
    found = []
    for message in items_of(raw):
        found.append(bytes(message)[:_OPENING])
        if _role_of(message) == "user" or len(found) == _MOST_MESSAGES:
            break
    return found


def _role_of(message: msgspec.Raw) -> str:
    """Return who wrote a message; "user" for a plain text."""
    if not bytes(message).lstrip().startswith(b"{"):
        return "user"
    return msgspec.json.decode(fields_of(message).get("role", b'""'), type=str)
