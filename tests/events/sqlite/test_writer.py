"""The writer: groups, unknown outcomes, and callers that are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from herdbook.events.errors import (
    ConflictError,
    EventIdConflictError,
    InterruptedWriteError,
    OutcomeUnknownError,
    StoreClosedError,
    StoreUnavailableError,
)
from herdbook.events.shared.writer import LARGEST_GROUP, ROOM
from herdbook.events.snapshots import StoredView
from herdbook.events.sqlite.log_file import OpenFile
from herdbook.events.sqlite.recorder import (
    REMEMBERED_STREAMS,
    QueryRunner,
    Row,
    SQLiteRecorder,
)
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY
from herdbook.events.testing.base import assert_sound, event, log_of


class FaultySession:
    """A session that works like the real one, and fails where a test says so.

    Attributes:
        runs: The names of the queries that were run.
        before: Raised instead of running a query, by its name.
        behind: Raised after a query was run, by its name.
        gate: The session stops at it before each query.
        reached: Set when the first query is about to run.
    """

    def __init__(self, session: QueryRunner) -> None:
        self._session = session
        self.runs: list[str] = []
        self.before: dict[str, Exception] = {}
        self.behind: dict[str, Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()

    async def run(self, query: str, /, **parameters: object) -> Sequence[Row]:
        async with self._faults(query):
            return await self._session.run(query, **parameters)

    async def run_many(self, query: str, rows: Sequence[Row], /) -> None:
        async with self._faults(query):
            await self._session.run_many(query, rows)

    @asynccontextmanager
    async def _faults(self, query: str) -> AsyncIterator[None]:
        self.runs.append(query)
        self.reached.set()
        await self.gate.wait()
        if query in self.before:
            raise self.before.pop(query)
        yield
        if query in self.behind:
            raise self.behind.pop(query)

    async def rollback(self) -> None:
        self.runs.append("rollback")
        await self._session.rollback()


def recorder_of(store: SQLiteEventStore) -> SQLiteRecorder:
    recorder = store._writer._recorder
    assert isinstance(recorder, SQLiteRecorder)
    return recorder


@asynccontextmanager
async def faulty(
    tmp_path: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> AsyncIterator[tuple[SQLiteEventStore, FaultySession]]:
    async with await SQLiteEventStore.open(tmp_path / "herd.db", clock=clock) as store:
        recorder = recorder_of(store)
        session = FaultySession(recorder._session)
        recorder._session = session
        yield store, session


DIED = InterruptedWriteError("herd.db", "failed: disk I/O error")


async def test_group_is_one_transaction(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (store, session):
        await asyncio.gather(
            *(store.append(f"model/n/{n}", [event()], 0) for n in range(50))
        )
        assert session.runs == ["head", "stream_versions", "insert_event"]
        await asyncio.gather(
            *(store.append(f"model/n/{n}", [event()], 1) for n in range(50))
        )
        assert session.runs[3:] == ["insert_event"]


async def test_group_that_fails_in_the_middle_writes_nothing(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (store, session):
        first, second = await store.append("model/n/m", [event(), event()], 0)
        stored = [one async for one in store.read_stored()]
        third = msgspec.structs.replace(stored[-1], position=3, version=3, event_id="3")
        gap = msgspec.structs.replace(third, position=4, version=9, event_id="4")
        previous = (stored[-1], third)
        rows = [
            (*msgspec.structs.astuple(one)[:-1], before.hash, one.hash)
            for one, before in zip((third, gap), previous, strict=True)
        ]
        with pytest.raises(ConflictError):
            await session.run_many("insert_event", rows)
        assert await log_of(store) == [first, second]
        await store.append("model/n/m", [event()], 2)
        await assert_sound(store)


async def test_other_process_costs_one_transaction(tmp_path: Path) -> None:
    async with (
        faulty(tmp_path) as (store, session),
        await SQLiteEventStore.open(tmp_path / "herd.db") as other,
    ):
        await store.append("model/n/m", [event()], 0)
        await other.append("model/n/m", [event()], 1)
        session.runs.clear()
        await store.append("model/n/m", [event()], ANY)
        assert session.runs == [
            "insert_event",
            "begin",
            "events_by_id",
            "head",
            "stream_versions",
            "insert_event",
            "commit",
        ]
        await assert_sound(store)


async def test_writer_does_not_remember_every_stream(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (store, session):
        await store.append("model/n/m", [event()], 0)
        recorder_of(store)._versions |= dict.fromkeys(
            map(str, range(REMEMBERED_STREAMS)), 0
        )
        await store.append("model/n/m", [event()], 1)
        await store.append("model/n/m", [event()], 2)
        assert session.runs[-3:] == [
            "insert_event",
            "stream_versions",
            "insert_event",
        ]


@pytest.mark.parametrize("query", ["insert_event", "head", "stream_versions"])
async def test_append_that_was_not_recorded_may_be_unknown(
    tmp_path: Path, query: str
) -> None:
    async with faulty(tmp_path) as (store, session):
        new = [event(), event()]
        session.before[query] = DIED
        with pytest.raises(OutcomeUnknownError) as caught:
            await store.append("model/n/m", new, 0)
        assert caught.value.event_ids == tuple(e.event_id for e in new)
        assert [e.position for e in await store.append("model/n/m", new, 0)] == [1, 2]


async def test_recorded_append_is_found_after_an_interruption(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (store, session):
        session.behind["insert_event"] = DIED
        answers = await asyncio.gather(
            store.append("model/n/a", [event()], 0),
            store.append("model/n/b", [event()], 0),
        )
        assert [a for (a,) in answers] == await log_of(store)
        await store.append("model/n/a", [event()], 1)
        await assert_sound(store)


async def test_conflict_is_raised_after_an_interrupted_write(
    tmp_path: Path,
) -> None:
    async with faulty(tmp_path) as (store, session):
        (taken,) = await store.append("model/n/m", [event("a")], 0)
        session.before["begin"] = DIED
        with pytest.raises(EventIdConflictError):
            await store.append("model/n/m", [event("b", event_id=taken.event_id)], ANY)


async def test_broken_transaction_is_rolled_back(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (store, session):
        await store.append("model/n/m", [event()], 0)
        session.before["commit"] = DIED
        answers = await asyncio.gather(
            store.append("model/n/m", [event()], 9),
            store.append("model/n/m", [event()], 1),
            return_exceptions=True,
        )
        assert [type(a) for a in answers] == [OutcomeUnknownError] * 2
        assert session.runs[-1] == "rollback"
        await store.append("model/n/m", [event()], 1)
        await assert_sound(store)


async def test_unreadable_file_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (store, session):
        session.before["insert_event"] = DIED
        moved = tmp_path / "moved"
        tmp_path.joinpath("herd.db").rename(moved)
        tmp_path.joinpath("herd.db").mkdir()
        store._file = OpenFile(store._path)  # as if it disappeared then
        with pytest.raises(OutcomeUnknownError):
            await store.append("model/n/m", [event()], 0)


async def test_foreign_failure_reaches_the_callers_and_ends_nothing(
    tmp_path: Path,
) -> None:
    faults = [ZeroDivisionError("a clock that fails")]

    def clock() -> datetime:
        if faults:
            raise faults.pop()
        return datetime.now(UTC)

    async with faulty(tmp_path, clock) as (store, _):
        with pytest.raises(ZeroDivisionError):
            await store.append("model/n/m", [event()], 0)
        await store.append("model/n/m", [event()], 0)


async def test_failed_snapshot_leaves_the_previous_one(
    tmp_path: Path,
) -> None:
    view = StoredView(name="v", version=1, position=1, hash="a" * 64, data=b"x")
    async with faulty(tmp_path) as (store, session):
        await store.save_view(view)
        session.before["save_view"] = StoreUnavailableError("herd.db", "is locked")
        with pytest.raises(StoreUnavailableError):
            await store.save_view(
                StoredView(name="v", version=2, position=2, hash="b" * 64, data=b"y")
            )
        assert await store.load_view("v") == view


async def test_waiting_append_is_withdrawn_when_cancelled(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (store, session):
        session.gate.clear()
        first = asyncio.create_task(store.append("model/n/m", [event("a")], ANY))
        await session.reached.wait()  # the writer has taken the first
        second = asyncio.create_task(store.append("model/n/m", [event("b")], ANY))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait({second})
        session.gate.set()
        assert list(await first) == await log_of(store)


async def test_taken_append_is_finished_when_cancelled(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (store, session):
        session.gate.clear()
        append = asyncio.create_task(store.append("model/n/m", [event()], ANY))
        await session.reached.wait()
        append.cancel()
        await asyncio.sleep(0)
        append.cancel()  # twice is no more than once
        session.gate.set()
        await asyncio.wait({append})
        assert append.cancelled()
        assert [e.stream for e in await log_of(store)] == ["model/n/m"]


async def test_queue_is_bounded_and_every_caller_is_answered(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (store, session):
        session.gate.clear()
        crowd = [
            asyncio.create_task(store.append(f"model/n/{n}", [event()], 0))
            for n in range(ROOM + 100)
        ]
        await session.reached.wait()
        assert len(store._writer._waiting) == ROOM - LARGEST_GROUP
        session.gate.set()
        await asyncio.gather(*crowd)
        assert (await store.head()).position == ROOM + 100


async def test_closing_answers_all_callers(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (store, session):
        session.gate.clear()
        crowd = [
            asyncio.create_task(store.append(f"model/n/{n}", [event()], 0))
            for n in range(ROOM + 100)
        ]
        await session.reached.wait()
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        session.gate.set()
        answers = await asyncio.gather(*crowd, return_exceptions=True)
        await closing
    failed = [type(a) for a in answers if isinstance(a, BaseException)]
    assert failed == [StoreClosedError] * 100  # those for whom there was no room
    async with await SQLiteEventStore.open(tmp_path / "herd.db") as store:
        assert (await store.head()).position == ROOM


async def test_writer_continues_after_an_unexpected_error(tmp_path: Path) -> None:
    """A broken group may be kept or not; a broken view is not kept."""
    view = StoredView(name="v", version=1, position=1, hash="a" * 64, data=b"x")
    async with faulty(tmp_path) as (store, session):
        session.before["insert_event"] = DIED
        recorder_of(store)._find_on_new_connection = None  # type: ignore[assignment]  # breaks _resolve
        with pytest.raises(OutcomeUnknownError, match="TypeError"):
            await store.append("model/n/m", [event()], 0)
        session.before["save_view"] = ZeroDivisionError()
        with pytest.raises(StoreUnavailableError, match="was not saved"):
            await store.save_view(view)

        await store.append("model/n/m", [event()], 0)
        await store.save_view(view)

        assert store.failures() == dict.fromkeys(store.failures())


async def test_writer_that_ends_answers_every_caller(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (store, session):
        session.gate.clear()
        taken = asyncio.create_task(store.append("model/n/m", [event()], ANY))
        await session.reached.wait()
        waiting = asyncio.create_task(store.append("model/n/m", [event()], ANY))
        await asyncio.sleep(0)

        store._writer._task.cancel()

        async with asyncio.timeout(10):
            answers = await asyncio.gather(taken, waiting, return_exceptions=True)
            assert [type(one) for one in answers] == [
                OutcomeUnknownError,
                StoreUnavailableError,
            ]
            with pytest.raises(StoreUnavailableError, match="cannot be written"):
                await store.append("model/n/m", [event()], ANY)
        assert isinstance(store.failures()["log_writer"], StoreUnavailableError)
