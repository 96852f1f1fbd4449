"""Who is alive on a log in a database: a death, a lost connection, a restart."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest
from support.postgres.dropping_proxy import proxied
from support.postgres.fixture import administrator

from herdbook.events.errors import StoreUnavailableError
from herdbook.events.postgres import instances, session
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.instances import PostgresInstances
from herdbook.events.postgres.store import PostgresEventStore
from herdbook.events.recorded import new_id

LEASE = "node/local"

HOLDING = """
import asyncio, sys
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.instances import PostgresInstances

async def main():
    async with PostgresInstances.open(PostgresAddress(sys.argv[1])) as own:
        await own.announce(["model/n/m"])
        await own.hold("node/local")
        print(own.own, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(await own.holds("node/local"), flush=True)

asyncio.run(main())
"""


@pytest.fixture
def log(address: PostgresAddress, monkeypatch: pytest.MonkeyPatch) -> PostgresAddress:
    """A log whose instances count as dead soon."""
    monkeypatch.setattr(instances, "GRACE_S", 1.0)
    monkeypatch.setattr(instances, "BEAT_S", 0.2)

    async def create() -> None:
        await (await PostgresEventStore.open(address)).close()

    asyncio.run(create())
    return address


async def test_instances_know_each_other(log: PostgresAddress) -> None:
    async with PostgresInstances.open(log) as one:
        async with PostgresInstances.open(log) as two:
            assert one.own != two.own
            assert await one.alive(one.own)
            assert await one.alive(two.own)
            assert await two.alive(one.own)
        assert not await one.alive(two.own)
        assert not await one.alive(new_id())
        assert not await one.alive("x\N{SNOWMAN}")


async def test_announcements_are_those_of_the_others(log: PostgresAddress) -> None:
    async with PostgresInstances.open(log) as one:
        async with PostgresInstances.open(log) as two:
            assert await one.announced() == frozenset()
            await two.announce(["model/n/a", "model/n/b"])
            assert await one.announced() == {"model/n/a", "model/n/b"}
            assert await two.announced() == frozenset()
            await two.announce(["model/n/b"])
            assert await one.announced() == {"model/n/b"}
        assert await one.announced() == frozenset()


async def test_logs_of_one_database_have_instances_of_their_own(
    log: PostgresAddress, postgres: str
) -> None:
    joint = "&" if "?" in postgres else "?"
    other = PostgresAddress(f"{postgres}{joint}schema={log.schema}_b")
    await (await PostgresEventStore.open(other)).close()
    async with PostgresInstances.open(log) as one:
        async with PostgresInstances.open(other) as two:
            await two.announce(["model/n/a"])
            assert await one.announced() == frozenset()
            assert not await one.alive(two.own)
    async with administrator(other) as connection:
        await connection.execute(f"DROP SCHEMA {other.schema} CASCADE".encode())
        await connection.commit()


async def test_killed_process_is_dead_after_the_grace(log: PostgresAddress) -> None:
    joint = "&" if "?" in log.url else "?"
    process = subprocess.Popen(  # noqa: ASYNC220 - its output is one line
        [sys.executable, "-c", HOLDING, f"{log.url}{joint}schema={log.schema}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        other = (await asyncio.to_thread(process.stdout.readline)).strip()
        async with PostgresInstances.open(log) as one:
            assert await one.alive(other)
            assert await one.announced() == {"model/n/m"}
            process.kill()
            async with asyncio.timeout(20):
                while await one.alive(other):
                    await asyncio.sleep(0.05)
            assert await one.announced() == frozenset()


async def test_lost_connection_is_not_a_death(log: PostgresAddress) -> None:
    async with (
        proxied(log) as (proxy, through),
        PostgresInstances.open(log) as one,
        PostgresInstances.open(through) as two,
    ):
        loop = asyncio.get_running_loop()
        await two.announce(["model/n/m"])
        end = loop.time() + 3 * instances.GRACE_S
        while loop.time() < end:
            proxy.cut()
            assert await one.alive(two.own)
            assert await one.announced() == {"model/n/m"}
            await asyncio.sleep(0.4)
        assert proxy.cuts > 3


async def test_nobody_is_dead_just_after_a_restart(log: PostgresAddress) -> None:
    async with (
        proxied(log) as (proxy, through),
        PostgresInstances.open(through) as one,
        PostgresInstances.open(through) as two,
    ):
        await two.announce(["model/n/m"])
        proxy.is_open = False
        proxy.cut()  # as for a restart, nobody is connected for longer than the grace
        await asyncio.sleep(1.5 * instances.GRACE_S)
        proxy.is_open = True

        assert await one.alive(two.own)
        assert await two.alive(one.own)


async def test_session_that_the_server_still_holds_is_replaced(
    log: PostgresAddress,
) -> None:
    async with proxied(log) as (proxy, through):
        async with PostgresInstances.open(through) as one:
            proxy.silence()  # the server sees an open connection
            proxy._pairs.clear()
            one._session.drop()

            await one.announce(["model/n/m"])

            async with PostgresInstances.open(log) as two:
                assert await two.announced() == {"model/n/m"}


async def test_announcement_fails_while_the_server_is_away(
    log: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "PATIENCE_S", 0.2)
    monkeypatch.setattr(session, "LONGEST_WAIT_S", 0.05)
    async with (
        proxied(log) as (proxy, through),
        PostgresInstances.open(through) as one,
    ):
        proxy.is_open = False
        proxy.cut()
        with pytest.raises(StoreUnavailableError, match="cannot be reached"):
            await one.announce(["model/n/m"])
        async with asyncio.timeout(20):
            while one.failure is None:
                await asyncio.sleep(0.01)
        proxy.is_open = True
        await asyncio.sleep(session.LONGEST_WAIT_S)
        await one.announce(["model/n/m"])
        async with asyncio.timeout(20):
            while one.failure is not None:
                await asyncio.sleep(0.01)


async def test_one_instance_holds_a_lease(log: PostgresAddress) -> None:
    async with PostgresInstances.open(log) as one:
        async with PostgresInstances.open(log) as two:
            assert await two.holder(LEASE) is None
            assert await one.hold(LEASE)
            assert await one.hold(LEASE)
            assert not await two.hold(LEASE)
            assert (await one.holds(LEASE), await two.holds(LEASE)) == (True, False)
            assert await two.hold("node/other")
            assert await two.holder(LEASE) == one.own

            await one.release(LEASE)
            assert await two.hold(LEASE)
            assert not await one.hold(LEASE)
        async with asyncio.timeout(15):  # the server notices the end of the session
            while not await one.hold(LEASE):
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSTOP])
async def test_lease_of_a_dead_or_stopped_process_is_taken_over(
    log: PostgresAddress, monkeypatch: pytest.MonkeyPatch, death: signal.Signals
) -> None:
    monkeypatch.setattr(instances, "FROZEN_S", 3.0)  # its process beats once a second
    joint = "&" if "?" in log.url else "?"
    process = subprocess.Popen(  # noqa: ASYNC220 - its output is one line
        [sys.executable, "-c", HOLDING, f"{log.url}{joint}schema={log.schema}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        other = (await asyncio.to_thread(process.stdout.readline)).strip()
        async with PostgresInstances.open(log) as one:
            assert not await one.hold(LEASE)
            assert await one.holder(LEASE) == other
            process.send_signal(death)
            async with asyncio.timeout(15):
                while not await one.hold(LEASE):
                    await asyncio.sleep(0.1)
            assert await one.holder(LEASE) == one.own
            if death is signal.SIGSTOP:
                process.send_signal(signal.SIGCONT)
                answer, _ = await asyncio.to_thread(process.communicate, "\n")
                assert answer.strip() == "False"  # it finds out before it records


async def test_lease_ends_with_the_connection(log: PostgresAddress) -> None:
    async with (
        proxied(log) as (proxy, through),
        PostgresInstances.open(log) as one,
        PostgresInstances.open(through) as two,
    ):
        assert await two.hold(LEASE)
        proxy.cut()
        async with asyncio.timeout(15):
            while not await one.hold(LEASE):
                await asyncio.sleep(0.05)
        assert not await two.holds(LEASE)
        assert not await two.hold(LEASE)
