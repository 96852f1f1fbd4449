"""Questions about the models of all nodes of a fleet, and which node is meant."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import msgspec

from herdbook.core.errors import AmbiguousNodeError, ModelNotFoundError
from herdbook.core.errors.suggestions import did_you_mean_model
from herdbook.core.fleet.fleet import Fleet
from herdbook.core.fleet.placement import refusal
from herdbook.core.history.read_model import ReadModel
from herdbook.core.manager import ModelManager
from herdbook.core.models.registry import Suggestion
from herdbook.projections.recommendation import Candidate, Recommendation
from herdbook.projections.roles import ModelRole
from herdbook.projections.usage.report import Usage, UsageDimension


def only_node(fleet: Fleet) -> ModelManager:
    """Return the manager of the only node, for a request about one server.

    Raises:
        AmbiguousNodeError: There are several nodes.
    """
    if fleet.is_several:
        raise AmbiguousNodeError("", tuple(fleet.all_names))
    return fleet.home


async def node_with(fleet: Fleet, model: str) -> ModelManager:
    """Return the manager of the node that a request about a model means.

    It is the only node, or the only one that has the model, or the only one that knows
    it from its past.

    Raises:
        InvalidNameError: The name is not valid.
        AmbiguousNodeError: Several nodes have the model.
        ModelNotFoundError: There are several nodes, and none knows the model.
    """
    if not fleet.is_several:
        return fleet.home
    return fleet.manager(node_in(await fleet.now(), model))


def node_in(read_models: Collection[ReadModel], model: str) -> str:
    """Return the node of several that a request about a model means.

    Raises:
        InvalidNameError: The name is not valid.
        AmbiguousNodeError: Several nodes have the model.
        ModelNotFoundError: No node knows the model.
    """
    if len(read_models) == 1:
        return next(iter(read_models)).node
    statuses = [one.status(model) for one in read_models]
    has = [each for each in statuses if each.present or each.activity is not None]
    known = has or [each for each in statuses if each.version]
    if not known:
        present = {
            each.name for one in read_models for each in one.records() if each.present
        }
        name = statuses[0].name
        similar = did_you_mean_model(name, sorted(present))
        remedy = similar or "Check the name"
        raise ModelNotFoundError(name, where="any node", remedy=remedy)
    if len(known) > 1:
        raise AmbiguousNodeError(known[0].name, tuple(each.node for each in known))
    return known[0].node


async def node_to_pull(fleet: Fleet, model: str) -> ModelManager:
    """Return the manager of the node that has a model, or else of the best place.

    Raises:
        InvalidNameError: The name is not valid.
        AmbiguousNodeError: Several nodes have the model.
        NoPlaceError: No node has the model, and none may get it.
        StoreError: The log cannot be read.
    """
    if not fleet.is_several:
        return fleet.home
    read_models = await fleet.now()
    statuses = [one.status(model) for one in read_models]
    if any(each.present or each.activity is not None for each in statuses):
        return fleet.manager(node_in(read_models, model))
    return fleet.manager((await fleet.place_for(model))[0].node)


async def explain(fleet: Fleet, role: ModelRole | str) -> Recommendation:
    """Return the models for a role, in the order of their places, and those rejected.

    With several nodes, the order is that of ``Fleet.places``, and the reasons name the
    node.

    Raises:
        UnknownRoleError: The role does not exist.
        StoreError: The log cannot be read.
    """
    if not fleet.is_several:
        return await fleet.home.explain(role)
    nodes = {node.name: node for node in await fleet.nodes()}
    found = fleet.home.latest().explain_everywhere(role)
    candidates = {(one.node, one.name): one for one in found.chosen}
    chosen = []
    for place in await fleet.places_in(found.chosen):
        candidate = candidates.pop((place.node, place.model), None)
        if candidate is not None:
            chosen.append(msgspec.structs.replace(candidate, reasons=place.reasons))
    refused = [
        _refused(one, refusal(nodes[one.node].settings, one.name, one.size_bytes))
        for one in candidates.values()
        if one.node in nodes
    ]
    others = [one for one in found.passed_over if one.node in nodes]
    return msgspec.structs.replace(
        found, chosen=tuple(chosen), passed_over=(*refused, *others)
    )


def _refused(candidate: Candidate, reason: str) -> Candidate:
    return msgspec.structs.replace(candidate, reasons=(f"{candidate.node} {reason}",))


async def suggest(
    fleet: Fleet, role: ModelRole | str, *, memory_bytes: int | None = None
) -> tuple[Suggestion, ...]:
    """Return known models for a role that no node has, the best first.

    Args:
        fleet: The nodes.
        role: The role.
        memory_bytes: Most memory that a model may need, bytes; None for any.

    Raises:
        UnknownRoleError: The role does not exist.
    """
    read_models = await fleet.now()
    present = {
        each.name for one in read_models for each in one.records() if each.present
    }
    used = dict.fromkeys(name for one in read_models for name in one.used_before())
    return fleet.registry.suggest(
        role,
        present=sorted(present),
        used=[name for name in used if name not in present],
        memory_bytes=memory_bytes,
    )


async def usage(
    fleet: Fleet,
    by: str | Collection[str] = UsageDimension.MODEL,
    *,
    since: int | datetime | None = None,
    until: int | datetime | None = None,
) -> Usage:
    """Return how the models of all nodes were used; see ``ModelManager.usage``.

    Raises:
        UnknownDimensionError: Use cannot be grouped by this name.
        CallerError: As ``ModelManager.usage`` has it.
        StoreError: The log cannot be read.
    """
    return await fleet.home.usage(
        by, since=since, until=until, all_nodes=fleet.is_several
    )
