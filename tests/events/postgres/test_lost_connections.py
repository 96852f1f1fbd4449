"""Connections that are lost at any time: no event is lost or duplicated."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from support.postgres.dropping_proxy import proxied
from support.postgres.fixture import administrator

from herdbook.events.errors import (
    OutcomeUnknownError,
    StoreError,
    StoreUnavailableError,
)
from herdbook.events.postgres import session
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.errors import NoConnectionError
from herdbook.events.postgres.parameters import SETTINGS
from herdbook.events.postgres.schema import QUERIES
from herdbook.events.postgres.store import PostgresEventStore
from herdbook.events.recorded import NewEvent, RecordedEvent
from herdbook.events.snapshots import StoredView
from herdbook.events.store import ANY, NO_STREAM
from herdbook.events.testing.base import assert_sound, event, log_of


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PATIENCE_S", 0.3)
    monkeypatch.setattr(session, "LONGEST_WAIT_S", 0.05)


async def test_lost_answer_of_a_commit_is_found_by_the_ids(
    address: PostgresAddress,
) -> None:
    async with (
        proxied(address) as (proxy, through),
        await PostgresEventStore.open(through) as store,
    ):
        await store.append("model/n/m", [event()], NO_STREAM)
        new = [event(), event()]
        proxy.lose_next_answer()

        recorded = await store.append("model/n/m", new, 1)

        assert proxy.cuts == 1
        assert [e.event_id for e in recorded] == [e.event_id for e in new]
        assert [e.position for e in recorded] == [2, 3]
        assert [e.position for e in await log_of(store)] == [1, 2, 3]
        await assert_sound(store)


async def test_append_that_did_not_arrive_is_sent_again(
    address: PostgresAddress,
) -> None:
    async with (
        proxied(address) as (proxy, through),
        await PostgresEventStore.open(through) as store,
    ):
        await store.append("model/n/m", [event()], NO_STREAM)
        left = [True]
        proxy.loses = lambda is_answer: not is_answer and bool(left) and left.pop()

        (recorded,) = await store.append("model/n/m", [event()], 1)

        assert proxy.cuts == 1
        assert recorded.position == 2
        await assert_sound(store)


@pytest.mark.usefixtures("impatient")
async def test_outcome_is_unknown_while_the_server_is_away(
    address: PostgresAddress,
) -> None:
    async with (
        proxied(address) as (proxy, through),
        await PostgresEventStore.open(through) as store,
    ):
        await store.append("model/n/m", [event()], NO_STREAM)
        new = event()
        proxy.lose_next_answer()
        proxy.is_open = False

        with pytest.raises(OutcomeUnknownError) as caught:
            await store.append("model/n/m", [new], 1)
        assert caught.value.event_ids == (new.event_id,)
        assert "lost the connection: the server closed it" in str(caught.value)
        with pytest.raises(StoreUnavailableError, match="cannot be reached") as refused:
            await store.append("model/n/m", [event()], ANY)
        assert not isinstance(refused.value, OutcomeUnknownError)

        proxy.is_open = True
        await asyncio.sleep(session.LONGEST_WAIT_S)
        (recorded,) = await store.append("model/n/m", [new], 1)
        assert recorded.position == 2
        await assert_sound(store)


@pytest.fixture
def short_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SETTINGS.replace(b"lock_timeout = '5s'", b"lock_timeout = '1s'")
    monkeypatch.setattr(session, "SETTINGS", settings)


@pytest.mark.usefixtures("short_locks")
async def test_append_in_doubt_is_not_reported_as_refused(
    address: PostgresAddress,
) -> None:
    async with (
        proxied(address) as (proxy, through),
        await PostgresEventStore.open(through) as store,
        await PostgresEventStore.open(address) as other,
        administrator(address) as admin,
    ):
        await store.append("model/n/m", [event()], ANY)
        new = event()
        left = [True]

        async def lock_events() -> None:
            await admin.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")

        def loses(is_answer: bool) -> bool:
            """Lose the answer of the commit, and lock the log before it is read."""
            if not (is_answer and left and left.pop()):
                return False
            locking.append(asyncio.create_task(lock_events()))
            return True

        locking: list[asyncio.Task[None]] = []
        proxy.loses = loses
        with pytest.raises(OutcomeUnknownError):
            await store.append("model/n/m", [new], 1)
        await locking[0]
        await admin.rollback()

        (recorded,) = await store.append("model/n/m", [new], ANY)
        assert recorded.position == 2
        assert len(await log_of(other)) == 2


@pytest.mark.usefixtures("short_locks")
async def test_subscription_waits_while_the_log_is_locked(
    address: PostgresAddress,
) -> None:
    async with (
        await PostgresEventStore.open(address) as store,
        await PostgresEventStore.open(address) as other,
        administrator(address) as admin,
    ):
        (first,) = await store.append("model/n/m", [event()], ANY)
        await admin.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        events = other.subscribe(0)
        hearing = asyncio.ensure_future(anext(events))
        async with asyncio.timeout(20):
            while other.failures()["log_watcher"] is None:
                await asyncio.sleep(0.01)
        assert "locked by another session" in str(other.failures()["log_watcher"])
        hearing.cancel()
        await asyncio.wait([hearing])
        assert other.failures()["log_watcher"] is None
        events = other.subscribe(0)
        hearing = asyncio.ensure_future(anext(events))
        await admin.rollback()

        async with asyncio.timeout(20):
            assert await hearing == first
        assert other.failures()["log_watcher"] is None
        await events.aclose()


async def test_server_that_does_not_answer_a_new_connection_counts_as_lost(
    address: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = session.Session(address)
    with monkeypatch.context() as slow:
        slow.setattr(session, "ANSWER_S", 0.1)
        slow.setitem(QUERIES, "server", b"SELECT pg_sleep(60)")
        with pytest.raises(NoConnectionError, match="did not answer"):
            await one.connect()

    await one.connect()
    await one.close()


async def test_reads_and_snapshots_survive_a_cut(address: PostgresAddress) -> None:
    view = StoredView(name="v", version=1, position=1, hash="a" * 64, data=b"x")
    async with (
        proxied(address) as (proxy, through),
        await PostgresEventStore.open(through) as store,
    ):
        await store.append("model/n/m", [event() for _ in range(10)], ANY)
        for _ in range(3):
            proxy.cut()
            assert len(await log_of(store)) == 10
            proxy.cut()
            await store.save_view(view)
            proxy.cut()
            assert await store.load_view("v") == view
            assert await store.stream_version("model/n/m") == 10


async def test_subscription_continues_after_an_outage(
    address: PostgresAddress,
) -> None:
    async with (
        proxied(address) as (proxy, through),
        await PostgresEventStore.open(through) as store,
        await PostgresEventStore.open(address) as other,
    ):
        events = store.subscribe(0)
        await other.append("model/n/m", [event()], ANY)
        assert (await anext(events)).position == 1
        proxy.is_open = False
        proxy.cut()
        await other.append("model/n/m", [event(), event()], ANY)
        async with asyncio.timeout(20):
            while store.failures()["log_watcher"] is None:
                await asyncio.sleep(0.01)
        proxy.is_open = True

        async with asyncio.timeout(20):
            assert [(await anext(events)).position for _ in range(2)] == [2, 3]
            while store.failures()["log_watcher"] is not None:
                await asyncio.sleep(0.01)
        await events.aclose()


@pytest.mark.parametrize("seed", range(4))
async def test_random_cuts_lose_and_double_nothing(
    seed: int, address: PostgresAddress
) -> None:
    chance = Random(seed)
    async with proxied(address) as (proxy, through):
        stores = [await PostgresEventStore.open(through) for _ in range(2)]
        heard: list[RecordedEvent] = []

        async def listen() -> None:
            async for recorded in stores[0].subscribe(0):
                heard.append(recorded)  # noqa: PERF401 - read while it grows

        listening = asyncio.create_task(listen())
        proxy.loses = lambda _: chance.random() < 0.03
        try:
            answers = await asyncio.gather(
                *(
                    _append_many(store, f"model/n/{number}")
                    for store in stores
                    for number in range(5)
                )
            )
        finally:
            proxy.loses = lambda _: False
        acknowledged = [one for answer in answers for one in answer]
        log = await log_of(stores[1])

        assert proxy.cuts > 2
        assert [e.position for e in log] == list(range(1, len(log) + 1))
        assert sorted(e.event_id for e in log) == sorted(acknowledged)
        await assert_sound(stores[0])
        async with asyncio.timeout(20):
            while len(heard) < len(log):
                await asyncio.sleep(0.01)
        assert heard == log
        listening.cancel()
        for store in stores:
            await store.close()


async def _append_many(store: PostgresEventStore, stream: str) -> list[str]:
    """Append one event after another, each until its outcome is known."""
    done = []
    for _ in range(20):
        new = event()
        (recorded,) = await _until_known(store, stream, new)
        assert recorded.event_id == new.event_id
        done.append(new.event_id)
    return done


async def _until_known(
    store: PostgresEventStore, stream: str, new: NewEvent
) -> tuple[RecordedEvent, ...]:
    while True:
        try:
            return await store.append(stream, [new], ANY)
        except OutcomeUnknownError:
            continue


async def test_silent_server_counts_as_lost(
    address: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "ANSWER_S", 0.2)
    async with (
        proxied(address) as (proxy, through),
        await PostgresEventStore.open(through) as store,
    ):
        await store.append("model/n/m", [event()], ANY)
        proxy.silence()

        (recorded,) = await store.append("model/n/m", [event()], ANY)

        assert recorded.position == 2
        await assert_sound(store)


@pytest.mark.usefixtures("impatient")
async def test_long_outage_is_reported_at_once_and_ends_at_once(
    address: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        proxied(address) as (proxy, through),
        await PostgresEventStore.open(through) as store,
    ):
        await store.append("model/n/m", [event()], ANY)
        proxy.is_open = False
        proxy.cut()
        for call in (store.head, lambda: store.append("model/n/m", [event()], ANY)):
            with pytest.raises(StoreError):
                await call()
        monkeypatch.setattr(session, "LONGEST_WAIT_S", 60.0)
        before = proxy.attempts
        answers = await asyncio.gather(
            *(store.head() for _ in range(20)),
            *(store.append("model/n/m", [event()], ANY) for _ in range(20)),
            return_exceptions=True,
        )
        assert all(isinstance(each, StoreUnavailableError) for each in answers)
        assert proxy.attempts == before

        monkeypatch.setattr(session, "LONGEST_WAIT_S", 0.0)
        proxy.is_open = True
        assert (await store.head()).position == 1
        (recorded,) = await store.append("model/n/m", [event()], ANY)
        assert recorded.position == 2
        await assert_sound(store)


async def test_session_that_a_proxy_gives_to_two_clients_is_refused(
    address: PostgresAddress,
) -> None:
    one, other = session.Session(address), session.Session(address)
    await one.connect()
    assert one._connection
    with pytest.raises(StoreUnavailableError, match="pool_mode = session"):
        await other._set_up(one._connection)  # as PgBouncer does between transactions
    await one.close()
