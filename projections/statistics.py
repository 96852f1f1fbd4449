"""Figures per model: how often, how long, how much, and what failed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime
from typing import ClassVar, Self, cast

import msgspec

from herdbook.events import facts
from herdbook.events.lifecycle import EVENTS, INITIAL, Lifecycle, fold
from herdbook.events.recorded import RecordedEvent
from herdbook.events.streams import model_of


class ModelStatistics(msgspec.Struct, kw_only=True):
    """The figures of one model, over its whole history.

    Attributes:
        pulls: Pulls and updates that ended with success.
        pull_seconds: What they took together, where it was measured, s.
        fetched_bytes: What they fetched together, bytes fetched twice included.
        pulls_stopped: Pulls and updates cancelled or interrupted.
        loads: Loads that ended with success, by whomever.
        timed_loads: Those of them that were ours and measured.
        load_seconds: What those took together, s.
        longest_load_seconds: What the longest of them took, s.
        unloads: By reason.
        failures: By the error's word.
        uses: How often it was used.
        seconds_in: Seconds spent in each state so far, up to the last change.
        transitions: By ``from>to``: how often the state changed so.
        lifecycle: Where it is now.
        since: Since when.
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


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(dict[str, ModelStatistics]).decode


class StatisticsView:
    """The figures of every model."""

    name: ClassVar[str] = "statistics"
    form: ClassVar[int] = 3

    def __init__(self) -> None:
        self._models: dict[str, ModelStatistics] = {}  # by stream

    def apply(self, event: RecordedEvent) -> None:
        """Take in one event; only a model's event in a model's stream counts."""
        if event.type not in EVENTS:
            return
        model = self._models.get(event.stream)
        if model is None:
            if model_of(event.stream) is None:
                return
            model = self._models[event.stream] = ModelStatistics(
                since=event.occurred_at
            )
        after = fold(model.lifecycle, event.type)
        if after.state is not model.lifecycle.state:
            _move(model, after, event.occurred_at)
        model.lifecycle = after
        count = _COUNTS.get(event.type)
        if count is not None and not isinstance(event.data, facts.UnreadableFact):
            count(model, event)

    def get(self, stream: str) -> ModelStatistics | None:
        """Return the figures of a model's stream, as they are now."""
        model = self._models.get(stream)
        return None if model is None else _copy(model)

    def dump(self) -> bytes:
        """Return the whole view: equal views have equal bytes."""
        return _encode(self._models)

    @classmethod
    def copy_of(cls, other: Self) -> Self:
        """Return the same view, which later events do not change."""
        view = cls()
        view._models = {at: _copy(model) for at, model in other._models.items()}
        return view

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Return the view that was dumped."""
        view = cls()
        view._models = _decode(data)
        return view


def _copy(model: ModelStatistics) -> ModelStatistics:
    """Return a copy with dictionaries of its own."""
    copied = copy.copy(model)
    copied.unloads, copied.failures = dict(model.unloads), dict(model.failures)
    copied.seconds_in = dict(model.seconds_in)
    copied.transitions = dict(model.transitions)
    return copied


def _move(model: ModelStatistics, after: Lifecycle, at: datetime) -> None:
    before = model.lifecycle.state
    if model.since is not None:
        seconds = max((at - model.since).total_seconds(), 0.0)
        _add(model.seconds_in, before.value, seconds)
    model.since = at
    edge = f"{before}>{after.state}"
    model.transitions[edge] = model.transitions.get(edge, 0) + 1


def _add(sums: dict[str, float], name: str, amount: float) -> None:
    sums[name] = sums.get(name, 0.0) + amount


def _pulled(model: ModelStatistics, event: RecordedEvent) -> None:
    fact = cast("facts.PullCompleted | facts.ModelUpdated", event.data)
    if fact.duration_s is None:
        return
    model.pulls += 1
    model.pull_seconds += fact.duration_s
    model.fetched_bytes += fact.fetched_bytes or 0


def _stopped(model: ModelStatistics, _: RecordedEvent) -> None:
    model.pulls_stopped += 1


def _failed(model: ModelStatistics, event: RecordedEvent) -> None:
    fact = cast("facts.PullFailed | facts.UpdateFailed | facts.LoadFailed", event.data)
    model.failures[fact.kind] = model.failures.get(fact.kind, 0) + 1


def _loaded(model: ModelStatistics, event: RecordedEvent) -> None:
    fact = cast("facts.ModelLoaded", event.data)
    model.loads += 1
    if fact.duration_s is not None:
        model.timed_loads += 1
        model.load_seconds += fact.duration_s
        model.longest_load_seconds = max(model.longest_load_seconds, fact.duration_s)


def _unloaded(model: ModelStatistics, event: RecordedEvent) -> None:
    fact = cast("facts.ModelUnloaded", event.data)
    model.unloads[fact.reason.value] = model.unloads.get(fact.reason.value, 0) + 1


def _used(model: ModelStatistics, _: RecordedEvent) -> None:
    model.uses += 1


_COUNTS: dict[str, Callable[[ModelStatistics, RecordedEvent], None]] = {
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
        (_failed, (facts.PullFailed, facts.UpdateFailed, facts.LoadFailed)),
        (_loaded, (facts.ModelLoaded,)),
        (_unloaded, (facts.ModelUnloaded,)),
        (_used, (facts.ModelUsed,)),
    )
    for fact in kinds
}
