"""Hold back changes that are too frequent: a flapping server must not fill the log.

Each kind of change of a model has a budget. Within the budget, changes are recorded
as they are seen. After that they are held back until one has lasted for a while, or
until the hold ends; then the newest is recorded, with the number of omitted changes.
Each hold is twice as long as the one before. A whole hold without a change restores
the budget. Changes that are held back are late, never wrong: meanwhile the status is
marked as stale, and the recorded change is the server's current state.
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
"""Share of a hold after which a lasting change is recorded: 1 to 8 minutes."""

MAX_TRACKS: Final = 1000
"""Tracked changes beyond which idle ones are removed."""


SWEPT_EVERY: Final = 100
"""Refreshes between two removals of idle tracks."""


class Change(NamedTuple):
    """A change of a model or node.

    Attributes:
        subject: The model or node.
        kind: ``presence``, ``detection``, ``memory`` or ``version``.
        state: The new state; equal for changes that mean the same.
    """

    subject: str
    kind: str
    state: object


def change_of(name: str, facts: tuple[Fact, ...]) -> Change:
    """Return the change that facts describe, without values that always change."""
    first = facts[0]
    match first:
        case ModelLoaded() | RunnerChanged():
            runner = msgspec.structs.replace(first.runner, expires_at=None)
            return Change(name, "memory", (type(first), runner))
        case ModelUnloaded():  # the most likely reason can differ at each refresh
            return Change(name, "memory", type(first))
        case CapabilitiesDetected():
            return Change(name, "detection", first.digest)
        case _:
            return Change(name, "presence", first)


def with_count(facts: tuple[Fact, ...], held: HeldBack | None) -> tuple[Fact, ...]:
    """Return facts that include the number of changes omitted before them."""
    first, *others = facts
    if held is None or not isinstance(first, DriftFact):
        return facts
    return (msgspec.structs.replace(first, held_back=held), *others)


class _Track:
    """The recent changes of one kind.

    Attributes:
        recorded: When the last changes were recorded.
        hold_s: Seconds that changes are held back; None while there is a budget.
        state: The new state of the pending change.
        since: Since when that state is the same.
        changes: Changes since the last recorded one.
        refresh: The number of the last refresh that saw a change.
        seen_at: The time of that refresh.
        pending: Whether that refresh held the change back.
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
        """Return whether no change was seen during the hold, or the budget's time."""
        return now - self.seen_at >= (self.hold_s or BUDGET_WITHIN_S)


class Damper:
    """Decides which changes are recorded now.

    Args:
        clock: The clock.
        budget: Changes of one kind within ``BUDGET_WITHIN_S`` that are recorded
            immediately.
    """

    def __init__(self, clock: Clock, *, budget: int) -> None:
        self._clock = clock
        self._budget = budget
        self._tracks: dict[tuple[str, str], _Track] = {}
        self._refresh = 0
        self._held: dict[str, datetime] = {}
        self._held_before: dict[str, datetime] = {}

    def begin(self) -> None:
        """Start a refresh: a change that a refresh misses counts as new later."""
        self._refresh += 1
        self._held_before, self._held = self._held, {}
        if len(self._tracks) > MAX_TRACKS and self._refresh % SWEPT_EVERY == 0:
            now = self._clock.monotonic()
            self._tracks = {k: t for k, t in self._tracks.items() if not t.is_calm(now)}

    def is_pending(self, subject: str, kind: str) -> bool:
        """Return whether a change of that kind is held back."""
        track = self._tracks.get((subject, kind))
        return track is not None and track.pending

    def held(self) -> dict[str, datetime]:
        """Return the models and nodes with a change held back, and since when.

        Includes those of the previous refresh.
        """
        return self._held_before | self._held

    def may_record(self, change: Change) -> bool:
        """Return whether to record a change that this refresh sees."""
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
        """Note that a change was recorded."""
        now, track = self._clock.monotonic(), self._tracks[change.subject, change.kind]
        if track.hold_s is not None:
            track.hold_s = min(2 * track.hold_s, LONGEST_HOLD_S)
        track.recorded.append(now)
        track.state, track.changes, track.pending = None, 0, False

    def held_back(self, change: Change) -> HeldBack | None:
        """Return the number of changes omitted before one; None for none."""
        track = self._tracks[change.subject, change.kind]
        if track.hold_s is None or track.changes < 2:
            return None
        seconds = self._clock.monotonic() - track.recorded[-1]
        return HeldBack(changes=track.changes - 1, seconds=round(seconds, 3))
