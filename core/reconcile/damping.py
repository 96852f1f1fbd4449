"""Hold back changes that come too often, so that a server that flaps fills no log.

Each kind of change of a model has a budget. While it lasts, changes are recorded as
they are seen. After that they are held back until one has lasted for a while, or
until a hold is over; then the newest is recorded, with the number of those that were
left out. Each hold is twice as long as the one before. A whole hold without a change
restores the budget. Held back means late, never wrong: meanwhile the status is marked
as stale, and what is recorded in the end is what the server shows.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from herdbook.core.clock import Clock
from herdbook.core.logging import Logger
from herdbook.events.facts import (
    CapabilitiesDetected,
    DriftFact,
    Fact,
    HeldBack,
    ModelLoaded,
    ModelUnloaded,
    RunnerChanged,
)

_log = Logger("herdbook.damping")

BUDGET_WITHIN_S: Final = 600.0
"""Seconds over which the changes of the budget are counted."""

FIRST_HOLD_S: Final = 480.0
LONGEST_HOLD_S: Final = 3840.0

LASTING_SHARE: Final = 1 / 8
"""Share of a hold after which a change that lasts is recorded: 1 to 8 minutes."""

KEPT: Final = 1000
"""Changing things that are remembered before idle ones are forgotten."""


SWEPT_EVERY: Final = 100
"""Refreshes between two sweeps of what is idle."""


class Change(NamedTuple):
    """A kind of change, and what it leads to.

    Attributes:
        subject: The model or node.
        kind: ``presence``, ``detection``, ``memory`` or ``version``.
        state: What it leads to: equal for changes that say the same.
    """

    subject: str
    kind: str
    state: object


def change_of(name: str, facts: tuple[Fact, ...]) -> Change:
    """Return the change that facts about a model make, without what always moves."""
    first = facts[0]
    match first:
        case ModelLoaded() | RunnerChanged():
            runner = msgspec.structs.replace(first.runner, expires_at=None)
            return Change(name, "memory", (type(first), runner))
        case ModelUnloaded():  # the likeliest reason may be another at each refresh
            return Change(name, "memory", type(first))
        case CapabilitiesDetected():
            return Change(name, "detection", first.digest)
        case _:
            return Change(name, "presence", first)


def with_count(facts: tuple[Fact, ...], held: HeldBack | None) -> tuple[Fact, ...]:
    """Return facts that say how many changes were left out before them."""
    first, *others = facts
    if held is None or not isinstance(first, DriftFact):
        return facts
    return (msgspec.structs.replace(first, held_back=held), *others)


class _Track:
    """The recent changes of one kind.

    Attributes:
        recorded: When the last ones were recorded.
        hold_s: How long changes are held back now; None while there is a budget.
        state: What the pending change leads to.
        since: Since when it is the same.
        changes: Changes since the last one that was recorded.
        refresh: The number of the last refresh that saw a change.
        seen_at: When that was.
        pending: Whether that refresh held it back.
    """

    def __init__(self, budget: int) -> None:
        self.recorded: deque[float] = deque(maxlen=budget)
        self.hold_s: float | None = None
        self.state: object = None
        self.since = 0.0
        self.changes = 0
        self.refresh = 0
        self.seen_at = 0.0
        self.pending = False

    def is_calm(self, now: float) -> bool:
        """Return whether no change was seen for as long as the hold, or the budget."""
        return now - self.seen_at >= (self.hold_s or BUDGET_WITHIN_S)


class Damper:
    """Decides which changes are recorded now.

    Args:
        clock: What time it is.
        budget: Changes of one kind within ``BUDGET_WITHIN_S`` that are recorded as
            they come.
    """

    def __init__(self, clock: Clock, *, budget: int) -> None:
        self._clock = clock
        self._budget = budget
        self._tracks: dict[tuple[str, str], _Track] = {}
        self._refresh = 0
        self._held: dict[str, datetime] = {}
        self._held_before: dict[str, datetime] = {}

    def begin(self) -> None:
        """Count a refresh: a change that one did not see is another one later."""
        self._refresh += 1
        self._held_before, self._held = self._held, {}
        if len(self._tracks) > KEPT and self._refresh % SWEPT_EVERY == 0:
            now = self._clock.monotonic()
            self._tracks = {k: t for k, t in self._tracks.items() if not t.is_calm(now)}

    def is_pending(self, subject: str, kind: str) -> bool:
        """Return whether a change of that kind was held back and still waits."""
        track = self._tracks.get((subject, kind))
        return track is not None and track.pending

    def held(self) -> dict[str, datetime]:
        """Return the models and nodes with a change held back, and since when.

        As this refresh and the one before saw them.
        """
        return self._held_before | self._held

    def may_record(self, change: Change) -> bool:
        """Return whether a change that this refresh sees is to be recorded now."""
        now, key = self._clock.monotonic(), (change.subject, change.kind)
        track = self._tracks.get(key)
        if track is None or track.is_calm(now):
            track = self._tracks[key] = _Track(self._budget)
        if track.state != change.state or track.refresh < self._refresh - 1:
            track.state, track.since = change.state, now
            track.changes += 1
        track.refresh, track.seen_at = self._refresh, now
        if track.hold_s is None:
            full = len(track.recorded) == self._budget
            if not full or track.recorded[0] <= now - BUDGET_WITHIN_S:
                return True
            track.hold_s = FIRST_HOLD_S
            _log.warning("changes_held_back", subject=change.subject, kind=change.kind)
        lasted = now - track.since >= track.hold_s * LASTING_SHARE
        track.pending = not lasted and now - track.recorded[-1] < track.hold_s
        if track.pending:
            age = timedelta(seconds=now - track.since)
            self._held[change.subject] = self._clock.now() - age
        return not track.pending

    def recorded(self, change: Change) -> None:
        """Take note that a change was recorded."""
        now, track = self._clock.monotonic(), self._tracks[change.subject, change.kind]
        if track.hold_s is not None:
            track.hold_s = min(2 * track.hold_s, LONGEST_HOLD_S)
        track.recorded.append(now)
        track.state, track.changes, track.pending = None, 0, False

    def held_back(self, change: Change) -> HeldBack | None:
        """Return how many changes were left out before one; None for none."""
        track = self._tracks[change.subject, change.kind]
        if track.hold_s is None or track.changes < 2:
            return None
        seconds = self._clock.monotonic() - track.recorded[-1]
        return HeldBack(changes=track.changes - 1, seconds=round(seconds, 3))
