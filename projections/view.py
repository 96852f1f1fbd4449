"""The interface of projections: pure functions of the recorded events.

``apply`` is deterministic, without I/O and without a clock. Replaying the same
events gives the same bytes (``dump``), and a view that is loaded from a dump then
behaves exactly like the original.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, Self

from herdbook.events.recorded import RecordedEvent


class View(Protocol):
    """A projection of events.

    Attributes:
        name: Name of the view and of its snapshots.
        form: Format number of the dump and the rules; snapshots with another number
            are ignored.
        older_forms: Earlier formats that can still be loaded, with less detail. They
            are used where the events for a replay are in an archive that is missing.
    """

    name: ClassVar[str]
    form: ClassVar[int]
    older_forms: ClassVar[frozenset[int]]

    def apply(self, event: RecordedEvent) -> None:
        """Apply one event; events come in order of position."""
        ...

    def dump(self) -> bytes:
        """Serialize the view; equal views have equal bytes."""
        ...

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Load a view from a dump.

        Raises:
            msgspec.MsgspecError: The bytes are not a dump of this view.
        """
        ...
