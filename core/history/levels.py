"""Memory, disk space and requests over time, folded from the log in columns of time.

The view is folded when it is first needed; later queries read the new events only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec

from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.log.storage import Storage
from herdbook.projections.levels import LEVEL_TYPES, Change, Level, Levels, LevelsView

_AT_ONCE: Final = 50
"""Changes between two checks of the time slice; each takes a few microseconds."""


class LevelKind(StrEnum):
    """What a chart shows."""

    MEMORY = "memory"
    DISK = "disk"
    REQUESTS = "requests"


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A part of time in a chart.

    Attributes:
        begin: When it begins.
        end: When it ends.
        at: The time of the amounts: when memory was highest, or of the last change of
            disk space. The begin for requests.
        parts: The amounts by label, bytes or requests.
        unknown: Whether the server did not answer at that time.
    """

    begin: datetime
    end: datetime
    at: datetime
    parts: Mapping[str, int]
    unknown: bool = False

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(self.parts.values())


class LevelsHistory:
    """Memory, disk space and requests of one node over time.

    Args:
        storage: The log.
        node: The node.
    """

    def __init__(self, storage: Storage, node: str) -> None:
        self._storage = storage
        self._view = LevelsView(node)
        self._turn = asyncio.Lock()

    async def read(
        self,
        kind: LevelKind,
        *,
        begin: datetime | None,
        end: datetime,
        columns: int,
        until: int,
        model: str | None = None,
    ) -> list[Column]:
        """Return the columns of a chart.

        Args:
            kind: What the chart shows.
            begin: When the chart begins; None for the first event that counts.
            end: When it ends.
            columns: Number of columns.
            until: Position of the last event that counts.
            model: Only this model.

        Raises:
            StoreError: The log cannot be read.
        """
        async with self._turn:
            view = await self._caught_up()
        first = begin.timestamp() if begin else _first(view, kind, model)
        last = end.timestamp()
        if first is None or last <= first:
            return []
        scale = _Scale(first, last, columns)
        if kind is LevelKind.REQUESTS:
            return await _requests(view, scale, until, model)
        return await _levels(view, Level(kind.value), scale, until, model)

    async def _caught_up(self) -> LevelsView:
        view, head = self._view, await self._storage.store.head()
        if head.position > view.position:
            time_slice = TimeSlice()
            async for event in self._storage.store.read_all(
                after=view.position, types=LEVEL_TYPES
            ):
                if event.position > head.position:  # recorded since
                    break
                view.apply(event)
                await time_slice.checkpoint()
            view.position = head.position
        return view


class _Scale:
    """The columns of a chart as parts of time."""

    def __init__(self, first: float, last: float, count: int) -> None:
        self.first, self.last, self.count = first, last, count
        self._length = (last - first) / count

    def column(self, at: float) -> int:
        """Return the column of a time."""
        return min(int((at - self.first) / self._length), self.count - 1)

    def begin(self, column: int) -> float:
        """Return when a column begins."""
        return self.first + column * self._length

    def make(
        self, column: int, at: float, parts: Mapping[str, int], *, unknown: bool = False
    ) -> Column:
        """Return a column with the given parts, at the time when they were highest."""
        begin, end = self.begin(column), self.begin(column + 1)
        return Column(
            begin=_time(begin),
            end=_time(end),
            at=_time(max(at, begin)),
            parts=parts,
            unknown=unknown,
        )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _first(view: LevelsView, kind: LevelKind, model: str | None) -> float | None:
    if kind is LevelKind.REQUESTS:
        found = (each.at for each in view.uses if model in (None, each.model))
    else:
        found = (
            each.at
            for each in view.changes
            if each.level == kind.value and model in (None, each.model)
        )
    return next(found, None)


async def _requests(
    view: LevelsView, scale: _Scale, until: int, model: str | None
) -> list[Column]:
    counts: list[dict[str, int]] = [{} for _ in range(scale.count)]
    time_slice = TimeSlice()
    for uses in view.uses_after(scale.first):
        await time_slice.checkpoint()
        if uses.position > until or uses.at > scale.last:
            break
        if model in (None, uses.model):
            parts = counts[scale.column(max(uses.at, scale.first))]
            parts[uses.model] = parts.get(uses.model, 0) + uses.requests
    return [
        scale.make(number, scale.begin(number), parts)
        for number, parts in enumerate(counts)
    ]


class _Sum:
    """The sum of one level over its groups, each with the largest of its models."""

    def __init__(self, level: Level, levels: Levels, model: str | None) -> None:
        self.level = level
        self._model = model
        self._groups: dict[str, dict[str, int]] = {}
        self._of: dict[str, str] = {}
        self.total = 0
        self.lost = bool(levels.get((Level.NODE, "")))
        for (kind, name), (group, amount) in levels.items():
            if kind is level:
                self._set(name, group, amount)

    def apply(self, change: Change) -> bool:
        """Apply a change; return whether it concerns this sum."""
        if change.level is Level.NODE:
            self.lost = change.amount > 0
            return False
        if change.level is not self.level:
            return False
        self._set(change.model, change.group, change.amount)
        return True

    def _set(self, name: str, group: str, amount: int) -> None:
        if self._model not in (None, name):
            return
        old = self._of.pop(name, None)
        if old is not None:
            members = self._groups[old]
            self.total -= max(members.values())
            del members[name]
            if members:
                self.total += max(members.values())
            else:
                del self._groups[old]
        if amount:
            self._of[name] = group
            members = self._groups.setdefault(group, {})
            self.total -= max(members.values(), default=0)
            members[name] = amount
            self.total += max(members.values())

    def parts(self, labels: Mapping[str, str]) -> dict[str, int]:
        """Return the amount of each group by its label."""
        parts: dict[str, int] = {}
        for group, members in self._groups.items():
            label = self._model or labels[group]
            parts[label] = parts.get(label, 0) + max(members.values())
        return parts


class _Columns:
    """The columns of a chart of one level, from left to right."""

    def __init__(self, scale: _Scale, now: _Sum, labels: Mapping[str, str]) -> None:
        self._scale = scale
        self._now = now
        self._labels = labels
        self.done: list[Column] = []
        self._unknown = now.lost
        self._takes_last = now.level is Level.DISK
        self._start(scale.first)

    def close(self, until: int) -> None:
        """Add the current column, and those up to a number in which nothing changes."""
        while len(self.done) < until:
            number = len(self.done)
            column = self._scale.make(
                number, self._at, self._parts, unknown=self._unknown
            )
            self.done.append(column)
            self._start(self._scale.begin(number + 1))

    def apply(self, change: Change) -> None:
        """Apply a change within the chart."""
        self.close(self._scale.column(change.at))
        counts = self._now.apply(change)
        self._unknown = self._unknown or self._now.lost
        # That weights are shared is known just after a model arrives: the last amount
        # of a column is right where the highest would count them twice.
        if counts and (self._takes_last or self._now.total > self._highest):
            self._start(change.at)

    def _start(self, at: float) -> None:
        self._at, self._highest = at, self._now.total
        self._parts = self._now.parts(self._labels)
        self._unknown = self._now.lost


async def _levels(
    view: LevelsView, level: Level, scale: _Scale, until: int, model: str | None
) -> list[Column]:
    """Return the columns of memory or disk space."""
    index, kept = view.levels_before(scale.first)
    now, time_slice = _Sum(level, kept, model), TimeSlice()
    columns: _Columns | None = None
    for number in range(index, len(view.changes)):
        change = view.changes[number]
        if number % _AT_ONCE == 0:
            await time_slice.checkpoint()
        if change.position > until or change.at > scale.last:
            break
        if change.at < scale.first:
            now.apply(change)
        else:
            columns = columns or _Columns(scale, now, view.labels)
            columns.apply(change)
    columns = columns or _Columns(scale, now, view.labels)
    columns.close(scale.count)
    return columns.done
