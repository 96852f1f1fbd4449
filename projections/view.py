"""What a projection is: a pure fold of recorded events into a view.

``apply`` is deterministic and does neither I/O nor look at a clock. Replaying
the same events gives the same bytes (``dump``), and a view that was loaded from
its dump goes on exactly as the one that was dumped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Protocol, Self

from herdbook.events.recorded import RecordedEvent


class View(Protocol):
    """A read model folded from events.

    Attributes:
        name: Its name, under which snapshots of it are kept.
        form: Number of the form of its dump and of the rules of its fold; a
            snapshot with another number is useless.
    """

    name: ClassVar[str]
    form: ClassVar[int]

    def apply(self, event: RecordedEvent) -> None:
        """Take in one event; events come in order of position."""
        ...

    def dump(self) -> bytes:
        """Return the whole view: equal views have equal bytes."""
        ...

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Return the view that was dumped.

        Raises:
            msgspec.MsgspecError: The bytes are not such a dump.
        """
        ...


def fold(view: View, events: Iterable[RecordedEvent]) -> None:
    """Take in events, one after another."""
    for event in events:
        view.apply(event)
