"""Explain the state of a model by the events that led to it.

Nothing is guessed. An event is part of an explanation if it changed the state, belongs
to the same operation, set a current setting, or is referred to by such an event.
Progress events are left out: the event that ends the operation has the final progress.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.history.read_model import ReadModel
from herdbook.events.facts import (
    ConfigurationChanged,
    ModelDeleted,
    ModelDiscovered,
    ModelLoaded,
    ModelUnloaded,
    ModelUpdated,
    ModelVanished,
    PullCompleted,
    PullProgressed,
    ReloadCompleted,
    ReloadStarted,
    RunnerChanged,
    UpdateProgressed,
)
from herdbook.events.lifecycle import (
    INITIAL,
    Activity,
    ModelState,
    changes_state,
    fold,
)
from herdbook.events.recorded import Cause, RecordedEvent
from herdbook.events.store import EventStore
from herdbook.events.streams import model_stream, node_stream
from herdbook.projections.history import HistoryEntry, HistoryView
from herdbook.projections.serializable import Serializable
from herdbook.projections.status import ModelStatus


class Link(StrEnum):
    """How an event is related to a state."""

    STATE = "state"
    ARRIVAL = "arrival"
    MEMORY = "memory"
    OPERATION = "operation"
    SETTING = "setting"
    OTHER = "other"
    NODE = "node"


class ExplanationEvent(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """An event that explains a state.

    Attributes:
        link: How it is related to the state.
        entry: The event.
    """

    link: Link
    entry: HistoryEntry


class Explanation(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """The state of a model and the events that led to it.

    Attributes:
        status: The explained status.
        ancestors: The events, oldest first.
    """

    status: ModelStatus
    ancestors: tuple[ExplanationEvent, ...]


_PROGRESS = (PullProgressed, UpdateProgressed)
_ARRIVALS = (ModelDiscovered, PullCompleted, ModelUpdated)
_DEPARTURES = (ModelVanished, ModelDeleted)


async def explain(store: EventStore, read_model: ReadModel, name: str) -> Explanation:
    """Return the events that explain the state of a model.

    Args:
        store: The log.
        read_model: The models at the position to explain.
        name: The model.
    """
    status = read_model.status(name)
    reader = _StreamReader(store, until=read_model.position)
    own = await reader.read(model_stream(status.node, status.name))
    found = _own(own)
    for event in [event for event, _ in found.values()]:
        async for linked in _in_other_streams(reader, read_model, status, event):
            found.setdefault(linked.event.position, linked)
    view = HistoryView()
    ordered = [found[position] for position in sorted(found)]
    for linked in ordered:
        view.apply(linked.event)
    return Explanation(
        status=status,
        ancestors=tuple(
            ExplanationEvent(link=linked.link, entry=entry)
            for linked, entry in zip(ordered, view.entries, strict=True)
        ),
    )


class _Linked(NamedTuple):
    event: RecordedEvent
    link: Link


class _StreamReader:
    """Read streams up to a position, without progress events."""

    def __init__(self, store: EventStore, *, until: int) -> None:
        self._store = store
        self._until = until

    async def read(self, stream: str) -> list[RecordedEvent]:
        """Return the events of a stream."""
        events, time_slice = [], TimeSlice()
        async for event in self._store.read_stream(stream):
            if event.position > self._until:
                break
            if not isinstance(event.data, _PROGRESS):
                events.append(event)
            await time_slice.checkpoint()
        return events


def _own(events: Sequence[RecordedEvent]) -> dict[int, _Linked]:
    """Return the events of the model's own stream that explain it, by position."""
    direct = [*_states(events), *_arrival(events), *_runner(events)]
    found: dict[int, _Linked] = {}
    for linked in direct:
        found.setdefault(linked.event.position, linked)
    for event in _operations(events, [linked.event for linked in direct]):
        found.setdefault(event.position, _Linked(event, Link.OPERATION))
    for event in _current_settings(events):
        found.setdefault(event.position, _Linked(event, Link.SETTING))
    return found


def _states(events: Iterable[RecordedEvent]) -> Iterator[_Linked]:
    """Yield the event that led to the state, and the load that it ended, if any.

    Of a model that is being reloaded, also the start of the reload.
    """
    turns, lifecycle, reload = [], INITIAL, None
    for event in events:
        if isinstance(event.data, ReloadStarted):
            reload = event
        after = fold(lifecycle, event.type)
        if changes_state(lifecycle, after):
            turns.append((event, after))
        lifecycle = after
    if turns:
        yield _Linked(turns[-1][0], Link.STATE)
    if lifecycle.activity is Activity.RELOAD and reload is not None:
        yield _Linked(reload, Link.OPERATION)
    if len(turns) > 1 and turns[-2][1].state is ModelState.LOADED:
        yield _Linked(turns[-2][0], Link.MEMORY)


def _arrival(events: Iterable[RecordedEvent]) -> Iterator[_Linked]:
    """Yield the event by which the present model, or the last one, arrived."""
    arrival, gone = None, False
    for event in events:
        if isinstance(event.data, _ARRIVALS):
            arrival, gone = event, False
        elif isinstance(event.data, _DEPARTURES):
            gone = True
        elif gone:  # a later model of this name is unrelated to the earlier one
            arrival = None
    if arrival is not None:
        yield _Linked(arrival, Link.ARRIVAL)


def _runner(events: Iterable[RecordedEvent]) -> Iterator[_Linked]:
    """Yield the newest change of its current runner."""
    changed = None
    for event in events:
        if isinstance(event.data, ReloadCompleted | RunnerChanged):
            changed = event
        elif isinstance(event.data, (ModelLoaded, ModelUnloaded, *_DEPARTURES)):
            changed = None
    if changed is not None:
        yield _Linked(changed, Link.MEMORY)


def _operations(
    events: Sequence[RecordedEvent], of: Sequence[RecordedEvent]
) -> Iterator[RecordedEvent]:
    """Yield the events of the same operations as some events, and their causes."""
    operations = {event.correlation_id for event in of} - {None}
    causes = {event.causation_id for event in of} - {None}
    for event in reversed(events):
        if event.correlation_id in operations or event.event_id in causes:
            causes.add(event.causation_id)
            yield event


def _current_settings(events: Iterable[RecordedEvent]) -> Iterator[RecordedEvent]:
    """Yield the events that set the current settings.

    Such an event may also have set what was removed later. Then the event that
    removed it follows, so that no removed setting looks current.
    """
    latest: dict[str, RecordedEvent] = {}
    current: dict[str, frozenset[str]] = {}
    for event in events:
        if isinstance(event.data, ConfigurationChanged):
            latest |= dict.fromkeys((*event.data.set, *event.data.unset), event)
            current[event.event_id] = frozenset(event.data.set)
    for name, event in latest.items():
        if name in current[event.event_id]:
            yield event
            for other in current[event.event_id]:
                yield latest[other]


async def _in_other_streams(
    reader: _StreamReader,
    read_model: ReadModel,
    status: ModelStatus,
    event: RecordedEvent,
) -> AsyncIterator[_Linked]:
    """Yield events of other streams that explain an event."""
    for name in _loaded_instead(status, event):
        events = await reader.read(model_stream(status.node, name))
        for other in _load(events, event):
            yield _Linked(other, Link.OTHER)
    if isinstance(event.data, ModelUnloaded) and event.cause is Cause.SHARED:
        for name in _sharing(read_model, status):
            for other in await reader.read(model_stream(status.node, name)):
                if (other.correlation_id, other.type) == _operation(event):
                    yield _Linked(other, Link.OTHER)
    if event.cause is Cause.RESTART:
        node = await reader.read(node_stream(status.node))
        for other in [e for e in node if e.position < event.position][-2:]:
            yield _Linked(other, Link.NODE)


def _operation(event: RecordedEvent) -> tuple[str | None, str]:
    return event.correlation_id, event.type


def _loaded_instead(status: ModelStatus, event: RecordedEvent) -> Iterator[str]:
    """Yield the other model whose load an event refers to."""
    fact = event.data
    if isinstance(fact, ModelUnloaded) and fact.evicted_by:
        yield fact.evicted_by
    if isinstance(fact, ModelLoaded | ReloadCompleted | RunnerChanged):
        name = fact.runner.name
        if name != status.name:
            yield name


def _load(
    events: Sequence[RecordedEvent], event: RecordedEvent
) -> Iterator[RecordedEvent]:
    """Yield the load that an event of another model refers to, with its operation.

    A refresh records changes in order of model names, so a load of the same refresh
    may come after the event.
    """
    loads = [
        other
        for other in events
        if isinstance(other.data, ModelLoaded)
        and (
            other.position < event.position
            or other.correlation_id == event.correlation_id
        )
    ]
    if loads:
        yield loads[-1]
        yield from _operations(events, loads[-1:])


def _sharing(read_model: ReadModel, status: ModelStatus) -> Iterator[str]:
    """Yield the other models with the same weights."""
    for other in read_model.statuses():
        if other.shares_weights_with(status):
            yield other.name
