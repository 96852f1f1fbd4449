"""Which node of a fleet answers a request.

A request about a model goes where the model is in memory, to the node that answered the
conversation before, else to the least busy one. Placement (``core/fleet/placement.py``)
has the order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from herdbook.core import HerdbookError, InvalidNameError, UnknownRoleError
from herdbook.core.fleet import placement
from herdbook.core.fleet.placement import NodeView, Place, Readiness
from herdbook.core.logging import Logger
from herdbook.gateway.protocol.answers import Refusal
from herdbook.gateway.protocol.endpoints import (
    FORMS,
    MODEL_CARDS,
    NAMING,
    SAFE_METHODS,
    Effect,
)
from herdbook.gateway.protocol.headers import Headers
from herdbook.gateway.protocol.json_bodies import text_field
from herdbook.gateway.recording.multipart import FormScan
from herdbook.gateway.rewriting.requests import (
    ROLE,
    Choice,
    asked_model,
    no_listed_model_allowed,
    no_model_allowed,
    no_model_fits,
)
from herdbook.gateway.routing.conversations import Conversations, conversation_of
from herdbook.gateway.routing.model_changes import ModelChanges
from herdbook.gateway.routing.nodes import Node, Nodes, has_model
from herdbook.gateway.routing.upstreams import (
    NODE_HEADER,
    IncomingRequest,
    Route,
    Upstream,
)
from herdbook.gateway.settings import GatewaySettings

_NODE: Final = NODE_HEADER.lower()

_log = Logger("herdbook.gateway")

HUNG_AFTER_S: Final = 30.0
"""Seconds after which requests no longer wait for a node that is lost. One that is only
overloaded may miss a refresh, and sending its requests elsewhere would not help."""

LOST_NODE_WITHIN_S: Final = 0.5
"""Seconds that a list of all models waits for a node that is lost. One that hangs would
delay each list by the time for a connection; one that is back answers at once."""


class FleetRouter:
    """Chooses the node of each request.

    Args:
        nodes: The nodes, as they come and go.
        settings: The settings of the gateway.
    """

    def __init__(self, nodes: Nodes, settings: GatewaySettings) -> None:
        self._known = nodes
        self._settings = settings
        self._conversations = Conversations()
        self._changes = ModelChanges(nodes)

    @property
    def upstreams(self) -> Sequence[Upstream]:
        """The nodes, by name."""
        return self._known.upstreams

    @property
    def _nodes(self) -> Mapping[str, Node]:
        return self._known.by_name

    @property
    def _views(self) -> Mapping[str, NodeView]:
        return self._known.views

    def route(self, incoming: IncomingRequest) -> Route:
        """Return where a request is sent.

        Raises:
            Refusal: No node can answer it.
        """
        if self._known.closed:
            self._refuse_if_closed(incoming)
        nodes = self._eligible(incoming)
        if len(self._nodes) == 1:
            return Route(nodes[0])
        asked = _named(incoming)
        if incoming.endpoint.effect is Effect.CHANGE:
            demanded = _demanded(incoming) is not None
            upstream = self._changes.node_for(incoming, asked, nodes, demanded=demanded)
            return self._route(upstream, asked)
        if not asked:
            return self._route(self._known.any_of(nodes), "")
        if asked.startswith(ROLE) and not self._settings.plain:
            return self._by_role(asked.removeprefix(ROLE), incoming, nodes)
        if "," in asked and not self._settings.plain:
            return self._by_list(asked, incoming, nodes)
        places = self._places(asked, nodes)
        if not places:
            self._refuse_if_not_allowed(asked, incoming)
            return self._route(
                self._changes.maker_of(asked, nodes) or self._known.any_of(nodes), asked
            )
        place = self._chosen(places, incoming)
        return self._route_to(place)

    def recommend(self, role: str) -> str | None:
        """Return the model that answers for a role; None if there is none."""
        if len(self._nodes) == 1:
            return _recommended(self.upstreams[0], role)
        places = placement.places_for(role, list(self._views.values()))
        return places[0].model if places else None

    def is_hung(self, upstream: Upstream) -> bool:
        """Return whether a node has been lost for long, and there are others."""
        view = self._views.get(upstream.name)
        if view is None or view.node.reached or view.node.since is None:
            return False
        return (datetime.now(UTC) - view.node.since).total_seconds() >= HUNG_AFTER_S

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

    async def _list_of(self, node: Node, path: str) -> bytes | None:
        within_s = self._settings.connect_within_s
        if not self._known.answers(node.upstream):
            within_s = min(within_s, LOST_NODE_WITHIN_S)
        try:
            async with asyncio.timeout(within_s):
                return await node.manager.get(path)
        except (HerdbookError, TimeoutError) as error:
            _log.warning(
                "model_list_not_read",
                node=node.upstream.name,
                path=path,
                reason=str(error) or f"no answer within {within_s:g} s",
            )
            return None

    def _eligible(self, incoming: IncomingRequest) -> list[Upstream]:
        """Return the nodes that may get a request now, by name.

        Raises:
            Refusal: There is none, or the demanded one does not exist.
        """
        name = _demanded(incoming)
        if name is not None:
            node = self._nodes.get(name)
            if node is None:
                names = ", ".join(self._nodes)
                raise Refusal(404, f"There is no node '{name[:80]}'. Nodes: {names}.")
            left = [] if name in incoming.tried else [node.upstream]
        else:
            left = [each for each in self.upstreams if each.name not in incoming.tried]
        able = [each for each in left if each.breaker.allows] or left
        if not able:
            raise Refusal(502, "No node answers.")
        return able

    def _refuse_if_closed(self, incoming: IncomingRequest) -> None:
        """Refuse a request for a node that is not open now, such as while it moves.

        Raises:
            Refusal: The request demands such a node, or only such nodes have its model.
        """
        closed, demanded = self._known.closed, _demanded(incoming)
        if demanded is not None:
            if demanded in closed:
                reason = closed[demanded].reason
                raise Refusal(503, f"Node '{demanded}' cannot be used now: {reason}.")
            return
        if incoming.endpoint.effect is not Effect.USE:
            return
        asked = _named(incoming)
        if any(self._known.has(name, asked) for name in self._views):
            return
        for name, one in closed.items():
            if has_model(one.view, asked):
                raise Refusal(
                    503,
                    f"'{asked[:200]}' is on {name}, which cannot be used now: "
                    f"{one.reason}.",
                )

    def _places(self, asked: str, nodes: Iterable[Upstream]) -> list[Place]:
        """Return where a model can be used, the best first."""
        able = {each.name for each in nodes}
        try:
            places = placement.places_of(asked, self._views.values())
        except InvalidNameError:  # the server reports that
            return []
        return [place for place in places if place.node in able]

    def _by_role(
        self, role: str, incoming: IncomingRequest, nodes: list[Upstream]
    ) -> Route:
        able, limits = {each.name for each in nodes}, incoming.caller.limits
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
        place = self._chosen(allowed, incoming)
        reason = f"role {role}: {'; '.join(place.reasons)}"
        choice = Choice(place.model, role, reason)
        return self._route_to(place, choice)

    def _by_list(
        self, asked: str, incoming: IncomingRequest, nodes: list[Upstream]
    ) -> Route:
        any_present = False
        for name in asked.split(","):
            places = self._places(name.strip(), nodes)
            if places and incoming.caller.limits.allow(places[0].model):
                place = self._chosen(places, incoming)
                choice = Choice(place.model, "", f"first of {asked}")
                return self._route_to(place, choice)
            any_present = any_present or bool(places)
        if any_present:
            raise no_listed_model_allowed(asked)
        raise Refusal(404, f"No node has any of the models '{asked[:200]}'.")

    def _refuse_if_not_allowed(self, asked: str, incoming: IncomingRequest) -> None:
        """Refuse a use of a model that is only on nodes which must not run it.

        Raises:
            Refusal: That is so.
        """
        if incoming.endpoint.effect is not Effect.USE:
            return
        demanded = _demanded(incoming)
        having = [
            view
            for name, view in self._views.items()
            if demanded in (None, name) and self._known.has(name, asked)
        ]
        if having:
            names = ", ".join(view.name for view in having)
            reasons = placement.refusals_of(asked, having)
            raise Refusal(
                503,
                f"'{asked[:200]}' is on {names}, which cannot run it now: "
                f"{'; '.join(reasons) or 'requests to it failed'}.",
            )

    def _chosen(self, places: list[Place], incoming: IncomingRequest) -> Place:
        """Return the node that answered the conversation before, else the first one.

        It only stays there while the model is in memory there, and the node answers.
        """
        key = conversation_of(places[0].model, incoming)
        if key is None:
            return places[0]
        before = self._conversations.node_of(key)
        loaded = (Readiness.IDLE, Readiness.BUSY)
        place = next(
            (
                one
                for one in places
                if one.node == before and one.readiness in loaded and not one.away
            ),
            places[0],
        )
        self._conversations.remember(key, place.node)
        return place

    def _route_to(self, place: Place, choice: Choice | None = None) -> Route:
        route = self._route(self._nodes[place.node].upstream, place.model)
        return route._replace(choice=choice, has_model=True)

    def _route(self, upstream: Upstream, model: str) -> Route:
        headers: Headers = [(NODE_HEADER, upstream.name.encode())]
        return Route(upstream, model, headers=headers)


def _demanded(incoming: IncomingRequest) -> str | None:
    """Return the name of the node that a request demands; None if it demands none."""
    demanded = incoming.request.values.get(_NODE)
    return None if demanded is None else demanded.decode("latin-1").strip()


def _named(incoming: IncomingRequest) -> str:
    """Return the model that a request names; empty if it names none."""
    path, fields = incoming.endpoint.path, incoming.fields
    if path.startswith(MODEL_CARDS) and incoming.request.method in SAFE_METHODS:
        return path.removeprefix(MODEL_CARDS)
    named = incoming.endpoint.effect is not Effect.NONE or path in NAMING
    if not named:
        return ""
    if path in FORMS:
        form = FormScan(("model",))
        form.feed(incoming.body or b"")
        return form.found.get("model", "")
    if path == "/api/copy":
        return text_field(fields, "source")
    if path == "/api/create":
        return text_field(fields, "from")
    return asked_model(incoming.endpoint, fields) or text_field(fields, "name")


def _recommended(upstream: Upstream, role: str) -> str | None:
    """Return the model of a node that answers for a role; None if there is none."""
    if upstream.rewriter is None:
        return None
    chosen = upstream.rewriter.latest().recommend(role)
    return None if chosen is None else chosen.name
