"""Which node of a fleet pulls, copies, creates or deletes a model for a client."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from herdbook.core import InvalidNameError
from herdbook.core.fleet import placement
from herdbook.core.models.names import canonical_name
from herdbook.gateway.protocol.answers import Refusal
from herdbook.gateway.protocol.json_bodies import text_field
from herdbook.gateway.rewriting.requests import asked_model
from herdbook.gateway.routing.nodes import Nodes
from herdbook.gateway.routing.upstreams import NODE_HEADER, IncomingRequest, Upstream

_MOST_MADE: Final = 1_000
"""Models that clients made whose node is remembered; the oldest are forgotten first."""


class ModelChanges:
    """Chooses the node whose models a request changes.

    Args:
        nodes: The nodes, as they come and go.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._made = OrderedDict[str, str]()

    def node_for(
        self,
        incoming: IncomingRequest,
        asked: str,
        nodes: list[Upstream],
        *,
        demanded: bool,
    ) -> Upstream:
        """Return the node of a request, and remember what the client makes there.

        Args:
            incoming: The request.
            asked: The model that it names, or that a new one is made from.
            nodes: The nodes that may get it.
            demanded: Whether the client chose the node.

        Raises:
            Refusal: No node may get the model, or several have it.
        """
        if demanded:
            upstream = self._nodes.any_of(nodes)
        else:
            upstream = self._choose(incoming, asked, nodes)
        self._remember(incoming, upstream.name)
        return upstream

    def maker_of(self, asked: str, nodes: Iterable[Upstream]) -> Upstream | None:
        """Return the node that a client made a model on; None if that is not known."""
        try:
            node = self._made.get(canonical_name(asked))
        except InvalidNameError:  # the server reports that
            return None
        return next((each for each in nodes if each.name == node), None)

    def _choose(
        self, incoming: IncomingRequest, asked: str, nodes: list[Upstream]
    ) -> Upstream:
        match incoming.endpoint.path:
            case "/api/pull":
                return self._to_pull(asked, nodes)
            case "/api/delete":
                return self._to_delete(asked, nodes)
            case _:
                return self._to_make(asked, incoming, nodes)

    def _to_pull(self, asked: str, nodes: list[Upstream]) -> Upstream:
        """Return the node that has a model, else the one that gets it.

        Raises:
            Refusal: No node may get it.
        """
        try:
            name = canonical_name(asked)
        except InvalidNameError:  # the server reports that
            return self._nodes.any_of(nodes)
        there = [
            each
            for each in self._having(name, nodes)
            if self._nodes.answers(each)
            # A client made it there, and it may be gone again.
            and (self._nodes.has(each.name, name) or not self._refusal(each, name))
        ]
        if there:
            return min(there, key=lambda each: bool(self._refusal(each, name)))
        able = {each.name: each for each in nodes}
        views = [view for view in self._nodes.views.values() if view.name in able]
        size = placement.expected_size(name, views, self._nodes.registry)
        places = placement.place_for_new(name, size, views)
        if not places:
            reasons = "; ".join(placement.refusals(name, size, views))
            model = asked[:200]
            raise Refusal(409, f"'{model}' cannot be placed on any node: {reasons}.")
        return able[places[0].node]

    def _to_delete(self, asked: str, nodes: list[Upstream]) -> Upstream:
        """Return the node whose model is deleted.

        Raises:
            Refusal: Several nodes have it.
        """
        having = self._having(asked, nodes)
        if len(having) > 1:
            names = ", ".join(each.name for each in having)
            header = NODE_HEADER.decode()
            raise Refusal(
                409,
                f"'{asked[:200]}' is on {names}. Choose a node with the header "
                f"{header}: NODE.",
            )
        return having[0] if having else self._nodes.any_of(nodes)

    def _to_make(
        self, source: str, incoming: IncomingRequest, nodes: list[Upstream]
    ) -> Upstream:
        """Return the node on which a model is copied or created.

        Args:
            source: The model that it is made from; empty for none.
            incoming: The request.
            nodes: The nodes.

        Raises:
            Refusal: No node that has the source, or the files of the client, may have
                the new model.
        """
        made, uploaded = made_by(incoming), self._nodes.any_of(nodes)
        able = self._having(source, nodes) or [uploaded]
        # The client has sent its files to the node for requests without a model.
        able.sort(key=lambda each: _has_files(incoming) and each is not uploaded)
        if made is None:
            return able[0]
        refused = {each.name: self._refusal(each, made, source) for each in able}
        able = [each for each in able if not refused[each.name]]
        if not able:
            reasons = "; ".join(f"{node} {why}" for node, why in refused.items())
            raise Refusal(409, f"'{made[:200]}' cannot be placed on a node: {reasons}.")
        # A model of its name is replaced, if there is one.
        replaced = [each for each in able if self._nodes.has(each.name, made)]
        return (replaced or able)[0]

    def _having(self, asked: str, nodes: list[Upstream]) -> list[Upstream]:
        """Return the nodes that have a model, those that answer first.

        If none has it as far as the log shows, the one on which a client made it.
        """
        having = [each for each in nodes if self._nodes.has(each.name, asked)]
        maker = self.maker_of(asked, nodes)
        if not having and maker is not None and self._nodes.answers(maker):
            return [maker]
        return sorted(having, key=lambda each: not self._nodes.answers(each))

    def _refusal(self, upstream: Upstream, model: str, source: str = "") -> str:
        """Return why a node must not have a model, in words; empty if it may."""
        view = self._nodes.views[upstream.name]
        try:
            size_bytes = view.models.status(source or model).size_bytes
        except InvalidNameError:  # the server reports that
            size_bytes = None
        return placement.refusal(view.node.settings, model, size_bytes)

    def _remember(self, incoming: IncomingRequest, node: str) -> None:
        """Remember which node a client pulls, copies or creates a model on.

        The log has it a second after that, and the client may use it at once.
        """
        name = made_by(incoming)
        if name is not None:
            self._made[name] = node
            self._made.move_to_end(name)
            if len(self._made) > _MOST_MADE:
                self._made.popitem(last=False)


def made_by(incoming: IncomingRequest) -> str | None:
    """Return the canonical name of the model that a request makes; None for none."""
    fields = incoming.fields
    match incoming.endpoint.path:
        case "/api/copy":
            name = text_field(fields, "destination")
        case "/api/pull" | "/api/create":
            name = asked_model(incoming.endpoint, fields) or text_field(fields, "name")
        case _:
            return None
    try:
        return canonical_name(name)
    except InvalidNameError:  # the server reports that
        return None


def _has_files(incoming: IncomingRequest) -> bool:
    """Return whether a model is created from files that the client has sent before."""
    return "files" in incoming.fields or "adapters" in incoming.fields
