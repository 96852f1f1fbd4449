"""The contract of stores, for every store of Herdbook."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from herdbook.events.memory import MemoryEventStore
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.postgres.store import PostgresEventStore
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.testing import (
    CONTRACT,
    IMPORT_CONTRACT,
    SHARED_CONTRACT,
    Case,
    Store,
    name_of,
)


@pytest.mark.parametrize("case", CONTRACT + IMPORT_CONTRACT, ids=name_of)
async def test_memory_store_keeps_the_contract(case: Case) -> None:
    await case(MemoryEventStore)


@pytest.mark.parametrize(
    "case", CONTRACT + SHARED_CONTRACT + IMPORT_CONTRACT, ids=name_of
)
async def test_sqlite_store_keeps_the_contract(case: Case, tmp_path: Path) -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        async with await SQLiteEventStore.open(tmp_path / "herd.db") as store:
            yield store

    await case(opened)


@pytest.mark.parametrize(
    "case", CONTRACT + SHARED_CONTRACT + IMPORT_CONTRACT, ids=name_of
)
async def test_postgres_store_keeps_the_contract(
    case: Case, address: PostgresAddress
) -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        async with await PostgresEventStore.open(address) as store:
            yield store

    await case(opened)
