"""The views of a log: applied, saved and restored together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

import msgspec

from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.logging import Logger
from herdbook.events.archive_file import ArchiveMissingError
from herdbook.events.errors import CorruptLogError, HerdbookError
from herdbook.events.recorded import GENESIS, RecordedEvent
from herdbook.events.snapshots import StoredView, ViewStore
from herdbook.events.store import ArchivedStore, EventStore
from herdbook.projections.recommendation import RecommendationView
from herdbook.projections.statistics import StatisticsView
from herdbook.projections.status_view import StatusView
from herdbook.projections.usage.view import UsageView
from herdbook.projections.view import View

CHECK_EVERY: Final = 32
"""Events between two checks of the time slice, which takes as long as a small event;
so many events take about 0.2 ms."""

_log = Logger("herdbook.views")


class Views:
    """Status, recommendation and statistics at one position of the log.

    Attributes:
        status: Status of each model and node.
        recommendation: Order of the models per role.
        statistics: Statistics per model.
        position: Position of the last applied event.
        hash: Hash of that event.
        saved_position: Position of the newest snapshot.
        is_exact: Whether they are those of a replay of all events. If not, they are
            never saved.
    """

    def __init__(self) -> None:
        self.status = StatusView()
        self.recommendation = RecommendationView()
        self.statistics = StatisticsView()
        self.position = 0
        self.hash = GENESIS
        self.saved_position = 0
        self.is_exact = True

    def apply(self, event: RecordedEvent) -> None:
        """Apply the next event."""
        self.status.apply(event)
        self.recommendation.apply(event)
        self.statistics.apply(event)
        self.position, self.hash = event.position, event.hash

    async def replay(
        self,
        store: EventStore,
        *,
        until: int | None = None,
        follow: Callable[[RecordedEvent], None] | None = None,
    ) -> None:
        """Apply the events after the current position, up to a position.

        Args:
            store: The log.
            until: The last position; None for the end of the log.
            follow: Called with each event after it was applied.
        """
        limit = None if until is None else max(until - self.position, 0)
        time_slice = TimeSlice()
        async for event in store.read_all(after=self.position, limit=limit):
            self.apply(event)
            if follow is not None:
                follow(event)
            if event.position % CHECK_EVERY == 0:
                await time_slice.checkpoint()

    def copy(self) -> Views:
        """Return a copy that later events do not change."""
        copied = Views()
        copied.status = StatusView.copy_of(self.status)
        copied.recommendation = RecommendationView.copy_of(self.recommendation)
        copied.statistics = StatisticsView.copy_of(self.statistics)
        copied.position, copied.hash = self.position, self.hash
        copied.saved_position, copied.is_exact = self.saved_position, self.is_exact
        return copied


_KINDS: Final[tuple[type[View], ...]] = (StatusView, RecommendationView, StatisticsView)


async def save(views: Views, store: ViewStore) -> None:
    """Save a snapshot of each view, all at the same position."""
    if not views.is_exact:
        return
    current: tuple[View, ...] = (views.status, views.recommendation, views.statistics)
    for snapshot in [_stored(view, views) for view in current]:
        await store.save_view(snapshot)
        views.saved_position = snapshot.position


async def restore(store: EventStore, snapshots: ViewStore) -> Views:
    """Return the views at the end of the log.

    Snapshots shorten the replay. If one is missing, damaged, of another version or of
    another log, a warning is logged and the whole log is replayed.
    """
    try:
        views = await _from_snapshots(store, snapshots)
    except (
        _UnusableSnapshotError,
        HerdbookError,
        msgspec.MsgspecError,
        ValueError,
    ) as error:
        _log.warning("snapshot_unusable", reason=str(error))
        views = None
    views = views or await at_boundary(store) or Views()
    await views.replay(store)
    return views


async def at_boundary(
    store: EventStore, position: int | None = None, *, exact: bool = False
) -> Views | None:
    """Return the views at the end of an archive, from the log itself.

    None if there is no archive, or if the log has them in another format or damaged;
    then the archives are replayed. If one of them is missing, an older format counts.

    Args:
        store: The log.
        position: The last archive that ends here or before; None for the last one.
        exact: Whether an older format never counts.
    """
    stored = await _stored_at_boundary(store, position)
    is_exact = all(kind.name in stored for kind in _KINDS)
    if not is_exact and not exact and await _is_archive_missing(store):
        stored = await _stored_at_boundary(store, position, older=True)
    if any(kind.name not in stored for kind in _KINDS):
        return None
    status, recommendation, statistics = (stored[kind.name] for kind in _KINDS)
    views = Views()
    views.status = StatusView.load(status.data)
    views.recommendation = RecommendationView.load(recommendation.data)
    views.statistics = StatisticsView.load(statistics.data)
    views.position, views.hash = status.position, status.hash
    views.is_exact = is_exact
    return views


async def usage_at_boundary(store: EventStore) -> UsageView | None:
    """Return the use of the models at the end of the last archive; see above."""
    stored = (await _stored_at_boundary(store)).get(UsageView.name)
    if stored is None:
        return None
    view = UsageView.load(stored.data)
    view.position = stored.position
    return view


async def _stored_at_boundary(
    store: EventStore, position: int | None = None, *, older: bool = False
) -> dict[str, StoredView]:
    if not isinstance(store, ArchivedStore):
        return {}
    try:
        stored = await store.boundary_views(position)
    except CorruptLogError as error:
        _log.warning("snapshot_unusable", reason=str(error))
        return {}
    kinds: tuple[type[View], ...] = (*_KINDS, UsageView)
    forms = {
        kind.name: {kind.form, *(kind.older_forms if older else ())} for kind in kinds
    }
    readable = [view for view in stored if view.version in forms.get(view.name, ())]
    return {view.name: view for view in sorted(readable, key=lambda one: one.version)}


async def at_archive(store: EventStore, archive: int) -> tuple[Views, list[StoredView]]:
    """Replay the views up to a new boundary.

    Args:
        store: The log.
        archive: Position of the boundary.

    Returns:
        The views, and the state of each to keep.
    """
    views = await at_boundary(store, exact=True)
    usage = await usage_at_boundary(store)
    if views is None or usage is None:
        views, usage = Views(), UsageView()
    await views.replay(store, until=archive, follow=usage.apply)
    usage.position = views.position
    current = (views.status, views.recommendation, views.statistics, usage)
    return views, [_stored(view, views) for view in current]


def _stored(view: View, views: Views) -> StoredView:
    """Return a view as it is stored, at the position of all of them."""
    return StoredView(
        name=view.name,
        version=view.form,
        position=views.position,
        hash=views.hash,
        data=view.dump(),
    )


class _UnusableSnapshotError(Exception):
    """A snapshot that cannot be used."""


async def _from_snapshots(store: EventStore, snapshots: ViewStore) -> Views | None:
    found = [await snapshots.load_view(kind.name) for kind in _KINDS]
    if not any(found):
        return None
    stored = [snapshot for snapshot in found if snapshot is not None]
    first = stored[0]
    if len(stored) < len(_KINDS):
        raise _UnusableSnapshotError("a snapshot is missing")
    if any(
        snapshot.version != kind.form
        for snapshot, kind in zip(stored, _KINDS, strict=True)
    ):
        raise _UnusableSnapshotError("a snapshot has another version")
    if any(snapshot.position != first.position for snapshot in stored):
        raise _UnusableSnapshotError("the snapshots have different positions")
    if not await is_of_log(store, first):
        raise _UnusableSnapshotError("the snapshots belong to another log")
    views = Views()
    views.status = StatusView.load(stored[0].data)
    views.recommendation = RecommendationView.load(stored[1].data)
    views.statistics = StatisticsView.load(stored[2].data)
    views.position = views.saved_position = first.position
    views.hash = first.hash
    return views


async def is_of_log(store: EventStore, snapshot: StoredView) -> bool:
    """Return whether the log has the event at which a snapshot was taken."""
    async for event in store.read_stored(after=snapshot.position - 1, limit=1):
        return event.position == snapshot.position and event.hash == snapshot.hash
    return False


Check: TypeAlias = tuple[int, Callable[[Views], Awaitable[str]]]
"""A position, and a check of the replayed views there: a message, empty if correct."""


async def check(
    store: EventStore, snapshots: ViewStore, more: Sequence[Check] = ()
) -> list[str]:
    """Compare the snapshots with a replay; return a message for each difference.

    Args:
        store: The log.
        snapshots: The newest snapshots.
        more: Further checks of the replayed views.

    Raises:
        CorruptLogError: The log itself cannot be replayed.
    """
    views, usage = Views(), UsageView()
    if is_missing := await _is_archive_missing(store):
        views = await at_boundary(store, exact=True) or views
        usage = await usage_at_boundary(store) or usage
    findings, kept = await _newest_snapshots(snapshots)
    if is_missing and not views.position:
        return findings  # a replay needs the archive, as verify says
    if not is_missing:
        kept += (await _stored_at_boundary(store)).values()
    # The fold of usage takes as long as the others; only its own snapshots need it.
    follow = usage.apply if any(one.name == usage.name for one in kept) else None
    checks: list[Check] = [
        *((one.position, partial(_compare, one, usage)) for one in kept),
        *more,
    ]
    checks = [check for check in checks if check[0] >= views.position]
    for position, compare in sorted(checks, key=lambda one: one[0]):
        await views.replay(store, until=position, follow=follow)
        if message := await compare(views):
            findings.append(message)
    return findings


async def _newest_snapshots(
    snapshots: ViewStore,
) -> tuple[list[str], list[StoredView]]:
    """Return the newest snapshots, and what is wrong with those that are damaged."""
    findings: list[str] = []
    kept: list[StoredView] = []
    kinds: tuple[type[View], ...] = (*_KINDS, UsageView)
    for kind in kinds:
        try:
            snapshot = await snapshots.load_view(kind.name)
        except CorruptLogError as error:
            findings.append(str(error))
            continue
        if snapshot is not None and snapshot.version == kind.form:
            kept.append(snapshot)
    return findings, kept


async def _is_archive_missing(store: EventStore) -> bool:
    if not isinstance(store, ArchivedStore):
        return False
    try:
        for archive in await store.archives():
            store.path_of(archive)
    except ArchiveMissingError:
        return True
    return False


async def _compare(snapshot: StoredView, usage: UsageView, replayed: Views) -> str:
    views = (replayed.status, replayed.recommendation, replayed.statistics, usage)
    by_name: dict[str, View] = {view.name: view for view in views}
    data = by_name[snapshot.name].dump()
    if replayed.hash == snapshot.hash and data == snapshot.data:
        return ""
    return f"the snapshot of {snapshot.name} differs from a replay"
