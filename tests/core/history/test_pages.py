"""The log in pages: every event once and in order, in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.manager_fixture import recorded_events, serve_manager, serve_sandbox
from support.strategies import START

from herdbook.core import CallerError, HistoryFilter
from herdbook.core.history.pages import (
    FIRST_WINDOW,
    MAX_SCANNED,
    LogPage,
    PageQuery,
    newest_first,
    oldest_first,
)
from herdbook.events.facts import Fact, ModelUsed, ModelVanished, NodeReached
from herdbook.events.findings import belongs
from herdbook.events.memory import MemoryEventStore
from herdbook.events.recorded import Cause, NewEvent, RecordedEvent
from herdbook.events.store import ANY

FACTS: tuple[Fact, ...] = (
    ModelUsed(),
    ModelVanished(),
    NodeReached(version="1", url="http://a"),
)
STREAMS = ("model/local/a:1", "model/local/b:1", "model/other/a:1", "node/local")
ACTORS = ("cli:ann", "api:ben", "reconciler")
IDS = (None, "one", "two")
STEP = timedelta(minutes=3)
"""Time between two events, so that a log is longer than ``CLOCK_DIFFERENCE``."""

moments = st.integers(-1, 61).map(lambda n: START + n * STEP)
news = st.builds(
    NewEvent,
    fact=st.sampled_from(FACTS),
    occurred_at=st.just(START),
    actor=st.sampled_from(ACTORS),
    cause=st.sampled_from([Cause.COMMAND, Cause.OBSERVED]),
    correlation_id=st.sampled_from(IDS),
)


def is_right(append: tuple[str, NewEvent]) -> bool:
    """Return whether the event belongs in the stream."""
    stream, new = append
    return belongs(type(new.fact).__name__, stream)


appends = st.lists(
    st.tuples(st.sampled_from(STREAMS), news).filter(is_right), max_size=60
)
types = st.frozensets(st.sampled_from([type(fact).__name__ for fact in FACTS]))
filters = st.builds(
    HistoryFilter,
    types=st.none() | types,
    causes=st.none() | st.just(frozenset({Cause.OBSERVED})),
    actors=st.none() | st.sampled_from([("cli:",), ("api:", "rec"), ()]),
    since=st.none() | moments,
    until=st.none() | moments,
    correlation_id=st.sampled_from(IDS),
    limit=st.none() | st.integers(1, 3),
)
wishes = st.builds(
    PageQuery,
    after=st.integers(0, 65),
    before=st.none() | st.integers(0, 65),
    limit=st.integers(1, 12),
    stream_prefix=st.sampled_from(["", "model/", "model/local/a", "node/", "none"]),
    chosen=filters,
    max_scanned=st.integers(1, 30),
    first_window=st.integers(1, 5),
)
some_of_all = st.one_of(
    wishes, wishes.map(lambda query: msgspec.structs.replace(query, after=0))
)


async def a_log(
    appended: Sequence[tuple[str, NewEvent]],
) -> tuple[MemoryEventStore, list[RecordedEvent]]:
    """Return a log, an event in each step of time, and what is in it."""
    numbers = iter(range(len(appended)))
    store = MemoryEventStore(clock=lambda: START + next(numbers) * STEP)
    for stream, event in appended:
        await store.append(stream, [event], ANY)
    return store, [event async for event in store.read_all()]


def of_interest(log: Sequence[RecordedEvent], query: PageQuery) -> list[RecordedEvent]:
    """Return what is wanted of a log, all of it, as one would write it down."""
    before = len(log) + 1 if query.before is None else query.before
    return [
        event
        for event in log
        if query.after < event.position < before
        and event.stream.startswith(query.stream_prefix)
        and query.chosen.matches(event)
    ]


Read = Callable[[MemoryEventStore, PageQuery], Awaitable[LogPage]]


async def page_by_page(
    read: Read, store: MemoryEventStore, query: PageQuery, edge: str
) -> list[LogPage]:
    """Read to the end, each page from where the one before says."""
    pages = [await read(store, query)]
    while (going_on := pages[-1].next) is not None:
        query = msgspec.structs.replace(query, **{edge: going_on})
        pages.append(await read(store, query))
    return pages


@given(appends, some_of_all)
def test_forward_pages_return_each_match_once_and_in_order(
    appended: list[tuple[str, NewEvent]], query: PageQuery
) -> None:
    async def run() -> None:
        store, log = await a_log(appended)

        pages = await page_by_page(oldest_first, store, query, "after")

        found = [event for page in pages for event in page.events]
        assert found == of_interest(log, query)
        assert all(len(page.events) <= query.limit for page in pages)

    asyncio.run(run())


@given(appends, some_of_all)
def test_backward_pages_return_each_match_once_from_the_newest(
    appended: list[tuple[str, NewEvent]], query: PageQuery
) -> None:
    async def run() -> None:
        store, log = await a_log(appended)

        pages = await page_by_page(newest_first, store, query, "before")

        found = [event for page in pages for event in page.events]
        assert found == of_interest(log, query)[::-1]
        assert all(len(page.events) <= query.limit for page in pages)

    asyncio.run(run())


@given(appends, st.integers(1, 30))
def test_page_scans_no_more_than_its_limit(
    appended: list[tuple[str, NewEvent]], bound: int
) -> None:
    async def run() -> None:
        store, log = await a_log(appended)
        whole = PageQuery(limit=1000, max_scanned=bound)
        up = await oldest_first(store, whole)
        down = await newest_first(store, whole)

        assert list(up.events) == log[:bound]
        assert list(down.events) == log[::-1][:bound]
        assert (up.next, down.next) == (
            (bound, len(log) - bound + 1) if len(log) > bound else (None, None)
        )

    asyncio.run(run())


class CountingStore(MemoryEventStore):
    """A log that counts what is read of it."""

    read = 0

    async def read_all(
        self,
        *,
        after: int = 0,
        limit: int | None = None,
        stream_prefix: str = "",
        types: Collection[str] | None = None,
    ) -> AsyncGenerator[RecordedEvent, None]:
        events = super().read_all(
            after=after, limit=limit, stream_prefix=stream_prefix, types=types
        )
        async for event in events:
            self.read += 1
            yield event


def some(fact: Fact, number: int) -> list[NewEvent]:
    return [
        NewEvent(fact=fact, occurred_at=START, actor="cli:ann", cause=Cause.COMMAND)
        for _ in range(number)
    ]


async def long_log(length: int) -> CountingStore:
    store = CountingStore()
    await store.append("model/local/a:1", some(ModelUsed(), length), ANY)
    return store


NOTHING = HistoryFilter(actors=("nobody:",))


@pytest.mark.parametrize("read", [oldest_first, newest_first])
async def test_filter_without_matches_ends_with_an_empty_page(read: Read) -> None:
    length = MAX_SCANNED + 5000
    store = await long_log(length)

    page = await read(store, PageQuery(chosen=NOTHING))

    assert page.events == ()
    assert page.next in (MAX_SCANNED, length - MAX_SCANNED + 1)
    assert MAX_SCANNED <= store.read <= MAX_SCANNED + 1


async def test_newest_of_a_long_log_are_found_without_reading_all_of_it() -> None:
    store = await long_log(5000)

    page = await newest_first(store, PageQuery(limit=10))

    assert [event.position for event in page.events] == list(range(5000, 4990, -1))
    assert page.next == 4991
    assert store.read <= FIRST_WINDOW


async def test_rare_types_are_found_from_the_newest_event() -> None:
    """Far from the head, the store's own filter would look at all behind a window."""
    store = await long_log(2000)
    await store.append("model/local/b:1", some(ModelVanished(), 1), ANY)
    await store.append("model/local/a:1", some(ModelUsed(), 40_000), ANY)
    chosen = HistoryFilter(types=frozenset({"ModelVanished"}))

    pages = await page_by_page(newest_first, store, PageQuery(chosen=chosen), "before")

    assert [e.position for page in pages for e in page.events] == [2001]
    assert len(pages) == 3


@pytest.mark.parametrize("read", [oldest_first, newest_first])
async def test_page_since_a_time_reads_no_older_events(read: Read) -> None:
    recorded_at = iter([START, START + timedelta(days=1)])
    store = CountingStore(clock=lambda: next(recorded_at))
    await store.append("model/local/a:1", some(ModelUsed(), 5000), ANY)
    await store.append("model/local/a:1", some(ModelUsed(), 3), ANY)
    chosen = HistoryFilter(since=START + timedelta(days=1))

    page = await read(store, PageQuery(chosen=chosen))

    assert sorted(event.position for event in page.events) == [5001, 5002, 5003]
    assert page.next is None
    assert store.read < 30


@pytest.mark.parametrize(
    "asked", [{"limit": 0}, {"limit": -1}, {"after": -1}, {"before": -1}]
)
async def test_invalid_page_is_refused(asked: dict[str, int]) -> None:
    async with serve_manager("none") as (_, manager):
        with pytest.raises(CallerError):
            await manager.read_log(**asked)  # type: ignore[arg-type]


async def test_manager_reads_its_log_in_both_directions(tmp_path: Path) -> None:
    async with (
        serve_sandbox() as server,
        server.open_manager(tmp_path / "herd.db") as manager,
    ):
        log = await recorded_events(manager)

        first = await manager.read_log(limit=3)
        newest = await manager.read_log(limit=3, newest_first=True)
        nodes = await manager.read_log(stream_prefix="node/")

        assert (list(first.events), first.next) == (log[:3], 3)
        assert (list(newest.events), newest.next) == (log[:-4:-1], len(log) - 2)
        assert [event.type for event in nodes.events] == ["NodeReached"]
        assert nodes.next is None


async def test_manager_reads_a_filtered_range_of_its_log() -> None:
    async with serve_manager() as (_, manager):
        log = await recorded_events(manager)
        chosen = HistoryFilter(types=frozenset({"ModelDiscovered"}))

        page = await manager.read_log(after=2, before=9, chosen=chosen)

        expected = [e for e in log[2:8] if e.type == "ModelDiscovered"]
        assert list(page.events) == expected
