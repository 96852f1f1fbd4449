"""The audit trail: what happened, when, why and who asked for it.

A history is built for one query, from the events that match its filter. There is no
snapshot of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from datetime import datetime

import msgspec

from herdbook.events.recorded import Cause, RecordedEvent
from herdbook.events.streams import is_of_node, model_of
from herdbook.projections.sentences import describe
from herdbook.projections.serializable import Serializable


class HistoryEntry(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """A line of the audit trail.

    Attributes:
        position: Position in the log.
        version: Position in the stream.
        stream: Name of the stream.
        model: Name of the model; None for an event of a node.
        event_id: Unique id of the event.
        type: Event type.
        sentence: Human-readable description.
        occurred_at: When the fact became true.
        recorded_at: When the event was recorded.
        actor: Who asked for it.
        cause: Why it was recorded.
        correlation_id: Id of the operation, shared by all of its events.
    """

    position: int
    version: int
    stream: str
    model: str | None
    event_id: str
    type: str
    sentence: str
    occurred_at: datetime
    recorded_at: datetime
    actor: str
    cause: Cause
    correlation_id: str | None


class HistoryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A filter for events; None matches everything.

    Attributes:
        types: Event types.
        causes: Causes.
        actors: Prefixes of actors, such as ``cli:``.
        since: Earliest time of recording, or first position, inclusive.
        until: Latest time of recording, or last position, inclusive.
        correlation_id: Id of an operation.
        node: Name of a node: its own events, and those of its models.
        model: Start of the name of a model, on any node.
        limit: Maximum number of events, the newest ones.
    """

    types: frozenset[str] | None = None
    causes: frozenset[Cause] | None = None
    actors: tuple[str, ...] | None = None
    since: datetime | int | None = None
    until: datetime | int | None = None
    correlation_id: str | None = None
    node: str | None = None
    model: str | None = None
    limit: int | None = None

    def matches(self, event: RecordedEvent) -> bool:
        """Return whether an event passes the filter."""
        return (
            _among(event.type, self.types)
            and _among(event.cause, self.causes)
            and (self.actors is None or event.actor.startswith(self.actors))
            and _is_since(event, self.since)
            and _is_until(event, self.until)
            and self.correlation_id in (None, event.correlation_id)
            and (self.node is None or is_of_node(event.stream, self.node))
            and (self.model is None or _is_of_model(event.stream, self.model))
        )


def _among(value: str, wanted: Collection[str] | None) -> bool:
    return wanted is None or value in wanted


def _is_of_model(stream: str, start: str) -> bool:
    key = model_of(stream)
    return key is not None and key.name.startswith(start)


def _is_since(event: RecordedEvent, first: datetime | int | None) -> bool:
    if isinstance(first, int):
        return event.position >= first
    return first is None or event.recorded_at >= first


def _is_until(event: RecordedEvent, last: datetime | int | None) -> bool:
    if isinstance(last, int):
        return event.position <= last
    return last is None or event.recorded_at <= last


class HistoryView:
    """The events that match a filter, oldest first."""

    def __init__(self, chosen: HistoryFilter | None = None) -> None:
        self.chosen = chosen or HistoryFilter()
        self._entries: deque[HistoryEntry] = deque(maxlen=self.chosen.limit)

    def apply(self, event: RecordedEvent) -> None:
        """Add an event, if it matches the filter."""
        if not self.chosen.matches(event):
            return
        key = model_of(event.stream)
        self._entries.append(
            HistoryEntry(
                position=event.position,
                version=event.version,
                stream=event.stream,
                model=key.name if key else None,
                event_id=event.event_id,
                type=event.type,
                sentence=describe(event),
                occurred_at=event.occurred_at,
                recorded_at=event.recorded_at,
                actor=event.actor,
                cause=event.cause,
                correlation_id=event.correlation_id,
            )
        )

    @property
    def entries(self) -> list[HistoryEntry]:
        """The entries, oldest first."""
        return list(self._entries)
