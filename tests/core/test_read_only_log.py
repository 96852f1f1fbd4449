"""A log that cannot be written can be read, without requests or changes."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.manager_fixture import serve_sandbox

UNPRIVILEGED = """
import asyncio, json, os, sys
from pathlib import Path
import structlog
from herdbook.core import HerdbookError, ModelManager, ModelRegistry
from herdbook.core.checks.log import check_log
from herdbook.core.clock import SystemClock
from herdbook.core.ollama.client import OllamaClient

log, registry = Path(sys.argv[1]), ModelRegistry()
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def import_everything():
    async with ModelManager.open(":memory:", ollama="127.0.0.1:9") as manager:
        await manager.verify()

asyncio.run(import_everything())  # this user may not be able to read the modules later
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

def opened(**options):
    return ModelManager.open(log, ollama=sys.argv[2], registry=registry, **options)

async def error_of(work):
    try:
        await work
    except HerdbookError as error:
        return [type(error).__name__, error.state]

async def open_to_write():
    async with opened():
        pass

async def main():
    async with opened(reading=True) as manager:
        found = {
            "models": [status.name for status in await manager.all_statuses()],
            "position": (await manager.head()).position,
            "findings": [each.message for each in (await manager.verify()).findings],
            "use": await error_of(manager.mark_used("llama3.2:3b")),
            "delete": await error_of(manager.delete("llama3.2:3b")),
        }
    checks = check_log(log, SystemClock().now())
    found["doctor"] = [[each.check, each.level] for each in checks]
    found["writing"] = await error_of(open_to_write())
    return found

print(json.dumps(asyncio.run(main())))
"""


def address(log: Path) -> str:
    """Return the address of the server in a log; nothing answers there any more."""
    with closing(sqlite3.connect(f"{log.as_uri()}?mode=ro&immutable=1", uri=True)) as c:
        query = "SELECT data ->> 'url' FROM events WHERE type = 'NodeReached'"
        found: str = c.execute(query).fetchone()[0]
    return found


def read_unprivileged(log: Path) -> dict[str, Any]:
    """Read a log as a user who may not write it; return what the manager says."""
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, str(log), address(log)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a closed log of some models, which every user may read."""

    async def record() -> None:
        async with (
            serve_sandbox("some") as server,
            server.open_manager(tmp_path / "recorded.db"),
        ):
            pass

    asyncio.run(record())
    media = tmp_path / "media"
    media.mkdir()
    shutil.copyfile(tmp_path / "recorded.db", media / "herd.db")
    return media / "herd.db"


@pytest.fixture
def protect(log: Path) -> Iterator[None]:
    """Make the directory of the log read-only at once, and writable at the end."""
    for directory in log.parents:
        if directory.owner() == log.owner() and directory.name not in {"", "root"}:
            directory.chmod(0o755)
    yield
    log.parent.chmod(0o755)


def make_read_only(log: Path) -> dict[str, tuple[bytes, int]]:
    """Take the right to write from all files; return the content of each."""
    for file in filter(Path.is_file, log.parent.iterdir()):
        file.chmod(0o444)
    log.parent.chmod(0o555)
    return content(log)


def content(log: Path) -> dict[str, tuple[bytes, int]]:
    """Return the files next to a log: content and time of change."""
    files = sorted(file for file in log.parent.iterdir() if file.is_file())
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


@pytest.mark.usefixtures("protect")
def test_complete_file_is_read_in_place(log: Path) -> None:
    before = make_read_only(log)

    found = read_unprivileged(log)

    assert "llama3.2:3b" in found["models"]
    assert found["position"] > len(found["models"])
    assert found["findings"] == []
    assert found["doctor"] == [["log", "warning"]]
    assert content(log) == before


@pytest.mark.usefixtures("protect")
def test_changes_are_refused_before_any_request(log: Path) -> None:
    make_read_only(log)

    found = read_unprivileged(log)

    for refused in (found["use"], found["delete"]):
        assert refused[0] == "StoreUnavailableError"
        assert "cannot be written" in refused[1]
    assert found["writing"] == ["StoreUnavailableError", "cannot be read and written"]


@pytest.mark.usefixtures("protect")
def test_events_in_the_wal_are_read(log: Path) -> None:
    with closing(sqlite3.connect(log)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        last = connection.execute("SELECT max(position) FROM events").fetchone()[0]
        append_again(log, last)
        for ending in ("", "-wal"):
            shutil.copyfile(f"{log}{ending}", log.parent / f"copied.db{ending}")
    copied = log.with_name("copied.db")
    assert Path(f"{copied}-wal").stat().st_size > 0
    before = make_read_only(log)

    found = read_unprivileged(copied)

    assert found["position"] > last
    assert found["findings"] == []
    assert content(log) == before


def append_again(log: Path, last: int) -> None:
    """Append one event to a log that stays open elsewhere, so that it is in the wal."""

    async def append() -> None:
        async with serve_sandbox("some") as server:
            opened = server.open_manager(log, refresh=False)
            async with opened as manager:
                await manager.configure("llama3.2:3b", num_ctx=4096)
                assert (await manager.head()).position > last

    asyncio.run(append())


@pytest.mark.usefixtures("protect")
def test_log_of_an_older_schema_is_read(log: Path) -> None:
    fixture = Path(__file__).parents[1] / "fixtures" / "schema-1.db"
    shutil.copyfile(fixture, log)
    before = make_read_only(log)

    found = read_unprivileged(log)

    assert found["position"] > 0
    assert found["findings"] == []
    assert content(log) == before
