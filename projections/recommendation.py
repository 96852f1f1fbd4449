"""Recommend models for a role, with reasons, from their history.

Only models that meet the requirements of the role are considered. They are sorted by
last use (newest first), known details before unknown ones, loaded before available,
rank for the role, failures since the last success, size and name. Models that are
loading, in error or not present are skipped. The view has only the data that this
order needs.

A use that names a role counts for that role, and a request for embeddings for that of
embedding. Any other use counts for the roles that the model is suited to. Uses recorded
before schema 3 count for every role, so that answers about the past stay the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import ClassVar, Self

import msgspec

from herdbook.events import facts
from herdbook.events.lifecycle import (
    EVENTS,
    INITIAL,
    Activity,
    Lifecycle,
    ModelState,
    fold,
)
from herdbook.events.recorded import RecordedEvent
from herdbook.events.streams import model_of
from herdbook.projections.by_node import StreamsByNode
from herdbook.projections.roles import (
    CAPABILITY_SETTING,
    ModelRole,
    is_suited,
    lacking,
    role_of_use,
)
from herdbook.projections.serializable import Serializable

_BY_ROLE = 3
"""Schema of ``ModelUsed`` from which on uses count by role."""

_UNNAMED = ""
"""The key of the uses that name no role."""

_USABLE = (ModelState.LOADED, ModelState.AVAILABLE)


class Candidate(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """A model that was considered for a role.

    Attributes:
        node: Name of the node.
        name: Name of the model.
        state: Current state.
        last_used_at: Time of the last use that counts for the role; None if there was
            none.
        rank: Rank for the role in the catalogue, from 1; None without a rank.
        failures: Number of failures since the last success.
        size_bytes: Size, bytes; None if the model is not present.
        reasons: Why the model has its rank, or why it was skipped, in words without
            relative times.
    """

    node: str
    name: str
    state: ModelState
    last_used_at: datetime | None
    rank: int | None
    failures: int
    size_bytes: int | None
    reasons: tuple[str, ...]


class Recommendation(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """The recommended models for a role.

    Attributes:
        role: The role.
        chosen: Suitable models, best first.
        passed_over: The other models by node and name, with reasons.
    """

    role: ModelRole
    chosen: tuple[Candidate, ...] = ()
    passed_over: tuple[Candidate, ...] = ()


class _Ability(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Detected capabilities of a model; equal objects are shared between models."""

    can: frozenset[str] = frozenset()
    parameter_count: int | None = None
    context: int = 0
    ranks: tuple[tuple[str, int], ...] = ()
    assumed: bool = False  # all of it are defaults: nothing is known of the model


_UNDETECTED = _Ability()


class _Model(msgspec.Struct, kw_only=True, gc=False):
    node: str
    name: str
    lifecycle: Lifecycle = INITIAL
    size_bytes: int | None = None
    ability: _Ability = _UNDETECTED
    overrides: dict[str, bool] | None = None
    last_used_at: datetime | None = None  # for any role, before schema 3
    used_for: dict[str, datetime] | None = None
    failures: int = 0

    def last_use(self, role: ModelRole) -> datetime | None:
        """Return the last use that counts for a role."""
        last, known = self.last_used_at, self.used_for
        if known is None:
            return last
        named, unnamed = known.get(role), known.get(_UNNAMED)
        if named is not None and (last is None or named > last):
            last = named
        if unnamed is None or (last is not None and unnamed <= last):
            return last
        suits = is_suited(role, can=self.can(), ranks=self.ability.ranks)
        return unnamed if suits else last

    def use_words(self, role: ModelRole) -> str:
        """Return the reason for the last use that counts for a role."""
        last, known = self.last_use(role), self.used_for or {}
        if last is None:
            return f"not used for the {role.words} role" if known else "never used"
        is_named = last == known.get(role) and last != self.last_used_at
        return f"used for the {role.words} role" if is_named else "used before"

    def can(self) -> frozenset[str] | set[str]:
        """Return the detected capabilities, overridden by the configuration."""
        if self.overrides is None:
            return self.ability.can
        can = set(self.ability.can)
        for name, value in self.overrides.items():
            (can.add if value else can.discard)(name)
        return can

    def is_assumed(self) -> bool:
        """Return whether nothing is known of what the model can do."""
        return self.ability.assumed and not self.overrides

    def rank(self, role: ModelRole) -> int | None:
        """Return the rank for a role, from 1."""
        return dict(self.ability.ranks).get(role)

    def lacks(self, role: ModelRole) -> str | None:
        """Describe what the model lacks for a role; None if it lacks nothing."""
        if self.ability == _UNDETECTED:
            return "capabilities unknown"
        return lacking(
            role,
            can=self.can(),
            parameter_count=self.ability.parameter_count,
            context=self.ability.context,
        )


class _Dump(msgspec.Struct):
    models: dict[str, _Model]
    position: int


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(_Dump).decode


class RecommendationView:
    """The order of the models for each role."""

    name: ClassVar[str] = "recommendation"
    form: ClassVar[int] = 4
    older_forms: ClassVar[frozenset[int]] = frozenset()

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}  # by stream
        self._by_node = StreamsByNode()
        self._own: set[str] | None = None  # streams of records that no copy shares
        self._abilities: dict[_Ability, _Ability] = {_UNDETECTED: _UNDETECTED}
        self.position = 0

    def apply(self, event: RecordedEvent) -> None:
        """Apply one event; events that are not about a model are ignored."""
        self.position = event.position
        if event.type not in EVENTS:
            return
        model = self._models.get(event.stream) or self._new(event.stream)
        if model is None:
            return
        if self._own is not None and event.stream not in self._own:
            model = self._models[event.stream] = _copy(model)
            self._own.add(event.stream)
        model.lifecycle = fold(model.lifecycle, event.type)
        effect = _EFFECTS.get(event.type)
        if effect is not None and type(event.data) is not facts.UnreadableFact:
            effect(self, model, event)

    def _new(self, stream: str) -> _Model | None:
        key = model_of(stream)
        if key is None:
            return None
        model = self._models[stream] = _Model(node=key.node, name=key.name)
        self._by_node.add(key.node, stream)
        return model

    def shared(self, ability: _Ability) -> _Ability:
        """Return the shared object that is equal to an ability."""
        return self._abilities.setdefault(ability, ability)

    def order(self, role: ModelRole, node: str | None = None) -> tuple[Candidate, ...]:
        """Return the suitable models for a role, on one node or all, best first."""
        fit = sorted(self._fit(role, node), key=lambda model: _place(model, role))
        return tuple(_candidate(model, role, _merits(model, role)) for model in fit)

    def first(self, role: ModelRole, node: str | None = None) -> Candidate | None:
        """Return the best model for a role; None if no model is suitable."""
        fit = list(self._fit(role, node))
        if not fit:
            return None
        # The last use comes first in the order, and is cheap to compare.
        used = [(model.last_use(role), model) for model in fit]
        newest = max((at for at, _ in used if at), default=None)
        best = [model for at, model in used if at == newest]
        model = min(best, key=lambda model: _place(model, role))
        return _candidate(model, role, _merits(model, role))

    def _fit(self, role: ModelRole, node: str | None) -> Iterator[_Model]:
        suits: dict[int, bool] = {}  # by shared ability: many models have the same
        for model in self._on(node):
            if model.lifecycle.state not in _USABLE:
                continue
            if model.overrides is not None:
                fits: bool | None = model.lacks(role) is None
            else:
                key = id(model.ability)
                fits = suits.get(key)
                if fits is None:
                    fits = suits[key] = model.lacks(role) is None
            if fits:
                yield model

    def explain(self, role: ModelRole, node: str | None = None) -> Recommendation:
        """Return the suitable models for a role, and why the others were skipped."""
        others = sorted(self._on(node), key=lambda model: (model.node, model.name))
        return Recommendation(
            role=role,
            chosen=self.order(role, node),
            passed_over=tuple(
                _candidate(model, role, faults)
                for model in others
                if (faults := _faults(model, role))
            ),
        )

    def _on(self, node: str | None) -> Iterator[_Model]:
        if node is None:
            return iter(self._models.values())
        return (self._models[stream] for stream in self._by_node.of(node))

    def dump(self) -> bytes:
        """Serialize the view; equal views have equal bytes."""
        return _encode(_Dump(self._models, self.position))

    @classmethod
    def copy_of(cls, other: Self) -> Self:
        """Copy a view, so that later events do not change the copy.

        The records are shared until an event changes one, as in the status view.
        """
        view = cls()
        view._models = dict(other._models)
        view._by_node = StreamsByNode.copy_of(other._by_node)
        view._own, other._own = set(), set()
        view._abilities, view.position = other._abilities, other.position
        return view

    @classmethod
    def load(cls, data: bytes | memoryview) -> Self:
        """Load a view from a dump."""
        dump = _decode(data)
        view = cls()
        view._models, view.position = dump.models, dump.position
        view._by_node = StreamsByNode(dump.models)
        for model in view._models.values():
            model.ability = view.shared(model.ability)
        return view


def _copy(model: _Model) -> _Model:
    """Return a copy with its own dictionary of uses; its other values do not change."""
    copied = copy.copy(model)
    if model.used_for is not None:
        copied.used_for = dict(model.used_for)
    return copied


_Place = tuple[float, bool, bool, float, int, int, str]


def _place(model: _Model, role: ModelRole) -> _Place:
    used = model.last_use(role)
    rank = model.rank(role)
    return (
        -used.timestamp() if used else float("inf"),
        model.is_assumed(),
        model.lifecycle.state is not ModelState.LOADED,
        float("inf") if rank is None else rank,
        model.failures,
        model.size_bytes or 0,
        f"{model.name} {model.node}",
    )


def _merits(model: _Model, role: ModelRole) -> tuple[str, ...]:
    """Return the reasons for the rank of a model, most important first."""
    words = [
        model.use_words(role),
        *(["details unknown, may not fit"] if model.is_assumed() else []),
        model.lifecycle.state.value,
        _standing(model.rank(role), role),
    ]
    if model.failures:
        words.append(_times(model.failures))
    return tuple(words)


def _standing(rank: int | None, role: ModelRole) -> str:
    if rank is None:
        return f"not ranked for the {role.words} role in the catalogue"
    place = "first" if rank == 1 else f"rank {rank}"
    return f"{place} for the {role.words} role in the catalogue"


def _faults(model: _Model, role: ModelRole) -> tuple[str, ...]:
    """Return why a model is skipped, in words; empty if it is suitable."""
    lifecycle = model.lifecycle
    words: list[str] = []
    match lifecycle.state:
        case ModelState.NOT_PRESENT:
            words.append("not present")
        case ModelState.LOADING:
            pulls = lifecycle.activity is Activity.PULL
            words.append("pulling" if pulls else "loading")
        case ModelState.ERROR:
            words.append(_times(model.failures))
        case _:
            pass
    lack = model.lacks(role)
    return (*words, lack) if lack else tuple(words)


def _times(failures: int) -> str:
    if failures == 1:
        return "last attempt failed"
    return f"last {failures:,} attempts failed"


def _candidate(model: _Model, role: ModelRole, reasons: tuple[str, ...]) -> Candidate:
    return Candidate(
        node=model.node,
        name=model.name,
        state=model.lifecycle.state,
        last_used_at=model.last_use(role),
        rank=model.rank(role),
        failures=model.failures,
        size_bytes=model.size_bytes,
        reasons=reasons,
    )


def _arrived(_: RecommendationView, model: _Model, event: RecordedEvent) -> None:
    fact = event.data
    assert isinstance(
        fact, facts.ModelDiscovered | facts.PullCompleted | facts.ModelUpdated
    )
    model.size_bytes, model.failures = fact.size_bytes, 0


def _removed(_: RecommendationView, model: _Model, __: RecordedEvent) -> None:
    model.size_bytes, model.failures = None, 0


def _failed(_: RecommendationView, model: _Model, __: RecordedEvent) -> None:
    model.failures += 1


def _succeeded(_: RecommendationView, model: _Model, __: RecordedEvent) -> None:
    model.failures = 0


def _used(_: RecommendationView, model: _Model, event: RecordedEvent) -> None:
    model.failures = 0
    fact, at = event.data, event.occurred_at
    if event.schema < _BY_ROLE:
        model.last_used_at = at
        return
    assert isinstance(fact, facts.ModelUsed)
    if model.used_for is None:
        model.used_for = {}
    known, name = model.used_for, role_of_use(fact) or _UNNAMED
    last = known.get(name)
    if last is None or last < at:
        known[name] = at


def _detected(view: RecommendationView, model: _Model, event: RecordedEvent) -> None:
    fact = event.data
    assert isinstance(fact, facts.CapabilitiesDetected)
    ability = _Ability(
        frozenset(name for name, found in fact.capabilities.items() if found.value),
        fact.parameter_count,
        fact.context_trained,
        tuple(sorted(fact.ranks.items())),
        all(source is facts.FactSource.DEFAULT for source in _sources(fact)),
    )
    model.ability = view.shared(ability)


def _sources(fact: facts.CapabilitiesDetected) -> Iterator[facts.FactSource]:
    yield fact.context_source
    yield from (found.source for found in fact.capabilities.values())


def _configured(_: RecommendationView, model: _Model, event: RecordedEvent) -> None:
    fact = event.data
    assert isinstance(fact, facts.ConfigurationChanged)
    overrides = dict(model.overrides or {})
    for name, value in fact.set.items():
        if name.startswith(CAPABILITY_SETTING):
            overrides[name.removeprefix(CAPABILITY_SETTING)] = bool(value)
    for name in fact.unset:
        if name.startswith(CAPABILITY_SETTING):
            overrides.pop(name.removeprefix(CAPABILITY_SETTING), None)
    model.overrides = overrides or None


_Effect = Callable[[RecommendationView, _Model, RecordedEvent], None]

_EFFECTS: dict[str, _Effect] = {
    facts.ModelDiscovered.__name__: _arrived,
    facts.PullCompleted.__name__: _arrived,
    facts.ModelUpdated.__name__: _arrived,
    facts.ModelVanished.__name__: _removed,
    facts.ModelDeleted.__name__: _removed,
    facts.PullFailed.__name__: _failed,
    facts.LoadFailed.__name__: _failed,
    facts.ModelLoaded.__name__: _succeeded,
    facts.ModelUsed.__name__: _used,
    facts.CapabilitiesDetected.__name__: _detected,
    facts.ConfigurationChanged.__name__: _configured,
}
