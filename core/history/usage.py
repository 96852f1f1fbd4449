"""Use of the models between two positions of the log.

The view of use is folded when it is first needed, from its own snapshot, so that other
queries neither wait for it nor load it. Later queries read the new events only. A range
that begins or ends inside a period of the view reads the events of that part again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.errors import UnknownDimensionError
from herdbook.core.log.storage import Storage
from herdbook.core.logging import Logger
from herdbook.core.views import is_of_log, usage_at_boundary
from herdbook.events.errors import HerdbookError, StoreError
from herdbook.events.snapshots import StoredView
from herdbook.projections.usage.report import Usage, UsageDimension, UsageSums
from herdbook.projections.usage.view import USE_TYPES, Period, Range, UsageView

_log = Logger("herdbook.usage")

SAVE_EVERY: Final = 10_000
"""Events of the log after which the snapshot is saved again."""

_MOST_PARTS: Final = 4
"""Folded parts of periods that are kept: pages ask for the same ones repeatedly."""


def parse_dimensions(by: Iterable[str]) -> tuple[UsageDimension, ...]:
    """Return the dimensions with some names, each once.

    Raises:
        UnknownDimensionError: A name is not known.
    """
    known = tuple(UsageDimension)
    for name in by:
        if name not in known:
            raise UnknownDimensionError(name, known=known)
    return tuple(dict.fromkeys(UsageDimension(name) for name in by))


class UsageHistory:
    """The use of the models of a log.

    Args:
        storage: The log.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._view: UsageView | None = None
        self._saved = 0
        self._parts: dict[Range, UsageView] = {}
        # Queries take turns, so that the view does not change while one adds it up.
        self._turn = asyncio.Lock()

    async def read(
        self,
        by: Sequence[UsageDimension],
        *,
        node: str | None = None,
        after: int = 0,
        until: int | None = None,
    ) -> Usage:
        """Return the use in a range of positions.

        Args:
            by: What to group by.
            node: Only the models of this node; None for all.
            after: Only after this position.
            until: Only up to this position; None for the end of the log.

        Raises:
            CallerError: The answer has too many groups.
            StoreError: The log cannot be read.
        """
        async with self._turn:
            view = await self._caught_up()
            end = view.position if until is None else min(until, view.position)
            sums, time_slice = UsageSums(by, node), TimeSlice()
            for period in await self._periods(view, Range(after, end)):
                sums.add(period)
                await time_slice.checkpoint()
            rows = []
            for row in sums.rows():
                rows.append(row)
                await time_slice.checkpoint()
            return sums.result(rows, after=min(after, end), until=end)

    async def _periods(self, view: UsageView, wanted: Range) -> list[Period]:
        found, parts = view.between(wanted)
        for part in parts:
            folded = self._parts.pop(part, None) or await self._folded(part)
            self._parts[part] = folded
            found += folded.periods()
        while len(self._parts) > _MOST_PARTS:
            del self._parts[next(iter(self._parts))]
        return found

    async def _folded(self, part: Range) -> UsageView:
        """Return the use in a part of the log, which is read from end to end."""
        view, time_slice = UsageView(), TimeSlice()
        async for event in self._storage.store.read_all(
            after=part.after, limit=part.until - part.after
        ):
            view.apply(event)
            await time_slice.checkpoint()
        return view

    async def _caught_up(self) -> UsageView:
        if self._view is None:
            self._view = await self._restored()
            self._saved = self._view.position
        view, head = self._view, await self._storage.store.head()
        if head.position > view.position:
            await self._follow(view, head.position)
        grown = view.position - self._saved
        if grown >= SAVE_EVERY and not self._storage.read_only:
            await self._save(view, head.hash)
        return view

    async def _follow(self, view: UsageView, head: int) -> None:
        """Apply the uses after the position of the view, up to the head of the log."""
        time_slice = TimeSlice()
        async for event in self._storage.store.read_all(
            after=view.position, types=USE_TYPES
        ):
            if event.position > head:  # recorded since
                break
            view.apply(event)
            await time_slice.checkpoint()
        view.position = head

    async def _restored(self) -> UsageView:
        """Return the view of the snapshot; an empty one without a usable snapshot."""
        try:
            snapshot = await self._storage.snapshots.load_view(UsageView.name)
            if snapshot is None or snapshot.version != UsageView.form:
                return await usage_at_boundary(self._storage.store) or UsageView()
            if not await is_of_log(self._storage.store, snapshot):
                _log.warning("snapshot_unusable", reason="it belongs to another log")
                return await usage_at_boundary(self._storage.store) or UsageView()
            view, time_slice = UsageView(), TimeSlice()
            for _ in view.restore(snapshot.data):
                await time_slice.checkpoint()
        except (HerdbookError, msgspec.MsgspecError, ValueError) as error:
            _log.warning("snapshot_unusable", reason=str(error))
            return await usage_at_boundary(self._storage.store) or UsageView()
        view.position = snapshot.position
        return view

    async def _save(self, view: UsageView, hash_: str) -> None:
        pieces, time_slice = [], TimeSlice()
        for piece in view.pieces():
            pieces.append(piece)
            await time_slice.checkpoint()
        snapshot = StoredView(
            name=view.name,
            version=view.form,
            position=view.position,
            hash=hash_,
            data=b"".join(pieces),
        )
        try:
            await self._storage.snapshots.save_view(snapshot)
        except StoreError as error:  # a snapshot is a cache of the log
            _log.warning("snapshots_not_saved", reason=str(error))
        self._saved = view.position
