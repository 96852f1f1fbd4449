"""What a verb will cost, or give back, told before it is begun.

Nothing is guessed: a figure says where it is known from, or why it is not known.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from herdbook.core.models.registry import ModelRegistry
from herdbook.core.ollama.address import is_local
from herdbook.events.facts import Runner
from herdbook.events.lifecycle import ModelState
from herdbook.projections.status import ModelStatus


class CostSource(StrEnum):
    """Where a figure is known from."""

    CATALOGUE = "catalogue"
    TAGS = "tags"
    PS = "ps"
    DISK = "disk"
    UNKNOWN = "unknown"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A number of bytes, with where it is known from.

    Attributes:
        size_bytes: The number; None where it is not known.
        source: Where it is known from.
        note: The catalogue's source, or the folder on the disk; why it is not known.
    """

    size_bytes: int | None
    source: CostSource
    note: str = ""


class PullCost(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull will cost.

    Attributes:
        name: The model.
        update: Whether it is there: then what has not changed is not fetched.
        fetch: Bytes to fetch at most; what the server has of them is not fetched.
        free: Bytes free where the server keeps its models.
    """

    name: str
    update: bool
    fetch: Figure
    free: Figure


class LoadCost(msgspec.Struct, frozen=True, kw_only=True):
    """What a load will cost.

    Attributes:
        name: The model.
        loaded: Whether it is in memory already.
        size: Size of the model, which it needs at least.
        held: Memory that all runners hold now.
        runners: How many there are.
    """

    name: str
    loaded: bool
    size: Figure
    held: Figure
    runners: int


class DeleteCost(msgspec.Struct, frozen=True, kw_only=True):
    """What a deletion will give back.

    Attributes:
        name: The model.
        frees: Bytes on the server's disk; next to nothing, told as 0, where other
            models keep its weights.
        shared_with: The other models that have the same weights, by name.
        loaded: Whether it is in memory, from where it goes too if nobody shares it.
    """

    name: str
    frees: Figure
    shared_with: tuple[str, ...]
    loaded: bool


class UnloadCost(msgspec.Struct, frozen=True, kw_only=True):
    """What an unload will give back.

    Attributes:
        name: The model.
        frees: Memory that its runner holds, bytes; 0 where it is not loaded.
        also: The other loaded names of its weights, which leave with it.
    """

    name: str
    frees: Figure
    also: tuple[str, ...]


def of_pull(status: ModelStatus, registry: ModelRegistry, free: Figure) -> PullCost:
    """Return what the pull of a model will cost.

    Args:
        status: The model, present or not.
        registry: What is known of models; only what it says of that very tag counts.
        free: What is free on the server's disk.
    """
    return PullCost(
        name=status.name,
        update=status.present,
        fetch=_download(status.name, registry),
        free=free,
    )


def of_load(status: ModelStatus, runners: Sequence[Runner]) -> LoadCost:
    """Return what the load of a present model will cost.

    Args:
        status: The model.
        runners: What the server has in memory now.
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
    """Return what the deletion of a model will give back.

    Args:
        status: The model; one that is not there gives nothing back.
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
    """Return what the unload of a model will give back.

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


def free_disk(url: str, folder: Path) -> Figure:
    """Return what is free where a server keeps its models, as far as that is here.

    Args:
        url: The server.
        folder: Where a server of this machine keeps them.
    """
    if not is_local(url):
        return _unknown("the server is on another machine")
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return _unknown(f"{folder}: {error.strerror}")
    return Figure(size_bytes=free, source=CostSource.DISK, note=str(folder))


def _download(name: str, registry: ModelRegistry) -> Figure:
    known = registry.find(name)
    if known is None or not known.is_about(name) or known.download_bytes is None:
        return _unknown("the catalogue does not tell the size of that tag")
    return Figure(
        size_bytes=known.download_bytes,
        source=CostSource.CATALOGUE,
        note=known.sources["download_bytes"].title,
    )


def _sharing(
    status: ModelStatus, statuses: Sequence[ModelStatus]
) -> Iterator[ModelStatus]:
    """Yield the other present models of the same weights."""
    for other in statuses:
        same = status.weights is not None and other.weights == status.weights
        if same and other.present and other.name != status.name:
            yield other


def _freed(status: ModelStatus, shared_with: Sequence[str]) -> Figure:
    if shared_with:
        return _nothing(CostSource.TAGS, note="other models have the same weights")
    if not status.present:
        return _nothing(CostSource.TAGS, note="the server does not have it")
    return _size(status)


def _size(status: ModelStatus) -> Figure:
    if status.size_bytes is None:
        return _unknown("the server does not tell its size")
    return Figure(size_bytes=status.size_bytes, source=CostSource.TAGS)


def _held(runner: Runner | None) -> Figure:
    if runner is None:
        return _unknown("its runner was not seen")
    return Figure(size_bytes=runner.size_bytes, source=CostSource.PS)


def _nothing(source: CostSource, *, note: str = "") -> Figure:
    return Figure(size_bytes=0, source=source, note=note)


def _unknown(note: str) -> Figure:
    return Figure(size_bytes=None, source=CostSource.UNKNOWN, note=note)
