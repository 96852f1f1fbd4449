"""Which operations the log knows, by their ids: found without reading all of it.

What begins an operation is a rare kind of event, and the store finds it by its type.
Those of the last day are remembered; each question reads only what is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from herdbook.core import Clock, HistoryFilter, ModelManager, RecordedEvent
from herdbook.service.operations.restore import ENDS, STARTS, begins

CACHED: Final = timedelta(hours=24)
"""For how long an operation is found by its id, and so by its key."""

_STARTS: Final = HistoryFilter(types=frozenset(fact.__name__ for fact in STARTS))
_PAGE: Final = 1_000


class _Begun(NamedTuple):
    """Where an operation began."""

    stream: str
    position: int


class LoggedOperations:
    """The operations of the last day, as the log has them."""

    def __init__(self, manager: ModelManager, clock: Clock) -> None:
        self._manager = manager
        self._clock = clock
        self._position: int | None = None
        self._begun: dict[str, _Begun] = {}

    async def events(self, operation_id: str) -> Sequence[RecordedEvent]:
        """Return the events of an operation up to its end; none of one not known."""
        await self._read_on()
        begun = self._begun.get(operation_id)
        if begun is None:
            return ()
        return await self.since(begun.position - 1, operation_id, stream=begun.stream)

    async def since(
        self, position: int, operation_id: str, *, stream: str = ""
    ) -> Sequence[RecordedEvent]:
        """Return the events of an operation behind a position, up to its end.

        Args:
            position: It began behind this one.
            operation_id: Its id.
            stream: Only events of this stream; of all by default.
        """
        wanted = HistoryFilter(correlation_id=operation_id)
        found: list[RecordedEvent] = []
        after: int | None = position
        while after is not None:
            page = await self._manager.read_log(
                after=after, limit=_PAGE, stream_prefix=stream, chosen=wanted
            )
            found += (one for one in page.events if stream in ("", one.stream))
            ended = found and type(found[-1].data) in ENDS
            after = None if ended else page.next
        return found

    async def _read_on(self) -> None:
        """Take in what began since the last question, and forget what is too old."""
        oldest = await self._manager.position_at(self._clock.now() - CACHED)
        after: int | None = max(oldest, self._position or 0)
        head = (await self._manager.head()).position
        while after is not None:
            page = await self._manager.read_log(
                after=after, before=head + 1, limit=_PAGE, chosen=_STARTS
            )
            for event in page.events:
                if event.correlation_id and begins(event):
                    begun = _Begun(event.stream, event.position)
                    self._begun.setdefault(event.correlation_id, begun)
            after = page.next
        self._position = head
        self._begun = {
            k: one for k, one in self._begun.items() if one.position > oldest
        }
