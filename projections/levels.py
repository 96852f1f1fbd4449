"""Memory, disk space and requests over time, by model: the data of the charts.

The view keeps each change of a level with its time, and counts requests by minute. It
is small next to the log: most events change no level. It has no snapshot.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from herdbook.events import facts
from herdbook.events.recorded import RecordedEvent
from herdbook.events.streams import model_of, node_of

_IN_MEMORY: Final = (facts.ModelLoaded, facts.ReloadCompleted, facts.RunnerChanged)

LEVEL_TYPES: Final = frozenset(
    fact.__name__
    for fact in (
        *(facts.ModelDiscovered, facts.PullCompleted, facts.ModelUpdated),
        *(facts.ModelVanished, facts.ModelDeleted, facts.CapabilitiesDetected),
        *(*_IN_MEMORY, facts.ModelUnloaded),
        *(facts.ModelUsed, facts.NodeReached, facts.NodeLost),
    )
)
"""The event types that the view needs; others change nothing in it."""

KEPT_EVERY: Final = 1_000
"""Changes after which the levels are kept, so that a chart need not add up all."""

_MINUTE: Final = 60


class Level(StrEnum):
    """What is measured."""

    MEMORY = "memory"
    DISK = "disk"
    NODE = "node"  # 1 while the server does not answer


class Change(NamedTuple):
    """A change of a level.

    Attributes:
        at: Time of the event, seconds since 1970; never less than that before it.
        position: Position of the event.
        level: What changed.
        model: The model; empty for the node.
        group: Models of one group share the amount: a runner, or a file of weights.
        amount: The new amount, bytes.
    """

    at: float
    position: int
    level: Level
    model: str
    group: str
    amount: int


class Uses(NamedTuple):
    """Requests to a model within a minute.

    Attributes:
        at: Begin of the minute, seconds since 1970.
        position: Position of the first of them.
        model: The model.
        requests: Number of requests.
    """

    at: float
    position: int
    model: str
    requests: int


Levels = dict[tuple[Level, str], tuple[str, int]]
"""By level and model: the group, and the amount in bytes."""


class LevelsView:
    """Memory, disk space and requests of the models of one node.

    Args:
        node: The node.

    Attributes:
        position: Position up to which events were applied.
        changes: The changes, oldest first.
        uses: The requests by minute and model, oldest first.
        labels: The name of each group: that of the model that was first in it.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._levels: Levels = {}
        self._kept: list[Levels] = [{}]
        self._weights: dict[str, str] = {}  # by digest
        self._digests: dict[str, tuple[str, int]] = {}  # by model, with the size
        self._minutes: dict[str, int] = {}  # by model: index of its newest uses
        self._at = 0.0
        self.position = 0
        self.changes: list[Change] = []
        self.uses: list[Uses] = []
        self.labels: dict[str, str] = {}

    def apply(self, event: RecordedEvent) -> None:
        """Apply one event; events of other nodes and types change nothing."""
        self.position = event.position
        self._at = max(self._at, event.recorded_at.timestamp())
        key = model_of(event.stream)
        if key is not None:
            if key.node == self._node:
                self._apply_to_model(key.name, event)
        elif node_of(event.stream) == self._node:
            if event.type == facts.NodeLost.__name__:
                self._change(event, Level.NODE, "", "", 1)
            elif event.type == facts.NodeReached.__name__:
                self._change(event, Level.NODE, "", "", 0)

    def levels_before(self, at: float) -> tuple[int, Levels]:
        """Return kept levels, and the index of the first change after them.

        Args:
            at: The levels are of this time or earlier, seconds since 1970.
        """
        index = bisect_left(self.changes, at, key=lambda change: change.at)
        kept = index // KEPT_EVERY
        return kept * KEPT_EVERY, dict(self._kept[kept])

    def uses_after(self, at: float) -> Iterator[Uses]:
        """Return the requests by minute from a time on, seconds since 1970."""
        first = bisect_left(self.uses, at - _MINUTE, key=lambda uses: uses.at)
        for index in range(first, len(self.uses)):
            yield self.uses[index]

    def _apply_to_model(self, name: str, event: RecordedEvent) -> None:
        data = event.data
        if event.type in _REMOVES:
            self._digests.pop(name, None)
            self._change(event, Level.MEMORY, name, "", 0)
            self._change(event, Level.DISK, name, "", 0)
        elif event.type == facts.ModelUnloaded.__name__:
            self._change(event, Level.MEMORY, name, "", 0)
        elif isinstance(data, _IN_MEMORY):
            runner = data.runner
            self.labels.setdefault(runner.digest, runner.name)
            self._change(event, Level.MEMORY, name, runner.digest, runner.size_bytes)
        elif isinstance(data, _ARRIVES):
            size = 0 if data.remote_host else data.size_bytes
            self._digests[name] = (data.digest, size)
            self._set_disk(name, event)
        elif isinstance(data, facts.CapabilitiesDetected):
            if data.digest and data.weights:
                self._weights[data.digest] = data.weights
            self._set_disk(name, event)
        elif event.type == facts.ModelUsed.__name__:
            self._use(name, event, facts.uses_of(data))

    def _set_disk(self, name: str, event: RecordedEvent) -> None:
        digest, size = self._digests.get(name, ("", 0))
        if digest:
            group = f"disk {self._weights.get(digest, digest)}"
            self.labels.setdefault(group, name)
            self._change(event, Level.DISK, name, group, size)

    def _change(
        self, event: RecordedEvent, level: Level, model: str, group: str, amount: int
    ) -> None:
        before = self._levels.get((level, model), ("", 0))
        if before == (group, amount) or (not before[1] and not amount):
            return
        if amount:
            self._levels[level, model] = (group, amount)
        else:
            self._levels.pop((level, model), None)
        self.changes.append(
            Change(self._at, event.position, level, model, group, amount)
        )
        if len(self.changes) % KEPT_EVERY == 0:
            self._kept.append(dict(self._levels))

    def _use(self, name: str, event: RecordedEvent, count: int) -> None:
        minute = self._at // _MINUTE * _MINUTE
        index = self._minutes.get(name)
        if index is not None and self.uses[index].at == minute:
            uses = self.uses[index]
            self.uses[index] = uses._replace(requests=uses.requests + count)
            return
        self._minutes[name] = len(self.uses)
        self.uses.append(Uses(minute, event.position, name, count))


_REMOVES: Final = (facts.ModelVanished.__name__, facts.ModelDeleted.__name__)
_ARRIVES: Final = (facts.ModelDiscovered, facts.PullCompleted, facts.ModelUpdated)
