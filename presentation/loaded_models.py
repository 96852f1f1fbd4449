"""The loaded models: memory, expiry, who loaded them and their last use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

import msgspec

from herdbook.core import (
    Cause,
    ModelState,
    ModelStatus,
    NodeStatus,
    Runner,
)

OfSeveral: TypeAlias = str | msgspec.UnsetType
"""Name of a node where a log has several; otherwise the field is left out."""


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """An entry in the output of ``ps``: one runner on the server.

    Attributes:
        name: The model.
        node: Its node, if there are several; otherwise left out.
        also: Other models with the same weights, which share the memory.
        state: State of the model.
        size_bytes: Total memory, bytes; None if the server has not reported it.
        gpu_bytes: Part of it on the GPU, bytes.
        cpu_bytes: Part of it in main memory, bytes.
        context: Context in effect, tokens.
        expires_at: When keep-alive ends; a year beyond 2300 means never.
        loaded_at: When the model was loaded, or reloaded with other settings.
        loaded_by: Who loaded it; for a load by another program, who observed it.
        observed: Whether another program loaded it.
        last_used_at: Last recorded use.
        last_used_by: Actor of that use; None for an observed one.
        last_used_within_s: How much earlier an observed use may have ended, seconds.
        stale_since: With several nodes: when the model's node stopped answering.
            Omitted if it answers.
    """

    name: str
    node: OfSeveral = msgspec.UNSET
    also: tuple[str, ...]
    state: ModelState
    size_bytes: int | None
    gpu_bytes: int | None
    cpu_bytes: int | None
    context: int | None
    expires_at: datetime | None
    loaded_at: datetime | None
    loaded_by: str | None
    observed: bool
    last_used_at: datetime | None
    last_used_by: str | None
    last_used_within_s: float
    stale_since: datetime | msgspec.UnsetType = msgspec.UNSET


class LoadedModels(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``ps``.

    Attributes:
        models: The loaded models, the largest first.
        size_bytes: Memory of all of them, bytes.
        gpu_bytes: Part of it on GPUs, bytes.
        reported: Whether the server reports which models are loaded; if not, other
            models may be loaded too. With several servers: whether all do.
        stale_since: When the server stopped answering; None if it answers. With several
            servers, the earliest time.
    """

    models: list[LoadedModel]
    size_bytes: int
    gpu_bytes: int
    reported: bool
    stale_since: datetime | None


def by_runner(statuses: Iterable[ModelStatus]) -> list[list[ModelStatus]]:
    """Group the loaded models that share a runner, the largest runner first."""
    groups: dict[tuple[str, str], list[ModelStatus]] = {}
    for status in statuses:
        if status.state is ModelState.LOADED:
            key = (status.node, status.weights or status.name)
            groups.setdefault(key, []).append(status)
    for group in groups.values():
        loaded_as = group[0].runner.name if group[0].runner else ""
        group.sort(key=lambda each: (each.name != loaded_as, each.name))
    return sorted(groups.values(), key=_size, reverse=True)


def _size(group: list[ModelStatus]) -> int:
    return group[0].runner.size_bytes if group[0].runner else 0


def loaded_models(
    groups: Iterable[Sequence[ModelStatus]],
    nodes: Sequence[NodeStatus],
    *,
    reported: bool = True,
) -> LoadedModels:
    """Describe the loaded models, with totals.

    Args:
        groups: The models of each runner, from ``by_runner``.
        nodes: The nodes that they are loaded on.
        reported: Whether all servers report which models are loaded.
    """
    stale = {node.name: node.since for node in nodes if not node.reached}
    models = [_loaded(group, several=len(nodes) > 1, stale=stale) for group in groups]
    return LoadedModels(
        models=models,
        size_bytes=sum(each.size_bytes or 0 for each in models),
        gpu_bytes=sum(each.gpu_bytes or 0 for each in models),
        reported=reported,
        stale_since=min(filter(None, stale.values()), default=None),
    )


def last_used(group: Sequence[ModelStatus]) -> ModelStatus:
    """Return the most recently used model; the first if none was used."""
    used = [each for each in group if each.last_used_at is not None]
    return max(used, key=lambda each: str(each.last_used_at), default=group[0])


def _loaded(
    group: Sequence[ModelStatus],
    *,
    several: bool,
    stale: Mapping[str, datetime | None],
) -> LoadedModel:
    runner, used, node = group[0].runner, last_used(group), group[0].node
    load = group[0].last_load
    stale_since = stale.get(node) if several else None
    return LoadedModel(
        name=group[0].name,
        node=node if several else msgspec.UNSET,
        stale_since=msgspec.UNSET if stale_since is None else stale_since,
        also=tuple(each.name for each in group[1:]),
        state=group[0].state,
        size_bytes=runner.size_bytes if runner else None,
        gpu_bytes=runner.size_vram_bytes if runner else None,
        cpu_bytes=_cpu_bytes(runner) if runner else None,
        context=group[0].context_in_effect,
        expires_at=runner.expires_at if runner else None,
        loaded_at=load.at if load else None,
        loaded_by=load.actor if load else None,
        observed=load is not None and load.cause is not Cause.COMMAND,
        last_used_at=used.last_used_at,
        last_used_by=used.last_used_by,
        last_used_within_s=used.last_used_within_s,
    )


def _cpu_bytes(runner: Runner) -> int:
    return max(runner.size_bytes - runner.size_vram_bytes, 0)
