"""Living instances of a log in a database: deaths, lost connections, restarts."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.postgres.dropping_proxy import proxied
from support.postgres.fixture import administrator, with_schema

from herdbook.events.errors import LeaseLostError, StoreUnavailableError
from herdbook.events.postgres import instances, session
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.instances import PostgresInstances
from herdbook.events.postgres.store import PostgresEventStore
from herdbook.events.recorded import new_id
from herdbook.events.store import ANY
from herdbook.events.testing.base import event

LEASE = "node/local"

HOLDING = """
import asyncio, sys
from herdbook.events.errors import LeaseLostError
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.instances import PostgresInstances
from herdbook.events.postgres.store import PostgresEventStore
from herdbook.events.store import ANY
from herdbook.events.testing.base import event

async def main():
    log = PostgresAddress(sys.argv[1])
    async with (
        await PostgresEventStore.open(log) as store, PostgresInstances.open(log) as own
    ):
        await own.announce(["model/n/m"])
        await own.hold("node/local")
        fence = own.fence("node/local")
        await store.append("model/n/m", [event()], ANY, fence=fence)
        print(own.own, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        try:
            await store.append("model/n/m", [event()], ANY, fence=fence)
        except LeaseLostError:
            print("lost", flush=True)

asyncio.run(main())
"""


async def holder_id(own: PostgresInstances) -> str | None:
    holder = (await own.holders([LEASE])).get(LEASE)
    return None if holder is None else holder.instance


@pytest.fixture
def log(address: PostgresAddress, monkeypatch: pytest.MonkeyPatch) -> PostgresAddress:
    """A log whose instances count as dead soon."""
    monkeypatch.setattr(instances, "GRACE_S", 1.0)
    monkeypatch.setattr(instances, "HEARTBEAT_S", 0.2)

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
    other = PostgresAddress(with_schema(postgres, f"{log.schema}_b"))
    await (await PostgresEventStore.open(other)).close()
    async with PostgresInstances.open(log) as one:
        async with PostgresInstances.open(other) as two:
            await two.announce(["model/n/a"])
            assert await one.announced() == frozenset()
            assert not await one.alive(two.own)
    async with administrator(other) as connection:
        await connection.execute(f"DROP SCHEMA {other.schema} CASCADE".encode())
        await connection.commit()


@asynccontextmanager
async def other_process(
    log: PostgresAddress,
) -> AsyncIterator[tuple[subprocess.Popen[str], str]]:
    """Run ``HOLDING`` on a log; yield the process and the id of its instance."""
    process = subprocess.Popen(  # noqa: ASYNC220 - its output is one line
        [sys.executable, "-c", HOLDING, with_schema(log.url, log.schema)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        yield process, (await asyncio.to_thread(process.stdout.readline)).strip()


async def test_killed_process_is_dead_after_the_grace(log: PostgresAddress) -> None:
    async with (
        other_process(log) as (process, other),
        PostgresInstances.open(log) as one,
    ):
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


async def test_no_instance_counts_as_dead_just_after_a_restart(
    log: PostgresAddress,
) -> None:
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
            assert await two.holders([LEASE]) == {}
            assert await one.hold(LEASE)
            assert await one.hold(LEASE)
            assert not await two.hold(LEASE)
            assert (await one.holds(LEASE), await two.holds(LEASE)) == (True, False)
            assert await two.hold("node/other")
            assert await holder_id(two) == one.own

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
    async with (
        other_process(log) as (process, other),
        PostgresInstances.open(log) as one,
    ):
        assert not await one.hold(LEASE)
        assert await holder_id(one) == other
        process.send_signal(death)
        async with asyncio.timeout(15):
            while not await one.hold(LEASE):
                await asyncio.sleep(0.1)
        assert await holder_id(one) == one.own
        if death is signal.SIGSTOP:
            process.send_signal(signal.SIGCONT)
            answer, _ = await asyncio.to_thread(process.communicate, "\n")
            assert answer.strip() == "lost"  # although nothing asked before


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


async def test_append_of_a_group_under_a_lost_lease_is_refused_alone(
    log: PostgresAddress,
) -> None:
    async with (
        await PostgresEventStore.open(log) as store,
        PostgresInstances.open(log) as one,
        PostgresInstances.open(log) as two,
    ):
        assert await one.hold(LEASE)
        assert await two.hold("node/other")
        lost, held = two.fence(LEASE), two.fence("node/other")

        outcomes = await asyncio.gather(
            store.append("model/n/a", [event()], ANY, fence=lost),
            store.append("model/n/b", [event()], ANY, fence=held),
            store.append("model/n/c", [event()], ANY),
            return_exceptions=True,
        )

        assert isinstance(outcomes[0], LeaseLostError)
        streams = [found.stream async for found in store.read_all()]
        assert streams == ["model/n/b", "model/n/c"]


async def test_frozen_instance_of_another_role_is_reported_and_left(
    log: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances, "FROZEN_S", 0.0)
    role = f"herdbook_{new_id().replace('-', '')}"
    async with administrator(log) as admin:
        for statement in (
            f"CREATE ROLE {role} LOGIN PASSWORD 'secret'",
            f"GRANT USAGE ON SCHEMA {log.schema} TO {role}",
            f"GRANT ALL ON ALL TABLES IN SCHEMA {log.schema} TO {role}",
        ):
            await admin.execute(statement.encode())
        await admin.commit()
        url = with_schema(log.url, log.schema)
        limited = PostgresAddress(f"{url}&user={role}&password=secret")
        async with PostgresInstances.open(log) as one:
            async with PostgresInstances.open(limited) as two:
                assert await one.hold(LEASE)
                assert not await two.hold(LEASE)
                assert re.search(
                    rf"process {os.getpid()} on .*GRANT pg_signal_backend",
                    str(two.problem()),
                )
                await one.release(LEASE)
                assert await two.hold(LEASE)
                assert two.problem() is None
        await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
        await admin.commit()
