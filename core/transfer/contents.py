"""The first and the last line of an export: what it has, and how it ends."""

from __future__ import annotations

from datetime import datetime

import msgspec

from herdbook.core.transfer.cloud_events import JSON, CloudEvent
from herdbook.events.recorded import GENESIS, StoredEvent, new_id, time_text

FORMAT = "herdbook-export/1"
BEGIN = "herdbook-export.begin"
END = "herdbook-export.end"


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which events of a log are exported.

    Attributes:
        after: Only events after this position.
        until: Only events up to this position; None for the end of the log.
        streams: Only these streams; a name that ends with ``/`` stands for all streams
            whose name starts with it. Empty for all.
        types: Only these event types; empty for all.
    """

    after: int = 0
    until: int | None = None
    streams: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def has_gaps(self) -> bool:
        """Whether events between the first and the last one may be left out."""
        return bool(self.streams or self.types)

    def includes(self, event: StoredEvent) -> bool:
        """Return whether an event of the range is exported."""
        if self.types and event.type not in self.types:
            return False
        return not self.streams or any(
            event.stream == name or (name[-1:] == "/" and event.stream.startswith(name))
            for name in self.streams
        )


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What an export has: the data of its first line.

    Attributes:
        format: The format of the export.
        complete: Whether it has every event that the log had.
        after: It has events after this position.
        previous: The hash of the event at that position; 64 zeros for 0.
        until: It has events up to this position.
        streams: As in ``Selection``.
        types: As in ``Selection``.
        position: The last event of the log when it was exported.
        hash: The hash of that event.
        anchor: An anchor at that position. Each event of an export that is not complete
            has the proof that it is in the log of this anchor. Empty if there is none.
    """

    format: str = FORMAT
    complete: bool
    after: int = 0
    previous: str = GENESIS
    until: int
    streams: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    position: int
    hash: str
    anchor: str = ""

    @property
    def selection(self) -> Selection:
        """Which events of the log it has."""
        return Selection(
            after=self.after, until=self.until, streams=self.streams, types=self.types
        )

    @property
    def has_gaps(self) -> bool:
        """Whether events between the first and the last one may be left out."""
        return self.selection.has_gaps

    @property
    def is_consistent(self) -> bool:
        """Whether it can be what an export has."""
        is_range = 0 <= self.after <= self.until <= self.position
        is_whole = not self.after and self.until == self.position and not self.has_gaps
        return (
            is_range
            and (is_whole or not self.complete)
            and (bool(self.after) or self.previous == GENESIS)
        )


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How an export ends: the data of its last line, which shows that it is whole.

    Attributes:
        events: How many events the export has.
        position: The position of the last one; 0 if there is none.
        hash: Its hash.
    """

    events: int = 0
    position: int = 0
    hash: str = GENESIS


def frame_line(data: Contents | Ending, *, source: str, time: datetime) -> bytes:
    """Return the first or the last line of an export, a CloudEvent too."""
    return (
        msgspec.json.encode(
            CloudEvent(
                specversion="1.0",
                id=new_id(),
                source=source,
                type=BEGIN if isinstance(data, Contents) else END,
                time=time_text(time),
                datacontenttype=JSON,
                data=msgspec.Raw(msgspec.json.encode(data)),
            )
        )
        + b"\n"
    )
