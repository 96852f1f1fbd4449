"""A server that is killed while instances append: it comes back, or a standby does."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator

import psycopg
import pytest
from support.postgres.fixture import NAMED
from support.postgres.server import PostgresServer, new_directory

from herdbook.events.errors import OutcomeUnknownError, StoreUnavailableError
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.instances import PostgresInstances
from herdbook.events.postgres.store import PostgresEventStore
from herdbook.events.recorded import NewEvent, RecordedEvent
from herdbook.events.store import ANY
from herdbook.events.testing.base import assert_sound, event, log_of

KILLS = 1

pytestmark = pytest.mark.skipif(
    NAMED is not None, reason="HERDBOOK_POSTGRES names a server, which is not killed"
)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    directory = new_directory()
    server = PostgresServer(directory)
    server.create()
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory)


class Appenders:
    """Append events one after another, each until its outcome is known.

    Attributes:
        acknowledged: The ids of the events that are recorded.
        ended: Set to stop after the present event.
    """

    def __init__(self) -> None:
        self.acknowledged: list[str] = []
        self.ended = asyncio.Event()

    async def append(self, store: PostgresEventStore, stream: str) -> None:
        while not self.ended.is_set():
            new = event()
            while not await self._is_recorded(store, stream, new):
                await asyncio.sleep(0.05)
            self.acknowledged.append(new.event_id)

    async def _is_recorded(
        self, store: PostgresEventStore, stream: str, new: NewEvent
    ) -> bool:
        try:
            await store.append(stream, [new], ANY)
        except (OutcomeUnknownError, StoreUnavailableError):
            return False
        return True

    async def until(self, count: int) -> None:
        while len(self.acknowledged) < count:
            await asyncio.sleep(0.005)


async def listen(store: PostgresEventStore, heard: list[RecordedEvent]) -> None:
    async for recorded in store.subscribe(0):
        heard.append(recorded)  # noqa: PERF401 - read while it grows


@pytest.mark.timeout(180)
async def test_killed_server_loses_and_doubles_nothing(server: PostgresServer) -> None:
    address = PostgresAddress(server.url)
    heard: list[RecordedEvent] = []
    appenders = Appenders()
    async with (
        await PostgresEventStore.open(address) as one,
        await PostgresEventStore.open(address) as two,
        PostgresInstances.open(address) as first,
        PostgresInstances.open(address) as second,
    ):
        listening = asyncio.create_task(listen(two, heard))
        appending = [
            asyncio.create_task(appenders.append(store, f"model/n/{number}"))
            for store in (one, two)
            for number in range(4)
        ]
        for kill in range(1, KILLS + 1):
            await appenders.until(100 * kill)
            server.kill()
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.start)
            assert await first.alive(second.own)
            await appenders.until(len(appenders.acknowledged) + 20)
        appenders.ended.set()
        await asyncio.gather(*appending)
        log = await log_of(one)
        async with asyncio.timeout(20):
            while len(heard) < len(log):
                await asyncio.sleep(0.01)
        listening.cancel()

        assert sorted(e.event_id for e in log) == sorted(appenders.acknowledged)
        assert [e.position for e in log] == list(range(1, len(log) + 1))
        assert heard == log
        await assert_sound(one)


async def test_server_that_starts_is_waited_for(server: PostgresServer) -> None:
    server.kill()
    address = PostgresAddress(server.url)
    with pytest.raises(StoreUnavailableError, match="reach"):
        await PostgresEventStore.open(address)

    starting = asyncio.create_task(asyncio.to_thread(server.start))
    refusals = set()
    while not starting.done():
        try:
            await (await PostgresEventStore.open(address)).close()
        except StoreUnavailableError as error:
            refusals.add(error.state)
        await asyncio.sleep(0)
    await starting
    await (await PostgresEventStore.open(address)).close()

    assert not [state for state in refusals if "start" in state or "yet" in state]


@pytest.fixture
def standby(server: PostgresServer) -> Iterator[PostgresServer]:
    """Return a standby to which the server waits for each commit to be written."""
    directory = new_directory()
    standby = PostgresServer(directory)
    standby.copy(server)
    standby.start()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        connection.execute("SELECT pg_reload_conf()")
    yield standby
    standby.stop()
    shutil.rmtree(directory)


@pytest.mark.timeout(180)
async def test_failover_to_a_standby_loses_and_doubles_nothing(
    server: PostgresServer, standby: PostgresServer
) -> None:
    hosts = ",".join(f"127.0.0.1:{one.port}" for one in (server, standby))
    address = PostgresAddress(f"postgresql://postgres@{hosts}/postgres?schema=standby")
    heard: list[RecordedEvent] = []
    appenders = Appenders()
    async with (
        await PostgresEventStore.open(address) as one,
        await PostgresEventStore.open(address) as two,
        PostgresInstances.open(address) as first,
        PostgresInstances.open(address) as second,
    ):
        assert await first.hold("node/n")
        listening = asyncio.create_task(listen(two, heard))
        appending = [
            asyncio.create_task(appenders.append(store, f"model/n/{number}"))
            for store in (one, two)
            for number in range(4)
        ]
        await appenders.until(100)
        server.kill()
        await asyncio.to_thread(standby.promote)
        assert await first.alive(second.own)
        await appenders.until(len(appenders.acknowledged) + 20)
        appenders.ended.set()
        await asyncio.gather(*appending)
        log = await log_of(one)
        async with asyncio.timeout(20):
            while len(heard) < len(log):
                await asyncio.sleep(0.01)
        listening.cancel()

        assert not await first.holds("node/n"), "its lock ended with the old primary"
        assert await second.hold("node/n")
        assert sorted(e.event_id for e in log) == sorted(appenders.acknowledged)
        assert [e.position for e in log] == list(range(1, len(log) + 1))
        assert heard == log
        await assert_sound(one)
