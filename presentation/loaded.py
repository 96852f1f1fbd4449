"""The loaded models: memory, expiry, who loaded them and their last use."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from herdbook.core import ModelState, ModelStatus


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """An element of ``ps``: one runner on the server.

    Attributes:
        name: The model.
        also: Other models with the same weights, which share the memory.
        state: State of the model.
        size_bytes: Memory in all, bytes; None if the server has not reported it.
        gpu_bytes: Part of it on the GPU, bytes.
        cpu_bytes: Part of it in main memory, bytes.
        context: Context in effect, tokens.
        expires_at: When keep-alive ends; a year beyond 2300 means never.
        loaded_at: When the model was loaded.
        loaded_by: Actor of the load, or of the observation of a load by others.
        observed: Whether another program loaded it.
        last_used_at: Last recorded use.
        last_used_by: Actor of that use.
    """

    name: str
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


class LoadedModels(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``ps``.

    Attributes:
        models: The loaded models, the largest first.
        size_bytes: Memory of all of them, bytes.
        gpu_bytes: Part of it on GPUs, bytes.
        stale_since: Since when the server has not answered; None if it does.
    """

    models: list[LoadedModel]
    size_bytes: int
    gpu_bytes: int
    stale_since: datetime | None


def by_runner(statuses: Iterable[ModelStatus]) -> list[list[ModelStatus]]:
    """Group the loaded models that share a runner, the largest runner first."""
    groups: dict[str, list[ModelStatus]] = {}
    for status in statuses:
        if status.state is ModelState.LOADED:
            groups.setdefault(status.weights or status.name, []).append(status)
    for group in groups.values():
        loaded_as = group[0].runner.name if group[0].runner else ""
        group.sort(key=lambda each: (each.name != loaded_as, each.name))
    return sorted(groups.values(), key=_size, reverse=True)


def _size(group: list[ModelStatus]) -> int:
    return group[0].runner.size_bytes if group[0].runner else 0
