"""The views at any position of the past, from the last snapshot before it.

The snapshots are a cache. They are made while the log grows; for a log without them,
by the first question about the past, or in the background. A snapshot that is damaged
or of another log is reported and dropped, and the one before it is used.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec

from herdbook.core.clock import Clock
from herdbook.core.concurrency.supervisor import BackgroundTask
from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.history.snapshot_retention import (
    SPACING,
    is_wanted,
    scale_of,
    spacing,
    surplus,
)
from herdbook.core.log.storage import Storage
from herdbook.core.logging import Logger
from herdbook.core.views import Check, Views, at_boundary, is_of_log
from herdbook.events.errors import CorruptLogError, StoreError
from herdbook.events.snapshots import KeptView, StoredView
from herdbook.projections.recommendation import RecommendationView
from herdbook.projections.statistics import DeferredStatistics, StatisticsView
from herdbook.projections.status_view import StatusView
from herdbook.projections.view import View

NAME: Final = "past"
"""Name of these snapshots among those that are kept in a log."""

_KINDS: Final[tuple[type[View], ...]] = (StatusView, RecommendationView, StatisticsView)

FORM: Final = zlib.crc32(" ".join(f"{k.name}:{k.form}" for k in _KINDS).encode())
"""Format number: another one for each combination of the formats of the views."""

FOLLOW_EVERY_S: Final = 1.0
"""Seconds between two checks of the growth of the log in the background."""

MOST_AT_ONCE: Final = 4 * SPACING
"""Events that are folded for snapshots outside of the background task: 0.1 s."""

_LEVEL: Final = 1
"""Level of zlib: 7 times smaller in 6 ms at 1,000 models; level 6 takes 12 ms for
another 10%."""

_CHUNK: Final = 1 << 18
"""Bytes that are compressed or decompressed in one step, in 1 to 2 ms."""

_log = Logger("herdbook.past")


class Past:
    """Answers what the views were at a position.

    Args:
        storage: The log, and the kept snapshots.
    """

    def __init__(self, storage: Storage) -> None:
        self._store = storage.store
        self._snapshots = storage.snapshots
        self._is_read_only = storage.read_only
        # One at a time, so that many questions delay other tasks no more than one does.
        self._working = asyncio.Lock()
        self._followed = 0
        self._unusable: set[int] = set()  # positions of snapshots that were not deleted

    async def views_at(self, position: int) -> Views:
        """Return the views at a position of the log.

        Where a stretch without snapshots is folded, they are added.

        Raises:
            CorruptLogError: The log cannot be read.
        """
        head = (await self._store.head()).position
        async with self._working:
            snapshots = await self._kept_snapshots()
            views = await self._nearest(snapshots, position)
            scale = scale_of(snapshots, head)
            if position - views.position <= 2 * spacing(head - position, scale):
                await views.replay(self._store, until=position)
                return views
        return await self._fold_to(views, position)

    async def follow(self, live: Views, *, most: int | None = None) -> None:
        """Bring the snapshots up to date with the log.

        Args:
            live: The views at the end of the log.
            most: Do nothing if more events than this would be folded.

        Raises:
            StoreError: The log cannot be read, or a snapshot cannot be saved.
        """
        if live.position - self._followed < SPACING:
            return
        snapshots, end = await self._kept_snapshots(), live.position
        behind = end - (snapshots[-1].position if snapshots else 0)
        if not is_wanted(snapshots, end, end, scale=scale_of(snapshots, end)):
            self._followed = end
        elif behind <= 2 * SPACING:
            await self._keep(live.copy())
            self._followed = end
        elif most is None or behind <= most:
            await self._fold_to(
                await self._nearest(snapshots, end), end // SPACING * SPACING
            )

    def following(self, live: Views, clock: Clock) -> BackgroundTask:
        """Return a task that keeps the snapshots up to date with the log.

        Args:
            live: The views at the end of the log.
            clock: Measures the interval.
        """

        async def follow(task: BackgroundTask) -> None:
            while True:
                await clock.sleep(FOLLOW_EVERY_S)
                await self.follow(live)
                task.succeeded()

        return BackgroundTask("past_snapshots", follow, clock=clock)

    async def _fold_to(self, views: Views, until: int) -> Views:
        """Fold the events up to a position, and add the missing snapshots on the way.

        Concurrent callers take turns after each snapshot, and use each other's.
        """
        saves = not self._is_read_only
        while views.position < until:
            async with self._working:
                head = (await self._store.head()).position
                snapshots = await self._kept_snapshots()
                nearest = _last_before(snapshots, until)
                if nearest is not None and nearest.position > views.position:
                    views = await self._nearest(snapshots, until)
                scale = scale_of(snapshots, head)
                width = spacing(head - views.position, scale)
                stop = (views.position // width + 1) * width
                before = views.position
                await views.replay(self._store, until=min(stop, until))
                if (
                    saves
                    and views.position == stop
                    and is_wanted(snapshots, stop, head, scale=scale)
                ):
                    try:
                        await self._keep(views)
                    except StoreError as error:  # the answer does not need it
                        saves = False
                        _log.warning("snapshots_not_saved", reason=str(error))
            if views.position == before:
                break  # the log ends before its head
        return views

    async def _kept_snapshots(self) -> list[KeptView]:
        """Return the snapshots of this form, by position."""
        kept = await self._snapshots.kept_views(NAME)
        return [
            snapshot
            for snapshot in kept
            if snapshot.version == FORM and snapshot.position not in self._unusable
        ]

    async def _nearest(self, snapshots: Sequence[KeptView], position: int) -> Views:
        """Return the views of the last usable snapshot up to a position."""
        boundary = await at_boundary(self._store, position)
        # The state at the boundary needs no archive, and nothing before it is nearer.
        least = boundary.position if boundary else 0
        snapshots = [snapshot for snapshot in snapshots if snapshot.position > least]
        while (snapshot := _last_before(snapshots, position)) is not None:
            try:
                views = await self._load(snapshot)
            except (CorruptLogError, ValueError, msgspec.MsgspecError) as error:
                _log.warning(
                    "snapshot_unusable", position=snapshot.position, reason=str(error)
                )
                self._unusable.add(snapshot.position)
                await self._drop([snapshot])
            else:
                if views is not None:
                    return views
            snapshots.remove(snapshot)
        return boundary or Views()

    async def _load(self, snapshot: KeptView) -> Views | None:
        """Load a snapshot; None if it was deleted meanwhile.

        Raises:
            CorruptLogError: It is damaged.
            ValueError: It is of another log or cannot be decompressed.
            msgspec.MsgspecError: The dump of a view cannot be read.
        """
        stored = await self._snapshots.load_kept_view(
            NAME, version=snapshot.version, position=snapshot.position
        )
        if stored is None:
            return None
        if not await is_of_log(self._store, stored):
            raise ValueError("the snapshot belongs to another log")
        views, time_slice = Views(), TimeSlice()
        status, recommendation, statistics = await unpack(stored.data)
        await time_slice.checkpoint()
        views.status = StatusView.load(status)
        await time_slice.checkpoint()
        views.recommendation = RecommendationView.load(recommendation)
        views.statistics = DeferredStatistics(bytes(statistics))
        views.position, views.hash = stored.position, stored.hash
        return views

    async def _keep(self, views: Views) -> None:
        """Save a snapshot, and delete those that are not needed any more."""
        if not views.is_exact:
            return
        time_slice, dumps = TimeSlice(), []
        for view in (views.status, views.recommendation, views.statistics):
            dumps.append(view.dump())
            await time_slice.checkpoint()
        await self._snapshots.keep_view(
            StoredView(
                name=NAME,
                version=FORM,
                position=views.position,
                hash=views.hash,
                data=await pack(dumps),
            )
        )
        self._unusable.discard(views.position)
        head = (await self._store.head()).position
        kept = await self._snapshots.kept_views(NAME)
        snapshots = [snapshot for snapshot in kept if snapshot.version == FORM]
        unneeded = surplus(snapshots, head, scale=scale_of(snapshots, head))
        # Snapshots of another version of Herdbook are replaced step by step.
        unneeded += [
            snapshot
            for snapshot in kept
            if snapshot.version != FORM and snapshot.position <= views.position
        ]
        await self._drop(unneeded)

    async def _drop(self, snapshots: Sequence[KeptView]) -> None:
        if self._is_read_only:
            return
        try:
            for version in {snapshot.version for snapshot in snapshots}:
                positions = [
                    one.position for one in snapshots if one.version == version
                ]
                await self._snapshots.drop_views(
                    NAME, version=version, positions=positions
                )
        except StoreError as error:  # they remain unused
            _log.warning("snapshots_not_deleted", reason=str(error))


async def checks(storage: Storage) -> list[Check]:
    """Return a check for each snapshot, for ``views.check``."""
    kept = await storage.snapshots.kept_views(NAME)
    return [
        (snapshot.position, partial(_compare, storage, snapshot))
        for snapshot in kept
        if snapshot.version == FORM
    ]


async def _compare(storage: Storage, snapshot: KeptView, replayed: Views) -> str:
    """Describe how a snapshot differs from a replay; empty if it does not."""
    try:
        stored = await storage.snapshots.load_kept_view(
            NAME, version=snapshot.version, position=snapshot.position
        )
        unpacked = () if stored is None else await unpack(stored.data)
    except (CorruptLogError, ValueError) as error:
        return str(error)
    if stored is None or (
        stored.hash == replayed.hash
        and [bytes(dump) for dump in unpacked]
        == [
            replayed.status.dump(),
            replayed.recommendation.dump(),
            replayed.statistics.dump(),
        ]
    ):
        return ""
    return f"the snapshot of the past at #{snapshot.position} differs from a replay"


async def pack(dumps: Sequence[bytes]) -> bytes:
    """Compress the dumps of the views, in time slices."""
    compressor, time_slice = zlib.compressobj(_LEVEL), TimeSlice()
    raw, parts = msgspec.msgpack.encode(list(dumps)), []
    for start in range(0, len(raw), _CHUNK):
        parts.append(compressor.compress(raw[start : start + _CHUNK]))
        await time_slice.checkpoint()
    return b"".join([*parts, compressor.flush()])


async def unpack(data: bytes) -> list[memoryview]:
    """Return the dumps of the views, in time slices.

    They are parts of one buffer: each copy of 2 MB would take 1 to 2 ms.

    Raises:
        ValueError: The data is damaged.
    """
    decompressor, time_slice, raw = zlib.decompressobj(), TimeSlice(), bytearray()
    try:
        while data and not decompressor.eof:
            raw += decompressor.decompress(data, _CHUNK)
            data = decompressor.unconsumed_tail
            await time_slice.checkpoint()
        dumps = msgspec.msgpack.decode(raw, type=list[memoryview])
    except (zlib.error, msgspec.MsgspecError) as error:
        raise ValueError(f"the snapshot cannot be read: {error}") from error
    if len(dumps) != len(_KINDS):
        raise ValueError("the snapshot has different views")
    return dumps


def _last_before(snapshots: Sequence[KeptView], position: int) -> KeptView | None:
    """Return the last snapshot up to a position."""
    return next((one for one in reversed(snapshots) if one.position <= position), None)
