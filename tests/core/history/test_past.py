"""The past from snapshots is the past from a replay."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from benchmarks.dataset import fill, open_manager
from herdbook.core import ModelRole
from herdbook.core.clock import SystemClock
from herdbook.core.history.past import FORM, MOST_AT_ONCE, NAME, Past
from herdbook.core.history.snapshot_retention import SPACING
from herdbook.core.log.storage import Storage
from herdbook.core.views import Views
from herdbook.events.errors import StoreFullError
from herdbook.events.findings import Kind
from herdbook.events.snapshots import KeptView, SnapshotStore, StoredView

EVENTS = 4 * SPACING + 100
MODELS = 5
POSITIONS = (0, 1, SPACING - 1, SPACING, SPACING + 1, 3 * SPACING + 7, EVENTS)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a log without snapshots."""
    path = tmp_path_factory.mktemp("past") / "herd.db"
    asyncio.run(fill(path, EVENTS, MODELS))
    return path


@pytest.fixture
def log(filled: Path, tmp_path: Path) -> Path:
    path = tmp_path / "herd.db"
    path.write_bytes(filled.read_bytes())
    return path


def dumps(views: Views) -> Sequence[object]:
    kinds = (views.status, views.recommendation, views.statistics)
    return views.position, views.hash, [view.dump() for view in kinds]


async def assert_like_a_replay(storage: Storage) -> None:
    """Assert that all positions have the views of a replay."""
    for position in POSITIONS:
        replayed = Views()
        await replayed.replay(storage.store, until=position)
        assert dumps(await Past(storage).views_at(position)) == dumps(replayed)


async def snapshots_of(storage: Storage) -> Sequence[KeptView]:
    return await storage.snapshots.kept_views(NAME)


async def test_first_query_makes_the_snapshots_without_changing_answers(
    log: Path,
) -> None:
    async with Storage.open(log, SystemClock()) as storage:
        assert not await snapshots_of(storage)
        await Past(storage).views_at(EVENTS)
        positions = [snapshot.position for snapshot in await snapshots_of(storage)]
        assert positions == [n * SPACING for n in (1, 2, 3, 4)]
        await assert_like_a_replay(storage)


async def test_concurrent_queries_make_each_snapshot_once(log: Path) -> None:
    async with Storage.open(log, SystemClock()) as storage:
        past = Past(storage)
        found = await asyncio.gather(*(past.views_at(EVENTS - n) for n in range(4)))
        assert [views.position for views in found] == [EVENTS - n for n in range(4)]
        assert len(await snapshots_of(storage)) == 4


async def test_deleting_the_snapshots_changes_no_answer(log: Path) -> None:
    async with Storage.open(log, SystemClock()) as storage:
        past = Past(storage)
        before = dumps(await past.views_at(3 * SPACING + 7))
        positions = [snapshot.position for snapshot in await snapshots_of(storage)]
        await storage.snapshots.drop_views(NAME, version=FORM, positions=positions)
        assert dumps(await past.views_at(3 * SPACING + 7)) == before


BROKEN = {
    "changed": "UPDATE kept_views SET data = x'00' WHERE position = :position",
    "empty": "UPDATE kept_views SET data = x'' WHERE position = :position",
    "checksum": "UPDATE kept_views SET checksum = '' WHERE position = :position",
    "hash": "UPDATE kept_views SET hash = 'f' WHERE position = :position",
}


@pytest.mark.parametrize("statement", BROKEN.values(), ids=BROKEN)
async def test_damaged_snapshot_is_reported_and_not_used(
    log: Path, statement: str
) -> None:
    async with Storage.open(log, SystemClock()) as storage:
        await Past(storage).views_at(EVENTS)
    with sqlite3.connect(log) as connection:
        connection.execute(statement, {"position": 3 * SPACING})
    connection.close()

    async with open_manager(log) as manager:
        findings = (await manager.verify()).findings
    assert [finding.kind for finding in findings] == [Kind.SNAPSHOT]
    assert str(3 * SPACING) in findings[0].message

    async with Storage.open(log, SystemClock()) as storage:
        with capture_logs() as logs:
            await assert_like_a_replay(storage)
        assert [entry["event"] for entry in logs] == ["snapshot_unusable"]
        assert len(await snapshots_of(storage)) == 3  # a gap that is no slower than two


async def test_readable_snapshot_with_other_content_is_a_finding(log: Path) -> None:
    async with Storage.open(log, SystemClock()) as storage:
        past, snapshots = Past(storage), storage.snapshots
        await past.views_at(EVENTS)
        older = await snapshots.load_kept_view(NAME, version=FORM, position=SPACING)
        snapshot = await snapshots.load_kept_view(
            NAME, version=FORM, position=2 * SPACING
        )
        assert older is not None
        assert snapshot is not None
        await snapshots.keep_view(
            StoredView(
                name=NAME,
                version=FORM,
                position=snapshot.position,
                hash=snapshot.hash,
                data=older.data,
            )
        )
    async with open_manager(log) as manager:
        (finding,) = (await manager.verify()).findings
    assert finding.message == (
        f"the snapshot of the past at #{2 * SPACING} differs from a replay"
    )


@pytest.mark.parametrize("data", [b"", b"\x78\x9c\x03\x00\x00\x00\x00\x01", b"x" * 99])
async def test_snapshot_that_cannot_be_read_is_not_used(log: Path, data: bytes) -> None:
    async with Storage.open(log, SystemClock()) as storage:
        past, snapshots = Past(storage), storage.snapshots
        await past.views_at(EVENTS)
        snapshot = await snapshots.load_kept_view(
            NAME, version=FORM, position=2 * SPACING
        )
        assert snapshot is not None
        await snapshots.keep_view(
            StoredView(
                name=NAME,
                version=FORM,
                position=snapshot.position,
                hash=snapshot.hash,
                data=data,
            )
        )
        with capture_logs() as logs:
            views = await past.views_at(2 * SPACING + 1)
        assert views.position == 2 * SPACING + 1
        assert [entry["event"] for entry in logs] == ["snapshot_unusable"]


async def test_snapshots_of_another_version_are_replaced(log: Path) -> None:
    async with Storage.open(log, SystemClock()) as storage:
        foreign = StoredView(
            name=NAME, version=FORM + 1, position=SPACING, hash="a" * 64, data=b"x"
        )
        await storage.snapshots.keep_view(foreign)
        await assert_like_a_replay(storage)
        assert {snapshot.version for snapshot in await snapshots_of(storage)} == {FORM}


async def test_growing_log_adds_snapshots_from_its_views(tmp_path: Path) -> None:
    path = tmp_path / "herd.db"
    await fill(path, SPACING - 100, MODELS)
    async with open_manager(path) as manager:
        assert not await snapshots_of(manager._storage)
        for number in range(2):
            await asyncio.gather(
                *(
                    manager.mark_used(f"model-{n % MODELS}:latest")
                    for n in range(100 + number)
                )
            )
    async with Storage.open(path, SystemClock()) as storage:
        (snapshot,) = await snapshots_of(storage)
        assert snapshot.position == SPACING + 101
        await _assert_snapshot_is_right(storage, snapshot)


async def _assert_snapshot_is_right(storage: Storage, snapshot: KeptView) -> None:
    replayed = Views()
    await replayed.replay(storage.store, until=snapshot.position)
    assert dumps(await Past(storage).views_at(snapshot.position)) == dumps(replayed)


async def test_closing_does_not_make_many_snapshots(tmp_path: Path) -> None:
    path = tmp_path / "herd.db"
    await fill(path, MOST_AT_ONCE + SPACING, MODELS)
    async with open_manager(path):
        pass
    async with Storage.open(path, SystemClock()) as storage:
        assert not await snapshots_of(storage)
        views = Views()
        await views.replay(storage.store)
        await Past(storage).follow(views)  # as the background task does
        assert len(await snapshots_of(storage)) == MOST_AT_ONCE // SPACING + 1


async def test_answers_of_a_manager_use_the_snapshots(log: Path) -> None:
    async with open_manager(log) as manager:
        first = await manager.as_of(3 * SPACING)
        again = await manager.as_of(3 * SPACING)
        assert first.statuses() == again.statuses()
        assert first.recommend(ModelRole.GENERAL) == again.recommend(ModelRole.GENERAL)
        difference = await manager.diff(SPACING + 3, 3 * SPACING)
        assert (difference.since, difference.until) == (SPACING + 3, 3 * SPACING)


async def test_log_in_memory_can_be_queried_at_past_times() -> None:
    async with Storage.open(":memory:", SystemClock()) as storage:
        assert dumps(await Past(storage).views_at(0)) == dumps(Views())


async def test_read_only_log_is_answered_without_snapshots(log: Path) -> None:
    async with Storage.open(log, SystemClock()) as storage:
        with capture_logs() as logs:
            await assert_like_a_replay(storage._replace(read_only=True))
        assert logs == []
        assert not await snapshots_of(storage)


async def test_damaged_snapshot_that_cannot_be_deleted_is_reported_once(
    log: Path,
) -> None:
    async with Storage.open(log, SystemClock()) as storage:
        await Past(storage).views_at(EVENTS)
    with sqlite3.connect(log) as connection:
        connection.execute("UPDATE kept_views SET data = x'00'")
    connection.close()
    async with Storage.open(log, SystemClock()) as storage:
        past = Past(storage._replace(read_only=True))
        with capture_logs() as logs:
            for position in (EVENTS, 3 * SPACING + 1, EVENTS):
                assert (await past.views_at(position)).position == position
        assert [entry["event"] for entry in logs] == ["snapshot_unusable"] * 4


class FullSnapshots:
    """Kept snapshots on a full disk."""

    def __init__(self) -> None:
        self.attempts = 0

    async def kept_views(self, _: str) -> list[KeptView]:
        return []

    async def keep_view(self, _: StoredView) -> None:
        self.attempts += 1
        raise StoreFullError("herd.db", "cannot grow: the disk is full")


async def test_full_disk_loses_the_snapshots_but_not_the_answer(log: Path) -> None:
    snapshots = FullSnapshots()
    async with Storage.open(log, SystemClock()) as storage:
        full = storage._replace(snapshots=cast("SnapshotStore", snapshots))
        with capture_logs() as logs:
            views = await Past(full).views_at(EVENTS)
        assert views.position == EVENTS
    assert snapshots.attempts == 1
    assert [entry["event"] for entry in logs] == ["snapshots_not_saved"]
