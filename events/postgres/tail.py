"""The newest events of a log in memory: those that the last append returned.

An instance that appends needs the events of other instances before its own, and its
subscriptions need both. The append returns them, which saves a query for each group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from herdbook.events import codec
from herdbook.events.errors import StoreError
from herdbook.events.recorded import RecordedEvent

FIELD, LINE = "\x1f", "\n"
"""The characters between the columns of an event, and between events. No column has
them: names are printable, and the data are JSON."""


class Tail:
    """The events from one position to the end of the last append."""

    def __init__(self) -> None:
        self._events: Sequence[RecordedEvent] = ()

    def keep(
        self, after: int, missed: str | None, own: Sequence[RecordedEvent]
    ) -> None:
        """Replace the events by those of an append.

        Args:
            after: Position before the first one.
            missed: The events of other instances before its own, as text.
            own: The events that it wrote.
        """
        try:
            events = [*codec.read_rows(_rows(missed or "")), *own]
        except (StoreError, ValueError):  # a query describes what cannot be read
            events = []
        is_whole = all(e.position == n for n, e in enumerate(events, after + 1))
        self._events = events if is_whole else ()

    def between(self, after: int, limit: int) -> Sequence[RecordedEvent] | None:
        """Return a number of events after a position; None if one is not kept."""
        if not self._events:
            return None
        first = after + 1 - self._events[0].position
        if first < 0 or first + limit > len(self._events):
            return None
        return self._events[first : first + limit]

    def beyond(self, after: int) -> Sequence[RecordedEvent]:
        """Return the kept events after a position, if the next one is among them."""
        if not self._events:
            return ()
        first = after + 1 - self._events[0].position
        return self._events[first:] if first >= 0 else ()


def _rows(text: str) -> Iterable[Sequence[object]]:
    """Yield the rows of a text.

    Raises:
        ValueError: A damaged column has one of the separators.
    """
    for line in text.split(LINE) if text else ():
        (
            position,
            stream,
            version,
            event_id,
            type_,
            schema,
            data,
            occurred_at,
            recorded_at,
            actor,
            cause,
            correlation_id,
            causation_id,
            hash_,
        ) = line.split(FIELD)
        yield (
            int(position),
            stream,
            int(version),
            event_id,
            type_,
            int(schema),
            data,
            occurred_at,
            recorded_at,
            actor,
            cause,
            correlation_id or None,
            causation_id or None,
            hash_,
        )
