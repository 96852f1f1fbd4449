"""Look up operations of the last 24 hours in the log by id.

Events that start an operation are rare, and the store finds them by their type. Their
positions are cached, so each lookup reads only new events.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from herdbook.core import Clock, Fleet, HistoryFilter, RecordedEvent
from herdbook.service.operations.restore import ENDS, STARTS, starts_operation

LOOKUP_PERIOD: Final = timedelta(hours=24)
"""How long an operation can be found by its id or idempotency key."""

_STARTS: Final = HistoryFilter(types=frozenset(fact.__name__ for fact in STARTS))
_PAGE: Final = 1_000


class _Start(NamedTuple):
    """Stream and position of the event that started an operation."""

    stream: str
    position: int


class LoggedOperations:
    """The operations of the last 24 hours in the log."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._position: int | None = None
        self._starts: dict[str, _Start] = {}

    async def events(self, operation_id: str) -> Sequence[RecordedEvent]:
        """Return the events of an operation up to its end; empty if it is unknown."""
        await self._read_new_events()
        start = self._starts.get(operation_id)
        if start is None:
            return ()
        return await self.since(start.position - 1, operation_id, stream=start.stream)

    async def since(
        self, position: int, operation_id: str, *, stream: str = ""
    ) -> Sequence[RecordedEvent]:
        """Return the events of an operation after a position, up to its end.

        Args:
            position: A position before the start of the operation.
            operation_id: The id of the operation.
            stream: Only events of this stream; of all streams by default.
        """
        wanted = HistoryFilter(correlation_id=operation_id)
        found: list[RecordedEvent] = []
        after: int | None = position
        while after is not None:
            page = await self._fleet.home.read_log(
                after=after, limit=_PAGE, stream_prefix=stream, chosen=wanted
            )
            found += (one for one in page.events if stream in ("", one.stream))
            ended = found and type(found[-1].data) in ENDS
            after = None if ended else page.next
        return found

    async def _read_new_events(self) -> None:
        """Add operations that started since the last lookup, and drop old ones."""
        oldest = await self._fleet.home.position_at(self._clock.now() - LOOKUP_PERIOD)
        after: int | None = max(oldest, self._position or 0)
        head = (await self._fleet.home.head()).position
        while after is not None:
            page = await self._fleet.home.read_log(
                after=after, before=head + 1, limit=_PAGE, chosen=_STARTS
            )
            for event in page.events:
                if event.correlation_id and starts_operation(event):
                    start = _Start(event.stream, event.position)
                    self._starts.setdefault(event.correlation_id, start)
            after = page.next
        self._position = head
        self._starts = {
            k: one for k, one in self._starts.items() if one.position > oldest
        }
