"""Compare a log with the true history: invented events and lost events.

The log is read with SQLite alone. The changes of presence and memory in it must be in
the journal in the same order. Some may be missing, because a refresh sees only the
state at its time.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from campaign.crowd.journal import Journal, Period, RunnerState

ARRIVALS = ("ModelDiscovered", "PullCompleted", "ModelUpdated", "UpdateUnchanged")
REMOVALS = ("ModelVanished", "ModelDeleted")
IN_MEMORY = ("ModelLoaded", "ReloadCompleted", "RunnerChanged")
FAILURES = ("LoadFailed", "ReloadFailed", "PullFailed", "UpdateFailed")
LOADS = ("/api/generate", "/api/embed", "/api/chat")
RELOAD = timedelta(minutes=2)
"""Maximum duration of a reload."""

CONTEXT = timedelta(seconds=30)
"""How much history before an invented event is reported."""

NEVER = ("illegal_transition", "busy", "conflict", "internal_error")
"""Failure codes that are about Herdbook itself and never about a model."""


class Event(NamedTuple):
    """One row of the log."""

    position: int
    name: str
    kind: str
    at: datetime
    data: dict[str, Any]
    cause: str
    actor: str

    def __str__(self) -> str:
        data = json.dumps(self.data)[:200]
        return (
            f"#{self.position} {self.kind} of {self.name} ({self.cause}, {self.actor})"
            f" {data}"
        )


class LogChecker:
    """Reads a log as it grows, and reports events that did not happen.

    Attributes:
        invented: Events that nothing in the journal explains, with the reason.
        counts: Number of events by type.
        tags: Number of events by purpose of a use or note of a change.
        drifts: Number of changes of each model that a refresh recorded.
    """

    def __init__(self, journal: Journal, *, node: str = "local") -> None:
        self._journal = journal
        self._prefix = f"model/{node}/"
        self._position = 0
        self._read: list[Event] = []
        self._present: Counter[str] = Counter()
        self._loaded: Counter[str] = Counter()
        self._started: dict[tuple[str, str], datetime] = {}
        self.invented: list[str] = []
        self.counts: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self.drifts: Counter[str] = Counter()

    def read(self, log: Path) -> None:
        """Check the new events of the log."""
        self._read = self._rows(log)
        for event in self._read:
            self.counts[event.kind] += 1
            self.drifts[event.name] += event.actor == "reconciler"
            self._check(event)

    def forget(self) -> None:
        """Forget what was matched, in the journal too, except the present state."""
        self._present.clear()
        self._loaded.clear()
        self.tags.clear()
        self._journal.forget()

    def _rows(self, log: Path) -> list[Event]:
        with closing(sqlite3.connect(log)) as connection:
            rows = connection.execute(
                "SELECT position, stream, type, occurred_at, data, cause, actor"
                " FROM events WHERE position > ? ORDER BY position",
                [self._position],
            ).fetchall()
        if rows:
            self._position = rows[-1][0]
        return [
            Event(
                position,
                stream.removeprefix(self._prefix),
                kind,
                datetime.fromisoformat(at),
                json.loads(data),
                cause,
                actor,
            )
            for position, stream, kind, at, data, cause, actor in rows
            if stream.startswith(self._prefix)
        ]

    def _check(self, event: Event) -> None:
        if event.kind in ARRIVALS:
            self._presence(event, event.data["digest"])
        elif event.kind in REMOVALS and event.data.get("digest", True) is not None:
            self._presence(event, None, ours=event.kind == "ModelDeleted")
        elif event.kind in IN_MEMORY:
            runner = event.data["runner"]
            held = RunnerState(runner["digest"], runner["context_length"])
            self._match(event, self._journal.memory, self._loaded, held)
        elif event.kind == "ModelUnloaded":
            self._match(event, self._journal.memory, self._loaded, None)
        elif event.kind.endswith("Started"):
            self._started[event.name, event.kind.removesuffix("Started")] = event.at
        elif event.kind in FAILURES:
            self._failure(event)
        elif event.kind == "ModelUsed":
            self.tags[event.data["purpose"]] += 1
        elif event.kind == "ConfigurationChanged":
            self.tags[event.data["note"]] += 1

    def _presence(
        self, event: Event, digest: str | None, *, ours: bool | None = None
    ) -> None:
        """Match an arrival or a removal; a removal must have the right cause."""
        at = (self._journal.presence, self._present)
        if ours is None:
            self._match(event, *at, digest)
        else:
            self._match(event, *at, digest, lambda one: one.is_by(ours=ours))

    def _match(
        self,
        event: Event,
        kept: dict[str, list[Period]],
        matched: Counter[str],
        state: object,
        fits: Callable[[Period], bool] = lambda _: True,
    ) -> bool:
        """Find the first period with a state, from the last match onwards."""
        periods: Sequence[Period] = kept.get(event.name) or [_ALWAYS_ABSENT]
        for index in range(matched[event.name], len(periods)):
            one = periods[index]
            if one.state == state and one.began <= event.at and fits(one):
                matched[event.name] = index
                return True
        self._invented(event, f"{state} never was the state")
        return False

    def _failure(self, event: Event) -> None:
        activity = event.kind.removesuffix("Failed")
        since = self._started.get((event.name, activity), event.at)
        if since == event.at:  # a reload is recorded as a whole when it has failed
            since = event.at - RELOAD
        loads = event.kind in ("LoadFailed", "ReloadFailed")
        paths = LOADS if loads else ("/api/pull",)
        asked = self._journal.asked(event.name, *paths, since=since, until=event.at)
        if event.data["kind"] in NEVER or not asked:
            self._invented(event, f"{len(asked)} requests for it")
        elif event.kind == "LoadFailed" and asked[-1].status == 200:
            answered = self._journal.date(asked[-1].until) or event.at
            if not self._journal.was_unloaded(event.name, answered):
                self._invented(event, "it was in memory all the time")

    def _invented(self, event: Event, reason: str) -> None:
        """Record an event that did not happen, with the history of that time."""
        since = event.at - CONTEXT
        lines = [(one.at, f"log: {one}") for one in self._rows_of(event.name, since)]
        lines += self._journal.history(event.name, since)
        history = [
            f"    {at:%H:%M:%S.%f} {line}"
            for at, line in sorted(lines)
            if at <= event.at
        ]
        self.invented.append("\n".join([f"{event}: {reason}", *history]))

    def _rows_of(self, name: str, since: datetime) -> list[Event]:
        return [one for one in self._read if one.name == name and one.at >= since]


_ALWAYS_ABSENT = Period(None, datetime.min.replace(tzinfo=UTC), frozenset())
