"""The history of a log whose archives are not all there."""

from __future__ import annotations

import msgspec

from herdbook.projections.history import HistoryEntry


class AvailableHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The history, as far as it can be read.

    Attributes:
        entries: The events, oldest first.
        missing: The archive whose events are not among them, what is wrong with it and
            what to do; empty if all are.
    """

    entries: list[HistoryEntry]
    missing: str = ""
