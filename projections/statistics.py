"""Statistics per model: pulls, loads, uses, failures and time in each state."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar, Final, Self

import msgspec

from herdbook.events import facts
from herdbook.events.facts import Fact
from herdbook.events.lifecycle import (
    EVENTS,
    INITIAL,
    Lifecycle,
    ModelState,
    fold,
)
from herdbook.events.recorded import RecordedEvent
from herdbook.events.streams import model_of
from herdbook.projections.serializable import Serializable


class ModelStatistics(Serializable, msgspec.Struct, kw_only=True, gc=False):
    """The statistics of one model, over its whole history.

    Attributes:
        pulls: Number of successful pulls and updates.
        pull_seconds: Total duration of the measured pulls, seconds.
        fetched_bytes: Total bytes fetched, including repeated ones.
        pulls_stopped: Number of cancelled and interrupted pulls and updates.
        loads: Number of successful loads, including those by other programs, and of
            reloads by Herdbook.
        timed_loads: Number of loads and reloads by Herdbook, which are measured.
        load_seconds: Total duration of the measured loads, seconds.
        longest_load_seconds: Duration of the longest measured load, seconds.
        unloads: Number of unloads by reason.
        failures: Number of failures by error code.
        uses: Number of recorded uses.
        seconds_in: Time in each state up to the last change, seconds.
        transitions: Number of state changes by ``from>to``.
        lifecycle: Current state and activity.
        since: When the model entered this state.
    """

    pulls: int = 0
    pull_seconds: float = 0.0
    fetched_bytes: int = 0
    pulls_stopped: int = 0
    loads: int = 0
    timed_loads: int = 0
    load_seconds: float = 0.0
    longest_load_seconds: float = 0.0
    unloads: dict[str, int] = {}
    failures: dict[str, int] = {}
    uses: int = 0
    seconds_in: dict[str, float] = {}
    transitions: dict[str, int] = {}
    lifecycle: Lifecycle = INITIAL
    since: datetime | None = None

    @property
    def pull_rate_bytes_s(self) -> float | None:
        """Mean throughput of the measured pulls, bytes per second."""
        return self.fetched_bytes / self.pull_seconds if self.pull_seconds else None

    @property
    def mean_load_seconds(self) -> float | None:
        """Mean duration of the measured loads, s."""
        return self.load_seconds / self.timed_loads if self.timed_loads else None


MOST_DEFERRED: Final = 2048
"""Events that are kept for a later fold, which takes 3 to 6 ms."""

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(dict[str, ModelStatistics]).decode
_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_one = msgspec.json.Decoder(ModelStatistics).decode


class StatisticsView:
    """The statistics of every model."""

    name: ClassVar[str] = "statistics"
    form: ClassVar[int] = 3
    older_forms: ClassVar[frozenset[int]] = frozenset()

    def __init__(self) -> None:
        self._models: dict[str, ModelStatistics] = {}  # by stream
        self._own: set[str] | None = None  # streams of records that no copy shares

    def apply(self, event: RecordedEvent) -> None:
        """Apply one event; events that are not about a model are ignored."""
        if event.type not in EVENTS:
            return
        model = self._models.get(event.stream)
        if model is None:
            if model_of(event.stream) is None:
                return
            model = self._models[event.stream] = ModelStatistics(
                since=event.occurred_at
            )
        if self._own is not None and event.stream not in self._own:
            model = self._models[event.stream] = _copy(model)
            self._own.add(event.stream)
        before, fact = model.lifecycle, event.data
        after = fold(before, event.type)
        if after is not before:
            if after.state is not before.state:
                _move(model, after, event.occurred_at)
            model.lifecycle = after
        count = _COUNTS.get(event.type)
        if count is not None and type(fact) is not facts.UnreadableFact:
            count(model, fact)

    def get(self, stream: str) -> ModelStatistics | None:
        """Return a copy of the statistics of a model's stream."""
        model = self._models.get(stream)
        return None if model is None else _copy(model)

    def dump(self) -> bytes:
        """Serialize the view; equal views have equal bytes."""
        return _encode(self._models)

    @classmethod
    def copy_of(cls, other: Self) -> Self:
        """Copy a view, so that later events do not change the copy.

        The records are shared until an event changes one, as in the status view.
        """
        view = cls()
        view._models = dict(other._models)
        view._own, other._own = set(), set()
        return view

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Load a view from a dump."""
        view = cls()
        view._models = _decode(data)
        return view


class DeferredStatistics(StatisticsView):
    """Statistics that are decoded and folded for the models that are asked for.

    Most questions about the past are about the statistics of no model, or of one. Those
    of all models take a fifth of the time of all views.

    Args:
        data: A dump.
        most: Most events to keep for later; more are folded as they come.
    """

    def __init__(self, data: bytes, *, most: int = MOST_DEFERRED) -> None:
        super().__init__()
        self._data, self._most = data, most
        self._records: dict[str, msgspec.Raw] | None = None  # by stream, of the dump
        self._later: list[RecordedEvent] | None = []  # None once all is folded

    @property
    def kept(self) -> int:
        """Number of events that are kept for later."""
        return len(self._later or ())

    def apply(self, event: RecordedEvent) -> None:
        """Apply one event, or keep it for later."""
        if self._later is None:
            super().apply(event)
            return
        self._later.append(event)
        if len(self._later) == self._most:
            self._settle()

    def get(self, stream: str) -> ModelStatistics | None:
        """Return the statistics of a model's stream, folded without the others."""
        if self._later is None:
            return super().get(stream)
        if self._records is None:
            self._records = _split(self._data)
        view, record = StatisticsView(), self._records.get(stream)
        if record is not None:
            view._models[stream] = _decode_one(record)  # noqa: SLF001 - of this class
        for event in self._later:
            if event.stream == stream:
                view.apply(event)
        return view.get(stream)

    # Everything but ``get`` needs the records of all models.
    @property
    def _models(self) -> dict[str, ModelStatistics]:
        if self._later is not None:
            self._settle()
        return self._settled

    @_models.setter
    def _models(self, models: dict[str, ModelStatistics]) -> None:
        self._settled = models

    def _settle(self) -> None:
        """Decode the dump, and fold the events that were kept."""
        self._settled = _decode(self._data)
        events, self._data, self._later = self._later or (), b"", None
        self._records = None
        for event in events:
            super().apply(event)


def _copy(model: ModelStatistics) -> ModelStatistics:
    """Return a copy with its own dictionaries."""
    copied = copy.copy(model)
    copied.unloads, copied.failures = dict(model.unloads), dict(model.failures)
    copied.seconds_in = dict(model.seconds_in)
    copied.transitions = dict(model.transitions)
    return copied


_EDGES: Final = {
    (before, after): f"{before}>{after}"
    for before in ModelState
    for after in ModelState
}


# Faster than the property ``value`` of enumerations, which is written in Python.
_STATES: Final = {state: state.value for state in ModelState}
_REASONS: Final = {reason: reason.value for reason in facts.UnloadReason}


def _move(model: ModelStatistics, after: Lifecycle, at: datetime) -> None:
    before = model.lifecycle.state
    if model.since is not None:
        seconds = max((at - model.since).total_seconds(), 0.0)
        sums, state = model.seconds_in, _STATES[before]
        sums[state] = sums.get(state, 0.0) + seconds
    model.since = at
    edge = _EDGES[before, after.state]
    model.transitions[edge] = model.transitions.get(edge, 0) + 1


def _pulled(
    model: ModelStatistics, fact: facts.PullCompleted | facts.ModelUpdated
) -> None:
    if fact.duration_s is None:
        return
    model.pulls += 1
    model.pull_seconds += fact.duration_s
    model.fetched_bytes += fact.fetched_bytes or 0


def _stopped(model: ModelStatistics, _: Fact) -> None:
    model.pulls_stopped += 1


def _failed(
    model: ModelStatistics,
    fact: facts.PullFailed | facts.UpdateFailed | facts.LoadFailed | facts.ReloadFailed,
) -> None:
    model.failures[fact.kind] = model.failures.get(fact.kind, 0) + 1


def _loaded(
    model: ModelStatistics, fact: facts.ModelLoaded | facts.ReloadCompleted
) -> None:
    model.loads += 1
    if fact.duration_s is not None:
        model.timed_loads += 1
        model.load_seconds += fact.duration_s
        model.longest_load_seconds = max(model.longest_load_seconds, fact.duration_s)


def _unloaded(model: ModelStatistics, fact: facts.ModelUnloaded) -> None:
    reason = _REASONS[fact.reason]
    model.unloads[reason] = model.unloads.get(reason, 0) + 1


def _used(model: ModelStatistics, fact: facts.ModelUsed) -> None:
    model.uses += facts.uses_of(fact)


_COUNTS: dict[str, Callable[[ModelStatistics, Any], None]] = {
    fact.__name__: count
    for count, kinds in (
        (_pulled, (facts.PullCompleted, facts.ModelUpdated)),
        (
            _stopped,
            (
                facts.PullCancelled,
                facts.PullInterrupted,
                facts.UpdateCancelled,
                facts.UpdateInterrupted,
            ),
        ),
        (
            _failed,
            (
                facts.PullFailed,
                facts.UpdateFailed,
                facts.LoadFailed,
                facts.ReloadFailed,
            ),
        ),
        (_loaded, (facts.ModelLoaded, facts.ReloadCompleted)),
        (_unloaded, (facts.ModelUnloaded,)),
        (_used, (facts.ModelUsed,)),
    )
    for fact in kinds
}
