"""Forced orders of commits: no reader skips an event, and no position is lost."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec
import psycopg
import pytest
from support.postgres.fixture import administrator

from herdbook.events.errors import (
    CorruptLogError,
    StoreError,
    WrongExpectedVersionError,
)
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.store import PostgresEventStore
from herdbook.events.recorded import RecordedEvent
from herdbook.events.shared.group import Plan, draft_append, plan_group
from herdbook.events.store import ANY, NO_STREAM, Head
from herdbook.events.testing.base import assert_sound, event, log_of

APPEND = "SELECT is_written FROM append_group(%s, %s::json, %s::text[], '{}', NULL)"
WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND query LIKE '%%append_%%' AND pid <> %s
"""


COLUMNS = {
    "position": "3",
    "stream": "stream",
    "version": "3",
    "event_id": "'new'",
    **{name: name for name in ("type", "schema", "data", "occurred_at")},
    **{name: name for name in ("recorded_at", "actor", "cause")},
    "correlation_id": "NULL",
    "causation_id": "NULL",
    "hash": "hash",
}


def copied(**columns: str) -> str:
    """Return the statement that inserts event #2 again, with other columns."""
    values = ", ".join((COLUMNS | columns).values())
    return f"INSERT INTO events SELECT {values} FROM events WHERE position = 2"


def planned(head: Head, stream: str, version: int = 0) -> Plan:
    return plan_group(
        [draft_append(stream, [event("slow")], ANY)],
        head=head,
        versions={stream: version},
        recorded={},
        now=datetime.now(UTC),
    )


async def write(connection: psycopg.AsyncConnection, plan: Plan) -> bool:
    rows = msgspec.json.encode([msgspec.structs.astuple(e) for e in plan.events])
    cursor = await connection.execute(
        APPEND, (plan.begin.hash, rows.decode(), list(plan.versions))
    )
    row = await cursor.fetchone()
    assert row
    return bool(row[0])


async def until_it_waits(connection: psycopg.AsyncConnection) -> None:
    """Wait until an append waits for the lock that the connection holds."""
    own = connection.info.backend_pid
    async with asyncio.timeout(20):
        while True:
            cursor = await connection.execute(WAITING, (own,))
            if await cursor.fetchone() != (0,):
                return
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_later_commit_waits_for_the_earlier_one(
    ending: str, address: PostgresAddress
) -> None:
    async with (
        await PostgresEventStore.open(address) as store,
        administrator(address) as slow,
    ):
        await store.append("model/n/m", [event()], ANY)
        heard: list[RecordedEvent] = []

        async def listen() -> None:
            async for recorded in store.subscribe(0):
                heard.append(recorded)  # noqa: PERF401 - read while it grows

        listening = asyncio.create_task(listen())
        plan = planned(await store.head(), "model/n/slow")
        assert await write(slow, plan)  # position 2, written and not committed
        appending = asyncio.create_task(store.append("model/n/m", [event()], 1))
        await until_it_waits(slow)

        assert [e.position for e in await log_of(store)] == [1]
        assert not appending.done()
        await (slow.commit() if ending == "commit" else slow.rollback())
        (last,) = await appending

        assert last.position == (3 if ending == "commit" else 2)
        async with asyncio.timeout(20):
            while len(heard) < last.position:
                await asyncio.sleep(0.005)
        listening.cancel()
        log = await log_of(store)
        assert [e.position for e in heard] == list(range(1, last.position + 1))
        assert heard == log
        await assert_sound(store)


async def test_group_that_comes_too_late_is_planned_again(
    address: PostgresAddress,
) -> None:
    async with (
        await PostgresEventStore.open(address) as store,
        administrator(address) as other,
    ):
        (first,) = await store.append("model/n/m", [event()], ANY)
        assert await write(other, planned(Head(1, first.hash), "model/n/m", 1))
        appending = asyncio.create_task(store.append("model/n/m", [event()], ANY))
        await until_it_waits(other)
        await other.commit()
        (last,) = await appending

        assert (last.position, last.version) == (3, 3)
        late = planned(Head(1, first.hash), "model/n/m", 1)
        assert not await write(other, late)
        await assert_sound(store)


async def test_event_that_would_not_move_the_head_is_refused(
    address: PostgresAddress,
) -> None:
    async with (
        await PostgresEventStore.open(address) as store,
        administrator(address) as other,
    ):
        await store.append("model/n/m", [event()], ANY)
        plan = planned(await store.head(), "model/n/copied")
        for change in ("DISABLE", "ENABLE"):
            await other.execute(f"ALTER TABLE events {change} TRIGGER USER".encode())
            await other.commit()
            if change == "DISABLE":
                with pytest.raises(CorruptLogError, match=r"#2.*missing or disabled"):
                    await store.append("model/n/m", [event()], ANY)
                with pytest.raises(StoreError):
                    await store.append_stored(plan.events, after=plan.begin)
        (recorded,) = await store.append("model/n/m", [event()], 1)

        assert recorded.position == 2
        await assert_sound(store)


async def test_log_with_events_after_its_head_is_called_damaged(
    address: PostgresAddress,
) -> None:
    async with (
        await PostgresEventStore.open(address) as store,
        administrator(address) as other,
    ):
        (first, _) = await store.append("model/n/m", [event(), event()], ANY)
        await other.execute("ALTER TABLE head DISABLE TRIGGER USER")
        await other.execute("UPDATE head SET position = 1, hash = %s", (first.hash,))
        await other.commit()

        with pytest.raises(CorruptLogError, match=r"event at #2.*Run: herdbook doctor"):
            await store.append("model/n/m", [event()], ANY)


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("UPDATE events SET actor = 'cli:mallory'", "cannot be changed"),
        ("DELETE FROM events", "cannot be changed"),
        ("TRUNCATE events", "cannot be changed"),
        ("DELETE FROM head", "cannot be changed"),
        ("TRUNCATE head", "cannot be changed"),
        ("INSERT INTO head VALUES (2, 0, '')", "cannot be changed"),
        ("UPDATE head SET position = 1", "newer event only"),
        ("UPDATE head SET position = 9", "newer event only"),
        ("UPDATE head SET hash = repeat('0', 64)", "newer event only"),
        (copied(position="4"), "positions do not follow"),
        (copied(version="4"), "versions do not follow"),
        (copied(stream="'model/n/new'", version="2"), "versions do not follow"),
        (copied(event_id="event_id"), "duplicate key"),
        (copied(data="repeat('x', 1048577)"), "check constraint"),
        (copied(hash="''"), "check constraint"),
    ],
)
async def test_database_refuses_what_is_not_a_log(
    statement: str, wanted: str, address: PostgresAddress
) -> None:
    async with await PostgresEventStore.open(address) as store:
        await store.append("model/n/m", [event(), event()], ANY)
        before = await log_of(store)
        async with administrator(address) as connection:
            with pytest.raises(psycopg.Error, match=wanted):
                await connection.execute(statement.encode())

        assert await log_of(store) == before
        await assert_sound(store)


async def test_disabled_trigger_is_found(address: PostgresAddress) -> None:
    async with await PostgresEventStore.open(address) as store:
        assert await store.check_file() == []
        async with administrator(address) as connection:
            await connection.execute(
                "ALTER TABLE events DISABLE TRIGGER events_are_not_changed"
            )
            await connection.commit()

        (finding,) = await store.check_file()
        assert "events_are_not_changed" in finding


async def test_many_instances_append_at_once(address: PostgresAddress) -> None:
    stores = [await PostgresEventStore.open(address) for _ in range(4)]
    try:
        answers = await asyncio.gather(
            *(
                stores[number % 4].append(f"model/n/{number % 11}", [event()], ANY)
                for number in range(400)
            )
        )
        positions = sorted(answer[0].position for answer in answers)
        assert positions == list(range(1, 401))
        await assert_sound(stores[0])
    finally:
        for store in stores:
            await store.close()


@pytest.mark.parametrize(
    "note",
    ["", 'a,"position":7,"x":1', '\\",\\"position":', "\0\x1f\u2028 \U0001f600 ü"],
)
async def test_group_is_chained_to_the_head_that_the_server_finds(
    note: str, address: PostgresAddress
) -> None:
    async with (
        await PostgresEventStore.open(address) as one,
        await PostgresEventStore.open(address) as two,
    ):
        answers: list[RecordedEvent] = []
        for number in range(6):
            store, stream = (one, "model/n/a") if number % 2 else (two, "model/n/b")
            new = [event(note), event(f"{note}{number}")]
            answers += await store.append(stream, new, number // 2 * 2)
        recorders = (one._recorder, two._recorder)
        assert all(recorder._busy_groups for recorder in recorders)

        assert answers == await log_of(one)
        await assert_sound(one)


async def test_busy_group_is_planned_again_where_its_stream_has_changed(
    address: PostgresAddress,
) -> None:
    async with (
        await PostgresEventStore.open(address) as one,
        await PostgresEventStore.open(address) as two,
    ):
        for store in (one, two, one, two):
            await store.append("model/n/m", [event()], ANY)
        taken = event()
        await two.append("model/n/m", [taken], 4)
        with pytest.raises(WrongExpectedVersionError):
            await one.append("model/n/m", [event()], 4)
        await two.append("model/n/m", [event()], 5)
        answers = await asyncio.gather(
            one.append("model/n/m", [taken], 4),
            one.append("model/n/other", [event()], NO_STREAM),
            one.append("model/n/m", [event()], 6),
            one.append("model/n/m", [event()], 6),
            return_exceptions=True,
        )

        assert [a[0].position for a in answers if isinstance(a, tuple)] == [5, 7, 8]
        assert isinstance(answers[3], WrongExpectedVersionError)
        await assert_sound(one)


async def test_notifications_of_other_programs_change_nothing(
    address: PostgresAddress,
) -> None:
    async with (
        await PostgresEventStore.open(address) as store,
        await PostgresEventStore.open(address) as other,
        administrator(address) as connection,
    ):
        events = store.subscribe(0)
        for position in (1, 2):
            await other.append("model/n/m", [event()], ANY)
            assert (await anext(events)).position == position
            for payload in ("hello", str(10**20), "9" * 5000):
                await connection.execute(
                    "SELECT pg_notify(%s, %s)", [f"herdbook {address.schema}", payload]
                )
            await connection.commit()
        await other.append("model/n/m", [event()], ANY)
        assert (await anext(events)).position == 3
        assert store.failures()["log_watcher"] is None
        await events.aclose()


async def test_append_reads_no_other_events_though_the_log_has_grown(
    address: PostgresAddress,
) -> None:
    """A session keeps the plans that it made when the log was short."""
    stream = "model/n/m"
    async with (
        await PostgresEventStore.open(address) as store,
        administrator(address) as connection,
    ):
        await store.append(stream, [event()], ANY)
        async with connection.transaction():
            assert await write(connection, planned(await store.head(), stream, 1))
        await store.append(stream, [event() for _ in range(1000)], ANY)

        async with connection.transaction():
            assert await write(connection, planned(await store.head(), stream, 1002))
            read = await connection.execute(
                "SELECT seq_tup_read FROM pg_stat_xact_user_tables "
                "WHERE relid = 'events'::regclass"
            )
            assert await read.fetchone() == (0,)
