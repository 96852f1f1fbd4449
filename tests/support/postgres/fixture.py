"""One PostgreSQL server per run of the tests, and a schema of its own per test.

``HERDBOOK_POSTGRES`` names another server, as an address whose user may create schemas.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from support.postgres import server as program

from herdbook.events.postgres.address import PostgresAddress

if TYPE_CHECKING:
    import psycopg

NAMED = os.environ.get("HERDBOOK_POSTGRES")

START_S = 60.0
"""Longest time for the start of the server, seconds, on a busy machine."""


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a server; it is started by the first test that needs it."""
    if NAMED:
        return NAMED
    base = tmp_path_factory.getbasetemp()
    in_worker = "PYTEST_XDIST_WORKER" in os.environ
    shared = base.parent if in_worker else base
    run = os.getppid() if in_worker else os.getpid()
    address = shared / "postgres.url"
    with (shared / "postgres.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not address.exists():
            _start(address, run)
    return address.read_text()


def _start(address: Path, run: int) -> None:
    output = address.with_suffix(".output")
    with output.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", program.__name__, str(address), str(run)],
            cwd=Path(program.__file__).parents[program.__name__.count(".")],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    server.returncode = 0  # it outlives this process, which must not warn of that
    deadline = time.monotonic() + START_S
    while not address.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(output.read_text())
        time.sleep(0.05)


@pytest.fixture
def address(postgres: str) -> Iterator[PostgresAddress]:
    """The address of a log that does not exist yet, in a schema of its own."""
    schema = f"test_{uuid4().hex}"
    yield PostgresAddress(with_schema(postgres, schema))
    import psycopg  # noqa: PLC0415 - most tests need no driver

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())


def with_schema(url: str, schema: str) -> str:
    """Return the address of a log: a server, and the schema of the log."""
    return f"{url}{'&' if '?' in url else '?'}schema={schema}"


@asynccontextmanager
async def administrator(
    address: PostgresAddress,
) -> AsyncIterator[psycopg.AsyncConnection]:
    """A plain connection to the tables of a log, for faults and for checks."""
    import psycopg  # noqa: PLC0415 - most tests need no driver

    async with await psycopg.AsyncConnection.connect(address.url) as connection:
        await connection.execute(f"SET search_path = {address.schema}".encode())
        await connection.commit()
        yield connection
        if not connection.closed:
            await connection.rollback()
