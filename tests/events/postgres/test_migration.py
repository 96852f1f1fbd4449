"""Creating and migrating a log, by several instances, and what is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from support.postgres.fixture import administrator, with_schema

from herdbook.events.errors import (
    NewerSchemaError,
    NotALogError,
    StoreError,
    StoreUnavailableError,
)
from herdbook.events.postgres import migration, session
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.condition import examine, log_exists
from herdbook.events.postgres.errors import NotPermittedError
from herdbook.events.postgres.instances import PostgresInstances
from herdbook.events.postgres.schema import MIGRATIONS, NEWEST, QUERIES
from herdbook.events.postgres.store import PostgresEventStore
from herdbook.events.recorded import GENESIS
from herdbook.events.shared.group import draft_append, plan_group
from herdbook.events.snapshots import StoredView
from herdbook.events.store import ANY, Head
from herdbook.events.testing.base import assert_sound, event, log_of


@asynccontextmanager
async def role(
    address: PostgresAddress, *settings: str
) -> AsyncIterator[PostgresAddress]:
    """Create a user; yield the address with that user."""
    name = f"test_{uuid4().hex}"
    parts = urlsplit(address.url)
    _, _, host = parts.netloc.rpartition("@")
    url = parts._replace(netloc=f"{name}:secret@{host}").geturl()
    async with await psycopg.AsyncConnection.connect(
        address.url, autocommit=True
    ) as admin:
        user = sql.Identifier(name)
        await admin.execute(sql.SQL("CREATE USER {} PASSWORD 'secret'").format(user))
        for setting in settings:
            await admin.execute(f"ALTER USER {name} SET {setting}".encode())
        try:
            yield PostgresAddress(with_schema(url, address.schema))
        finally:
            await admin.execute(sql.SQL("DROP OWNED BY {}").format(user))
            await admin.execute(sql.SQL("DROP USER {}").format(user))


async def test_instances_that_start_at_once_make_one_log(
    address: PostgresAddress,
) -> None:
    stores = await asyncio.gather(*(PostgresEventStore.open(address) for _ in range(8)))
    try:
        await asyncio.gather(
            *(store.append("model/n/m", [event()], ANY) for store in stores)
        )
        assert len(await log_of(stores[0])) == 8
        await assert_sound(stores[0])
    finally:
        for store in stores:
            await store.close()


@pytest.mark.parametrize("schema", range(1, NEWEST))
async def test_instances_that_migrate_at_once_keep_an_older_log(
    schema: int, address: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_group(
        [draft_append("model/n/m", [event(), event()], ANY)],
        head=Head(0, GENESIS),
        versions={"model/n/m": 0},
        recorded={},
        now=datetime.now(UTC),
    )
    with monkeypatch.context() as older:
        older.setattr(migration, "MIGRATIONS", MIGRATIONS[:schema])
        older.setattr(migration, "NEWEST", schema)
        append = QUERIES["append_group"].replace(b"AND head_is_at(%(last)s)", b"")
        older.setitem(QUERIES, "append_group", append)
        async with await PostgresEventStore.open(address) as store:
            await store.append_stored(plan.events, after=plan.begin)
            log = await log_of(store)

    stores = await asyncio.gather(*(PostgresEventStore.open(address) for _ in range(4)))

    await stores[0].append("model/n/m", [event()], 2)
    for store in stores:
        assert (await log_of(store))[:2] == log
        await assert_sound(store)
        await store.close()
    found = await examine(address)
    assert found is not None
    assert found.schema == NEWEST


async def test_examining_creates_nothing(address: PostgresAddress) -> None:
    assert not await log_exists(address)
    assert await examine(address) is None
    assert not await log_exists(address)
    async with await PostgresEventStore.open(address):
        assert await log_exists(address)
        found = await examine(address)
        assert found
        assert (found.schema, found.missing, found.head) == (NEWEST, (), found.last)


async def test_tables_of_another_program_are_left_alone(
    address: PostgresAddress,
) -> None:
    async with await psycopg.AsyncConnection.connect(address.url) as connection:
        for statement in ("CREATE SCHEMA {}", "CREATE TABLE {}.orders (id int)"):
            schema = sql.Identifier(address.schema)
            await connection.execute(sql.SQL(statement).format(schema))

    with pytest.raises(NotALogError, match=r"another program.*\?schema="):
        await PostgresEventStore.open(address)
    async with administrator(address) as connection:
        found = await connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s", (address.schema,)
        )
        assert await found.fetchall() == [("orders",)]


async def test_log_of_a_newer_version_is_refused(address: PostgresAddress) -> None:
    await (await PostgresEventStore.open(address)).close()
    async with administrator(address) as connection:
        await connection.execute("UPDATE herdbook_log SET schema_version = 99")
        await connection.commit()

    with pytest.raises(NewerSchemaError, match="schema 99"):
        await PostgresEventStore.open(address)


async def test_failed_migration_leaves_nothing(
    address: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (*MIGRATIONS, b"SELECT 1 FROM nothing")
    monkeypatch.setattr("herdbook.events.postgres.migration.MIGRATIONS", broken)
    with pytest.raises(StoreError, match="lacks a table"):
        await PostgresEventStore.open(address)

    assert not await log_exists(address)
    monkeypatch.undo()
    await (await PostgresEventStore.open(address)).close()


@pytest.mark.parametrize(
    "grant", ["ALTER SCHEMA {} OWNER TO {}", "GRANT USAGE, CREATE ON SCHEMA {} TO {}"]
)
async def test_log_is_created_in_a_schema_that_the_user_was_given(
    grant: str, address: PostgresAddress
) -> None:
    async with role(address) as user, administrator(address) as admin:
        names = map(sql.Identifier, (address.schema, urlsplit(user.url).username or ""))
        await admin.execute(f"CREATE SCHEMA {address.schema}".encode())
        await admin.execute(sql.SQL(grant).format(*names))
        await admin.commit()

        async with await PostgresEventStore.open(user) as store:
            (recorded,) = await store.append("model/n/m", [event()], ANY)

        assert recorded.position == 1


async def test_log_of_a_renamed_schema_is_the_one_that_is_written(
    address: PostgresAddress,
) -> None:
    former = PostgresAddress(with_schema(address.url, f"{address.schema}_former"))
    async with await PostgresEventStore.open(former) as store:
        await store.append("model/n/m", [event()], ANY)
    async with administrator(address) as admin:
        await admin.execute(
            f"ALTER SCHEMA {former.schema} RENAME TO {address.schema}".encode()
        )
        await admin.commit()
    async with (
        await PostgresEventStore.open(address) as store,
        await PostgresEventStore.open(former) as other,
        administrator(address) as admin,
    ):
        (recorded,) = await store.append("model/n/m", [event()], 1)

        assert (recorded.position, (await store.head()).position) == (2, 2)
        assert await log_of(other) == []
        await assert_sound(store)
        await other.close()
        await admin.execute(f"DROP SCHEMA {former.schema} CASCADE".encode())
        await admin.commit()


async def test_user_without_permission_is_refused_with_the_remedy(
    address: PostgresAddress,
) -> None:
    async with role(address) as stranger:
        with pytest.raises(StoreUnavailableError, match="GRANT CREATE ON DATABASE"):
            await PostgresEventStore.open(stranger)
        await (await PostgresEventStore.open(address)).close()
        with pytest.raises(StoreUnavailableError, match="does not permit"):
            await PostgresEventStore.open(stranger)


async def test_user_who_lost_a_privilege_continues_once_it_is_granted(
    address: PostgresAddress,
) -> None:
    async with (
        role(address) as user,
        await PostgresEventStore.open(address),
        administrator(address) as admin,
    ):
        names = f"{address.schema} %s {urlsplit(user.url).username}"
        await admin.execute(f"GRANT USAGE ON SCHEMA {names % 'TO'}".encode())
        tables = f"ALL ON ALL TABLES IN SCHEMA {names}"
        await admin.execute(f"GRANT {tables % 'TO'}".encode())
        await admin.commit()
        async with await PostgresEventStore.open(user) as store:
            events = store.subscribe(0)
            hearing = asyncio.ensure_future(anext(events))
            for what in ("USAGE ON SCHEMA", "ALL ON ALL TABLES IN"):
                lost = "ALL ON ALL TABLES IN SCHEMA" if "TABLES" in what else what
                await admin.execute(f"REVOKE {lost} {names % 'FROM'}".encode())
                await admin.commit()
                with pytest.raises(NotPermittedError, match=f"GRANT .*{what}"):
                    await store.append("model/n/m", [event()], ANY)
                await admin.execute(f"GRANT USAGE ON SCHEMA {names % 'TO'}".encode())
            await admin.execute(f"GRANT {tables % 'TO'}".encode())
            await admin.commit()

            (recorded,) = await store.append("model/n/m", [event()], ANY)

            async with asyncio.timeout(20):
                assert await hearing == recorded
            await events.aclose()
            own, gone = address.schema, f"{address.schema}_gone"
            await admin.execute(f"ALTER SCHEMA {own} RENAME TO {gone}".encode())
            await admin.commit()
            with pytest.raises(StoreUnavailableError, match="no longer has the schema"):
                await store.head()
            await admin.execute(f"ALTER SCHEMA {gone} RENAME TO {own}".encode())
            await admin.execute("UPDATE herdbook_log SET schema_version = 4")
            await admin.commit()
        with pytest.raises(NotPermittedError, match="with the user that owns the log"):
            await PostgresEventStore.open(user)


async def test_replica_is_refused_with_the_remedy(
    address: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "PATIENCE_S", 0.2)
    async with role(address, "default_transaction_read_only = on") as reader:
        with pytest.raises(
            StoreUnavailableError, match="is read-only: it is a replica"
        ):
            await PostgresEventStore.open(reader)


async def test_commits_are_durable_where_the_server_is_lax(
    address: PostgresAddress,
) -> None:
    async with role(address, "synchronous_commit = off") as lax:
        durable, relaxed = session.Session(lax), session.Session(lax, is_durable=False)
        for one, wanted in ((durable, "on"), (relaxed, "off")):
            await one.connect()
            assert one._connection
            found = await one._connection.execute("SHOW synchronous_commit")
            assert await found.fetchone() == (wanted,)
            await one.close()


SETTINGS_OF_AN_ADMINISTRATOR = (
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "idle_session_timeout = '10ms'",
    "lock_timeout = '1ms'",
    "jit = on",
    "jit_above_cost = 0",
    "quote_all_identifiers = on",
    "array_nulls = off",
    "search_path = 'pg_catalog'",
    "standard_conforming_strings = off",
    "bytea_output = 'escape'",
    "\"DateStyle\" = 'SQL, DMY'",
    "\"TimeZone\" = 'Asia/Kathmandu'",
    "synchronous_commit = off",
)


async def test_settings_of_the_user_do_not_matter(address: PostgresAddress) -> None:
    view = StoredView(name="v", version=1, position=1, hash="a" * 64, data=b"\0\\\xff'")
    async with (
        role(address, *SETTINGS_OF_AN_ADMINISTRATOR) as user,
        administrator(address) as admin,
    ):
        name = urlsplit(user.url).username
        await admin.execute(f"CREATE SCHEMA {address.schema}".encode())
        await admin.execute(f"ALTER SCHEMA {address.schema} OWNER TO {name}".encode())
        await admin.commit()
        async with (
            await PostgresEventStore.open(user) as store,
            PostgresInstances.open(user) as instances,
        ):
            await store.append("model/n/m", [event("\\ ' \" é")], ANY)
            await store.save_view(view)
            await asyncio.sleep(0.02)
            (recorded,) = await store.append("model/n/m", [event()], 1)

            assert recorded.position == 2
            assert await store.load_view("v") == view
            assert await instances.hold("node/n")
            assert store._writing._connection
            found = await store._writing._connection.execute("SHOW jit")
            assert await found.fetchone() == ("off",)
            await assert_sound(store)


async def test_database_must_have_unicode(postgres: str) -> None:
    name = f"test_{uuid4().hex}"
    url = urlsplit(postgres)._replace(path=f"/{name}").geturl()
    async with await psycopg.AsyncConnection.connect(
        postgres, autocommit=True
    ) as admin:
        await admin.execute(
            sql.SQL(
                "CREATE DATABASE {} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
            ).format(sql.Identifier(name))
        )
        try:
            with pytest.raises(StoreUnavailableError, match="encoding LATIN1"):
                await PostgresEventStore.open(PostgresAddress(url))
        finally:
            await admin.execute(f"DROP DATABASE {name}".encode())
