"""Which node answers for a role or a model, and which one gets a new model.

Pure: everything that it knows is passed in. The order of places is: the model is in
memory and idle, in memory, on disk; then the order of the role; then nodes that prefer
the model, free memory, requests in progress by weight, and name.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

import msgspec

from herdbook.core.history.read_model import ReadModel
from herdbook.core.models.registry import ModelRegistry
from herdbook.core.models.sizes import parse_size
from herdbook.events.facts import NodeSettings
from herdbook.events.lifecycle import Activity, ModelState
from herdbook.projections.recommendation import Candidate
from herdbook.projections.roles import ModelRole
from herdbook.projections.sentences import counted
from herdbook.projections.status import ModelStatus, NodeStatus

MEMORY_TAGS: Final = ("vram", "memory", "ram")
"""Tags with the memory for models of a node, the first that it has counts."""


Key = tuple[bool | int | float | str, ...]
"""What places are sorted by."""


class Readiness(StrEnum):
    """How soon a model can answer on a node, the soonest first."""

    IDLE = "loaded and idle"
    BUSY = "loaded"
    ON_DISK = "available"
    ABSENT = "not present"


_READINESS: Final = list(Readiness)

_SHOWN_BYTES: Final = 100_000_000
"""The least free memory that is shown where it is a lower bound: 0.1 GB."""


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """What placement knows about a node.

    Attributes:
        node: Its status.
        models: Its models.
        requests: Requests in progress by model; they need not be complete.
        answered: Models that answered a request so recently that the log may not have
            their load yet.
    """

    node: NodeStatus
    models: ReadModel
    requests: dict[str, int] = {}
    answered: Container[str] = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self.node.name

    @property
    def capacity_bytes(self) -> int | None:
        """Its memory for models, bytes: from a tag, or the most that has fitted.

        None if neither is known.
        """
        tagged = capacity(self.node.settings)
        return self.models.most_memory() if tagged is None else tagged

    def free_bytes(self) -> int | None:
        """Return the free memory for models, bytes; None if it is not known."""
        capacity_bytes = self.capacity_bytes
        if capacity_bytes is None:
            return None
        return max(capacity_bytes - self.models.memory_used(), 0)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A model on a node.

    Attributes:
        node: Name of the node.
        model: Name of the model.
        readiness: How soon it can answer there.
        free_bytes: Free memory of the node, bytes; None if it is not known.
        requests: Requests in progress on the node, as far as known.
        reasons: Why it has its place in the order, in words.
        away: Whether the node does not answer.
    """

    node: str
    model: str
    readiness: Readiness
    free_bytes: int | None
    requests: int
    reasons: tuple[str, ...]
    away: bool = False


def capacity(settings: NodeSettings) -> int | None:
    """Return the memory for models that the tags of a node declare, bytes.

    None if there is no such tag, or if it is not a size such as ``64GB``.
    """
    tags = settings.tags
    sizes = (parse_size(tags[tag]) for tag in MEMORY_TAGS if tag in tags)
    return next((size for size in sizes if size is not None), None)


def refusal(settings: NodeSettings, model: str, size_bytes: int | None) -> str:
    """Return why a node must not have or run a model, in words; empty if it may.

    Args:
        settings: The settings of the node.
        model: Canonical name of the model.
        size_bytes: Its size, bytes; None if that is not known.
    """
    if settings.drained:
        return "is drained"
    if settings.models and not _matches(model, settings.models):
        return f"accepts only {', '.join(settings.models)}"
    most = settings.max_model_bytes
    if most is not None and size_bytes is not None and size_bytes > most:
        return f"accepts only models up to {most / 1e9:.1f} GB"
    return ""


def _matches(model: str, patterns: Iterable[str]) -> bool:
    """Return whether a name matches one of some patterns, ``*`` and ``?``."""
    return any(
        fnmatchcase(model, pattern) or fnmatchcase(model, f"{pattern}:latest")
        for pattern in patterns
    )


def places_of(model: str, nodes: Iterable[NodeView]) -> list[Place]:
    """Return the nodes that have a model and may run it, the best first.

    Args:
        model: A name as clients write it.
        nodes: The nodes; those that do not answer come last.

    Raises:
        InvalidNameError: The name is not valid.
    """
    found = []
    for view in nodes:
        status = view.models.status(model)
        if _usable(status) and not refusal(
            view.node.settings, status.name, status.size_bytes
        ):
            room = _Room.of(view)
            found.append((_order(room, status), _place(room, status)))
    return [place for _, place in sorted(found, key=lambda one: one[0])]


def places_for(role: ModelRole | str, nodes: Sequence[NodeView]) -> list[Place]:
    """Return the models for a role on all nodes, the best first.

    Raises:
        UnknownRoleError: The role does not exist.
    """
    order = nodes[0].models.order_everywhere(role) if nodes else ()
    return best_first(places_by_key(order, nodes))


def best_first(places: Iterable[tuple[Key, Place]]) -> list[Place]:
    """Return places by their keys."""
    return [place for _, place in sorted(places, key=lambda one: one[0])]


def places_by_key(
    order: Iterable[Candidate], nodes: Iterable[NodeView]
) -> Iterator[tuple[Key, Place]]:
    """Return places one after another, each with the key that they are sorted by.

    Args:
        order: Models by the order of a role, on any nodes.
        nodes: The nodes.
    """
    rooms = {view.name: _Room.of(view) for view in nodes}
    ranks: dict[str, int] = {}  # that a model was used on one node counts for all
    for candidate in order:
        rank = ranks.setdefault(candidate.name, len(ranks))
        room = rooms.get(candidate.node)
        if room is None:
            continue
        settings = room.view.node.settings
        if refusal(settings, candidate.name, candidate.size_bytes):
            continue
        status = room.view.models.status(candidate.name)
        away, spare, readiness, *rest = _order(room, status)
        place = _place(room, status, reasons=candidate.reasons)
        yield (away, spare, readiness, rank, *rest), place


def place_for_new(
    model: str, size_bytes: int | None, nodes: Iterable[NodeView]
) -> list[Place]:
    """Return the nodes that may get a model, the best first.

    Nodes that have room for it in memory come first, then those whose memory is not
    known; then the least busy ones.

    Args:
        model: Canonical name of a model.
        size_bytes: Its expected size, bytes; None if that is not known.
        nodes: The nodes. Those that do not answer get no model.
    """
    found = []
    for view in nodes:
        settings = view.node.settings
        if not view.node.reached or refusal(settings, model, size_bytes):
            continue
        status, room = view.models.status(model), _Room.of(view)
        prefers = bool(settings.prefer) and _matches(model, settings.prefer)
        free = room.free_bytes
        key = (not prefers, _fits(free, size_bytes), -(free or 0), room.load, view.name)
        found.append((key, _place(room, status)))
    return [place for _, place in sorted(found, key=lambda one: one[0])]


def permitting(
    model: str, size_bytes: int | None, nodes: Iterable[NodeView]
) -> list[NodeView]:
    """Return the nodes whose settings allow a model, whether they answer or not.

    Args:
        model: Canonical name of a model.
        size_bytes: Its expected size, bytes; None if that is not known.
        nodes: The nodes.
    """
    return [
        view for view in nodes if not refusal(view.node.settings, model, size_bytes)
    ]


def expected_size(
    model: str, nodes: Iterable[NodeView], registry: ModelRegistry
) -> int | None:
    """Return the size that a model should have on another node, bytes; None if unknown.

    Args:
        model: Canonical name of a model.
        nodes: The nodes, of which one may have it.
        registry: Known models.
    """
    sizes = (view.models.status(model).size_bytes for view in nodes)
    known = next((size for size in sizes if size is not None), None)
    found = registry.download_of(model) if known is None else None
    return found[0] if found else known


class _Room(NamedTuple):
    """What a node has room for, computed once for all of its models.

    Attributes:
        view: The node.
        free_bytes: Its free memory, bytes; None if it is not known.
        requests: Requests in progress.
        load: Requests in progress, divided by the weight of the node.
    """

    view: NodeView
    free_bytes: int | None
    requests: int
    load: float

    @classmethod
    def of(cls, view: NodeView) -> _Room:
        """Return the room of a node."""
        requests, weight = sum(view.requests.values()), view.node.settings.weight
        load = requests / weight if weight else float("inf")
        return cls(view, view.free_bytes(), requests, load)


def _fits(free: int | None, size: int | None) -> int:
    """Return 0 if there is room for a model, 1 if that is not known, else 2."""
    if free is None or size is None:
        return 1
    return 0 if free >= size else 2


def refusals_of(model: str, nodes: Collection[NodeView]) -> list[str]:
    """Return why nodes that have a model must not run it, in words; only of those."""
    found = []
    for view in nodes:
        size_bytes = view.models.status(model).size_bytes
        found += refusals(model, size_bytes, [view])
    return found


def refusals(
    model: str, size_bytes: int | None, nodes: Collection[NodeView]
) -> list[str]:
    """Return why each node must not have a model, in words; only of those."""
    found = []
    for view in nodes:
        why = refusal(view.node.settings, model, size_bytes)
        why = why or ("" if view.node.reached else "does not answer")
        if why:
            found.append(f"{view.name} {why}")
    return found


def _usable(status: ModelStatus) -> bool:
    return status.state in (ModelState.LOADED, ModelState.AVAILABLE)


def _readiness(view: NodeView, status: ModelStatus) -> Readiness:
    if status.state is ModelState.LOADED or status.name in view.answered:
        # A request waits until a reload is over.
        reloads = status.activity is Activity.RELOAD
        busy = reloads or view.requests.get(status.name, 0) > 0
        return Readiness.BUSY if busy else Readiness.IDLE
    return Readiness.ON_DISK if status.present else Readiness.ABSENT


def _order(room: _Room, status: ModelStatus) -> Key:
    """Return what a place is sorted by.

    Nodes that do not answer come last, and before them those with the weight 0.
    """
    view, free = room.view, room.free_bytes
    readiness, prefer = _readiness(view, status), view.node.settings.prefer
    loaded = readiness in (Readiness.IDLE, Readiness.BUSY)
    return (
        _is_away(room, status),
        not view.node.settings.weight,
        _READINESS.index(readiness),
        not (prefer and _matches(status.name, prefer)),
        0 if loaded else _fits(free, status.size_bytes),
        0 if loaded else -(free or 0),
        room.load,
        view.name,
    )


def _is_away(room: _Room, status: ModelStatus) -> bool:
    return not room.view.node.reached or status.stale_since is not None


def _free_words(room: _Room) -> list[str]:
    """Return the free memory of a node in words, if there is something to say."""
    if room.free_bytes is None:
        return []
    amount = f"{room.free_bytes / 1e9:.1f} GB of memory free there"
    if capacity(room.view.node.settings) is not None:
        return [amount]
    # Without a tag it is only a lower bound, which says nothing if it is about zero.
    return [f"at least {amount}"] if room.free_bytes >= _SHOWN_BYTES else []


def _place(room: _Room, status: ModelStatus, *, reasons: tuple[str, ...] = ()) -> Place:
    view, free, requests = room.view, room.free_bytes, room.requests
    readiness, away = _readiness(view, status), _is_away(room, status)
    others = [reason for reason in reasons if reason != status.state.value]
    where = f"{readiness.value} on {view.name}"
    if away:
        where = f"was {status.state.value} on {view.name}, which does not answer"
    words = [where, *others]
    if readiness is Readiness.ON_DISK:
        words += _free_words(room)
    if requests:
        words.append(f"{counted(requests, 'request')} there")
    return Place(
        node=view.name,
        model=status.name,
        readiness=readiness,
        free_bytes=free,
        requests=requests,
        reasons=tuple(words),
        away=away,
    )
