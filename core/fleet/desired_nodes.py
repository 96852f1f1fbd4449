"""Assign the models of a desired set to nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from herdbook.core.desired.desired import DesiredModel, DesiredSet
from herdbook.core.desired.plan import Plan
from herdbook.core.errors import InvalidDesiredError, NoPlaceError
from herdbook.core.fleet import placement
from herdbook.core.fleet.placement import NodeView
from herdbook.core.models.registry import ModelRegistry


class NodePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of one node to a desired set.

    Attributes:
        node: Name of the node.
        plan: The steps.
    """

    node: str
    plan: Plan


def joined(parts: Mapping[str, DesiredSet]) -> DesiredSet:
    """Merge the desired sets of several nodes into one.

    Every model names its nodes. Where it is loaded on some of them only, the set leaves
    that as it is.

    Args:
        parts: What each node has, by its name.

    Raises:
        InvalidDesiredError: A model has different settings on two nodes.
    """
    models: dict[str, DesiredModel] = {}
    for node, part in parts.items():
        for model in part.models:
            known = models.get(model.name)
            if known is None:
                models[model.name] = msgspec.structs.replace(model, nodes=(node,))
                continue
            if known.settings != model.settings:
                raise InvalidDesiredError(
                    model.name,
                    f"has different settings on {node} and on {known.nodes[0]}",
                    "Freeze each node separately with --node",
                )
            models[model.name] = msgspec.structs.replace(
                known,
                nodes=(*known.nodes, node),
                loaded=known.loaded if known.loaded == model.loaded else None,
            )
    return DesiredSet(models=tuple(models[name] for name in sorted(models)))


def by_node(
    desired: DesiredSet,
    nodes: Sequence[NodeView],
    registry: ModelRegistry,
) -> dict[str, DesiredSet]:
    """Return the part of a desired set for each node, by name.

    A model that names nodes or tags goes to every node that matches. Any other model
    goes to the nodes that have it, or to one that placement chooses.

    Args:
        desired: The desired set.
        nodes: The nodes.
        registry: Known models, with their sizes.

    Raises:
        InvalidDesiredError: No node matches what a model names.
        NoPlaceError: No node may have a model.
    """
    parts: dict[str, list[DesiredModel]] = {view.name: [] for view in nodes}
    for model in desired.models:
        size = placement.expected_size(model.name, nodes, registry)
        for name in _nodes_of(model, desired.origin, nodes, size):
            parts[name].append(model)
    return {
        name: DesiredSet(models=tuple(models), origin=desired.origin)
        for name, models in parts.items()
    }


def _nodes_of(
    model: DesiredModel, origin: str, nodes: Sequence[NodeView], size: int | None
) -> list[str]:
    """Return the nodes that should have a model.

    Raises:
        InvalidDesiredError: No node matches what the model names.
        NoPlaceError: No node may have the model.
    """
    if model.nodes or model.tags:
        named = [view for view in nodes if _matches(model, view)]
        if not named:
            wanted = [*model.nodes, *(f"{k}={v}" for k, v in model.tags.items())]
            names = ", ".join(view.name for view in nodes)
            raise InvalidDesiredError(
                f"desired set {origin}",
                f"is not valid: no node matches {', '.join(wanted)}, which model "
                f"{model.name} names",
                f"Nodes: {names}",
            )
        refused = placement.refusals(model.name, size, named)
        if refused:
            raise NoPlaceError(model.name, refused)
        return [view.name for view in named]
    having = [view.name for view in nodes if view.models.status(model.name).present]
    if having:
        return having
    places = placement.place_for_new(model.name, size, nodes)
    if not places:
        raise NoPlaceError(model.name, placement.refusals(model.name, size, nodes))
    return [places[0].node]


def _matches(model: DesiredModel, view: NodeView) -> bool:
    tags = view.node.settings.tags
    return (
        not model.nodes or any(fnmatchcase(view.name, name) for name in model.nodes)
    ) and all(tags.get(key) == value for key, value in model.tags.items())
