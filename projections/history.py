"""The audit trail: what happened, when, why and at whose request.

A history is folded for a question, from the events that it is about; it is not
kept for the whole log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from datetime import datetime
from typing import ClassVar, Self

import msgspec

from herdbook.events.recorded import Cause, RecordedEvent
from herdbook.events.streams import model_of
from herdbook.projections.sentences import describe


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit trail.

    Attributes:
        position: Place in the whole log.
        version: Place in the stream.
        stream: Whose event it is.
        model: Name of the model; None for a node's own event.
        event_id: The event's identity.
        type: Name of the fact.
        sentence: What it says, for people.
        occurred_at: When it became true.
        recorded_at: When it was recorded.
        actor: Who asked.
        cause: Why it was recorded.
        correlation_id: What all events of one operation share.
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
    """Which events a history is about; what is None does not matter.

    Attributes:
        types: Names of facts.
        causes: Causes.
        actors: What an actor begins with, such as ``cli:``.
        since: Recorded at or after.
        until: Recorded at or before.
        correlation_id: Of one operation.
        limit: Only the newest so many.
    """

    types: frozenset[str] | None = None
    causes: frozenset[Cause] | None = None
    actors: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    correlation_id: str | None = None
    limit: int | None = None

    def takes(self, event: RecordedEvent) -> bool:
        """Return whether an event belongs into the history."""
        return (
            _among(event.type, self.types)
            and _among(event.cause, self.causes)
            and (self.actors is None or event.actor.startswith(self.actors))
            and (self.since is None or event.recorded_at >= self.since)
            and (self.until is None or event.recorded_at <= self.until)
            and self.correlation_id in (None, event.correlation_id)
        )


def _among(value: str, wanted: Collection[str] | None) -> bool:
    return wanted is None or value in wanted


class _Dump(msgspec.Struct):
    chosen: HistoryFilter
    entries: list[HistoryEntry]


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(_Dump).decode


class HistoryView:
    """The entries that a filter takes, the oldest first."""

    name: ClassVar[str] = "history"
    form: ClassVar[int] = 1

    def __init__(self, chosen: HistoryFilter | None = None) -> None:
        self.chosen = chosen or HistoryFilter()
        self._entries: deque[HistoryEntry] = deque(maxlen=self.chosen.limit)

    def apply(self, event: RecordedEvent) -> None:
        """Take in one event, if the filter takes it."""
        if not self.chosen.takes(event):
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
        """The entries, the oldest first."""
        return list(self._entries)

    def dump(self) -> bytes:
        """Return the whole view: equal views have equal bytes."""
        return _encode(_Dump(self.chosen, list(self._entries)))

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Return the view that was dumped."""
        dump = _decode(data)
        view = cls(dump.chosen)
        view._entries.extend(dump.entries)
        return view
