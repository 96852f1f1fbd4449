"""Differences between two read models: per model, per role, and of the node.

Each status is flattened to one value per field, so that all fields are compared by the
same rule and none is forgotten on one side.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.history.read_model import ReadModel
from herdbook.events.facts import Setting
from herdbook.projections.roles import ModelRole
from herdbook.projections.serializable import Serializable
from herdbook.projections.status import ModelStatus, NodeStatus


class Presence(StrEnum):
    """Whether a model appeared on the server or vanished between two positions."""

    APPEARED = "appeared"
    VANISHED = "vanished"
    STAYED = "stayed"


class Change(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """A field with a different value.

    Attributes:
        fact: The field, such as ``state``, ``settings.num_ctx`` or
            ``runner.size_bytes``.
        was: Value before; None if there was none.
        now: Value after; None if there is none.
    """

    fact: str
    was: Setting
    now: Setting


class ModelDifference(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """A model that has changed.

    Attributes:
        name: The model.
        presence: Whether it appeared, vanished or stayed.
        changes: The changed fields.
    """

    name: str
    presence: Presence
    changes: tuple[Change, ...]


class RoleDifference(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """A role with a different best model.

    Attributes:
        role: The role.
        was: The best model before; None if there was none.
        now: The best model after; None if there is none.
    """

    role: ModelRole
    was: str | None
    now: str | None


class Difference(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """Differences between two positions of the log.

    Attributes:
        since: The earlier position.
        until: The later position.
        node: Changes to the server.
        models: Changed models, sorted by name.
        roles: Roles with a different best model.
    """

    since: int
    until: int
    node: tuple[Change, ...]
    models: tuple[ModelDifference, ...]
    roles: tuple[RoleDifference, ...]


async def difference(one: ReadModel, other: ReadModel) -> Difference:
    """Return the differences; give other tasks time to run in between."""
    one, other, time_slice = one.fixed(), other.fixed(), TimeSlice()
    before = {status.name: status for status in one.records()}
    after = {status.name: status for status in other.records()}
    models = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None or new is None or not _is_alike(old, new):
            model = _model(name, old, new)
            if model.changes:
                models.append(model)
        await time_slice.checkpoint()
    roles = []
    for role in ModelRole:
        was, now = _first(one, role), _first(other, role)
        if was != now:
            roles.append(RoleDifference(role=role, was=was, now=now))
        await time_slice.checkpoint()
    return Difference(
        since=one.position,
        until=other.position,
        node=_changes(_of_node(one.node_status()), _of_node(other.node_status())),
        models=tuple(models),
        roles=tuple(roles),
    )


def _is_alike(was: ModelStatus, now: ModelStatus) -> bool:
    """Return whether all that ``_of_model`` reads is equal.

    Of most models it is, and this takes a tenth of the time of a comparison by field.
    """
    return (
        was.lifecycle == now.lifecycle
        and was.digest == now.digest
        and was.weights == now.weights
        and was.size_bytes == now.size_bytes
        and was.remote_host == now.remote_host
        and was.last_failure == now.last_failure
        and was.context_trained == now.context_trained
        and was.runner == now.runner
        and was.detected == now.detected
        and was.settings == now.settings
    )


def _model(
    name: str, before: ModelStatus | None, after: ModelStatus | None
) -> ModelDifference:
    was, now = _of_model(before), _of_model(after)
    presence = Presence.STAYED
    if bool(was["present"]) is not bool(now["present"]):
        presence = Presence.APPEARED if now["present"] else Presence.VANISHED
    return ModelDifference(name=name, presence=presence, changes=_changes(was, now))


def _changes(
    was: Mapping[str, Setting], now: Mapping[str, Setting]
) -> tuple[Change, ...]:
    return tuple(
        Change(fact=fact, was=was.get(fact), now=now.get(fact))
        for fact in (*now, *(fact for fact in was if fact not in now))
        if was.get(fact) != now.get(fact)
    )


def _of_model(status: ModelStatus | None) -> dict[str, Setting]:
    """Flatten a status; None counts as a model that was never seen."""
    known = status or ModelStatus(node="", name="")
    failure, runner = known.last_failure, known.runner
    fields: dict[str, Setting] = {
        "present": known.present,
        "state": known.state.value,
        "activity": known.activity.value if known.activity else None,
        "digest": known.digest,
        "weights": known.weights,
        "size_bytes": known.size_bytes,
        "remote_host": known.remote_host,
        "failure": failure.message if failure else None,
        "context_trained": known.context_trained,
    }
    if runner is not None:
        fields |= {
            "runner.name": runner.name,
            "runner.context_length": runner.context_length,
            "runner.size_bytes": runner.size_bytes,
            "runner.size_vram_bytes": runner.size_vram_bytes,
        }
    fields |= {f"capabilities.{n}": c.value for n, c in known.capabilities.items()}
    return fields | {f"settings.{n}": value for n, value in known.settings.items()}


def _of_node(node: NodeStatus) -> dict[str, Setting]:
    return {
        "reached": node.reached,
        "server_version": node.server_version or None,
        "url": node.url or None,
    }


def _first(read_model: ReadModel, role: ModelRole) -> str | None:
    chosen = read_model.recommend(role)
    return chosen.name if chosen else None
