"""Estimate the cost of a pull, load, unload or delete before it starts.

Each figure has a source, or a note that says why it is not known.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from herdbook.core.models.registry import ModelRegistry
from herdbook.core.ollama.address import is_local
from herdbook.events.facts import Runner
from herdbook.events.lifecycle import ModelState
from herdbook.projections.serializable import Serializable
from herdbook.projections.status import ModelStatus


class CostSource(StrEnum):
    """Source of a figure."""

    CATALOGUE = "catalogue"
    TAGS = "tags"
    PS = "ps"
    DISK = "disk"
    UNKNOWN = "unknown"


class Figure(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """A number of bytes and its source.

    Attributes:
        size_bytes: The number; None if it is not known.
        source: Where it comes from.
        note: Details: the source of the catalogue, the folder on the disk, or why the
            number is not known.
    """

    size_bytes: int | None
    source: CostSource
    note: str = ""


class PullCost(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """Cost of a pull.

    Attributes:
        name: The model.
        update: Whether the model is present, so that only changed layers are pulled.
        fetch: Upper bound of the download; layers on the server are not pulled again.
        free: Free space on the server's disk.
    """

    name: str
    update: bool
    fetch: Figure
    free: Figure


class LoadCost(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """Cost of a load.

    Attributes:
        name: The model.
        loaded: Whether it is in memory already.
        size: Size of the model: the minimum memory that it needs.
        held: Memory in use by all runners.
        runners: Number of runners.
    """

    name: str
    loaded: bool
    size: Figure
    held: Figure
    runners: int


class DeleteCost(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """What a delete frees.

    Attributes:
        name: The model.
        frees: Space on the server's disk; 0 if other models share its weights.
        shared_with: Names of the other models with the same weights.
        loaded: Whether it is in memory. A delete unloads it if no other model shares
            its weights.
    """

    name: str
    frees: Figure
    shared_with: tuple[str, ...]
    loaded: bool


class UnloadCost(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """What an unload frees.

    Attributes:
        name: The model.
        frees: Memory of its runner; 0 if it is not loaded.
        also: Other loaded models with the same weights, which are unloaded with it.
    """

    name: str
    frees: Figure
    also: tuple[str, ...]


def of_pull(status: ModelStatus, registry: ModelRegistry, free: Figure) -> PullCost:
    """Return the cost of a pull.

    Args:
        status: The model, present or not.
        registry: Known models; only the size of this very tag is used.
        free: Free space on the server's disk.
    """
    return PullCost(
        name=status.name,
        update=status.present,
        fetch=_download(status.name, registry),
        free=free,
    )


def of_load(status: ModelStatus, runners: Sequence[Runner]) -> LoadCost:
    """Return the cost of loading a present model.

    Args:
        status: The model.
        runners: The runners in memory.
    """
    held = sum(runner.size_bytes for runner in runners)
    return LoadCost(
        name=status.name,
        loaded=status.state is ModelState.LOADED,
        size=_size(status),
        held=Figure(size_bytes=held, source=CostSource.PS),
        runners=len(runners),
    )


def of_delete(status: ModelStatus, statuses: Sequence[ModelStatus]) -> DeleteCost:
    """Return what deleting a model frees.

    Args:
        status: The model; one that is not present frees nothing.
        statuses: All models of its node.
    """
    shared_with = tuple(other.name for other in _sharing(status, statuses))
    return DeleteCost(
        name=status.name,
        frees=_freed(status, shared_with),
        shared_with=shared_with,
        loaded=status.state is ModelState.LOADED,
    )


def of_unload(status: ModelStatus, statuses: Sequence[ModelStatus]) -> UnloadCost:
    """Return what unloading a model frees.

    Args:
        status: The model.
        statuses: All models of its node.
    """
    loaded = status.state is ModelState.LOADED
    return UnloadCost(
        name=status.name,
        frees=_held(status.runner) if loaded else _nothing(CostSource.PS),
        also=tuple(
            other.name
            for other in _sharing(status, statuses)
            if loaded and other.state is ModelState.LOADED
        ),
    )


def models_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of the models of this user's server (OLLAMA_MODELS)."""
    configured = environment.get("OLLAMA_MODELS")
    return Path(configured) if configured else Path.home() / ".ollama" / "models"


def free_disk(url: str, folder: Path) -> Figure:
    """Return the free disk space of the server's models folder, if it is local.

    Args:
        url: The server.
        folder: Models folder of a server on this machine.
    """
    if not is_local(url):
        return _unknown("the server is on another machine")
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return _unknown(f"{folder}: {error.strerror}")
    return Figure(size_bytes=free, source=CostSource.DISK, note=str(folder))


def _download(name: str, registry: ModelRegistry) -> Figure:
    found = registry.download_of(name)
    if found is None:
        return _unknown("not known until the pull starts")
    size_bytes, source = found
    return Figure(size_bytes=size_bytes, source=CostSource.CATALOGUE, note=source.title)


def _sharing(status: ModelStatus, statuses: Sequence[ModelStatus]) -> list[ModelStatus]:
    """Return the other present models with the same weights."""
    return [s for s in statuses if s.present and s.shares_weights_with(status)]


def _freed(status: ModelStatus, shared_with: Sequence[str]) -> Figure:
    if shared_with:
        return _nothing(CostSource.TAGS, note="other models have the same weights")
    if not status.present:
        return _nothing(CostSource.TAGS, note="the server does not have it")
    return _size(status)


def _size(status: ModelStatus) -> Figure:
    if status.size_bytes is None:
        return _unknown("the server does not report its size")
    return Figure(size_bytes=status.size_bytes, source=CostSource.TAGS)


def _held(runner: Runner | None) -> Figure:
    if runner is None:
        return _unknown("its runner was not seen")
    return Figure(size_bytes=runner.size_bytes, source=CostSource.PS)


def _nothing(source: CostSource, *, note: str = "") -> Figure:
    return Figure(size_bytes=0, source=source, note=note)


def _unknown(note: str) -> Figure:
    return Figure(size_bytes=None, source=CostSource.UNKNOWN, note=note)
