"""A log with events that cannot be read: it opens, and the others count."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from support.manager_fixture import SandboxServer, serve_manager, serve_sandbox
from support.odd_log import append_raw

from herdbook.core import CallerError, Level, ManagerSettings, ModelManager, ModelState
from herdbook.core.views import restore
from herdbook.events import facts
from herdbook.events.findings import Kind
from herdbook.events.recorded import Cause, NewEvent
from herdbook.events.sqlite.store import SQLiteEventStore

NAME = "plain:latest"
STREAM = f"model/local/{NAME}"
HUGE = 10**400

POISON: dict[str, tuple[str, str, Any]] = {
    "huge size": (STREAM, "ModelUpdated", {"digest": "d", "size_bytes": HUGE}),
    "negative size": (STREAM, "ModelUpdated", {"digest": "d", "size_bytes": -1}),
    "huge runner": (
        STREAM,
        "ModelLoaded",
        {"runner": {"name": NAME, "digest": "d", "size_bytes": HUGE}},
    ),
    "huge parameter count": (
        STREAM,
        "CapabilitiesDetected",
        {"digest": "d", "capabilities": {}, "parameter_count": HUGE},
    ),
    "not JSON": (STREAM, "ModelUsed", "{"),
    "unknown field": (STREAM, "ModelUsed", {"purpose": "", "mood": "good"}),
    "new model of huge size": (
        "model/local/new:latest",
        "ModelDiscovered",
        {"digest": "d", "size_bytes": HUGE},
    ),
    "empty name": (
        "model/local/",
        "ModelDiscovered",
        {"digest": "d", "size_bytes": 1},
    ),
    "name that is none": (
        "model/local/a b\\c",
        "ModelDiscovered",
        {"digest": "d", "size_bytes": 1},
    ),
    "node": ("node/local", "NodeReached", {"version": 7}),
}


KINDS = {"empty name": Kind.STREAM, "name that is none": Kind.NAME}
"""The findings that are not about the data."""


@asynccontextmanager
async def poisoned(
    what: str, folder: Path, **settings: Any
) -> AsyncIterator[tuple[SandboxServer, Path, int]]:
    """Keep a log of a server, and append an event that cannot be read."""
    log = folder / "herd.db"
    async with serve_sandbox() as server:
        async with server.open_manager(log, settings=ManagerSettings(**settings)):
            pass
        yield server, log, append_raw(log, *POISON[what])


async def everything(manager: ModelManager, position: int) -> None:
    """Ask all that a log can answer."""
    await manager.all_statuses()
    await manager.recommend("general")
    await manager.history()
    await manager.history(NAME)
    await manager.why(NAME)
    await manager.statistics(NAME)
    await manager.as_of(position)
    await manager.diff(position - 1, position)
    await manager.get_status("never:heard-of")
    await manager.read_log(after=position - 1, limit=5)


@pytest.mark.parametrize("what", POISON)
async def test_log_with_an_event_that_cannot_be_read_continues(
    what: str, tmp_path: Path
) -> None:
    async with poisoned(what, tmp_path) as (server, log, position):
        async with server.open_manager(log) as manager:
            await everything(manager, position)
            await manager.load(NAME)
            await manager.unload(NAME)
            await manager.refresh()
            names = {status.name for status in await manager.all_statuses()}
            assert {NAME, "llava:7b"} <= names
            assert (await manager.get_status(NAME)).size_bytes is not None
            end = (await manager.head()).position
            await manager.refresh()
            assert (await manager.head()).position == end, "a refresh settles"
            entry = (await manager.read_log(after=position - 1, limit=1)).events[0]
            assert entry.position == position
            verification = await manager.verify()
        found = {(f.position, f.kind) for f in verification.findings}
        assert (position, KINDS.get(what, Kind.DATA)) in found


async def test_type_of_an_unreadable_event_still_moves_the_state(
    tmp_path: Path,
) -> None:
    async with (
        poisoned("huge runner", tmp_path) as (server, log, position),
        server.open_manager(log, refresh=False) as manager,
    ):
        status = await manager.get_status(NAME)
        assert status.state is ModelState.LOADED
        assert status.runner is None
        (finding,) = (await manager.now()).findings
        assert (finding.position, finding.kind) == (position, Kind.DATA)
        sentence = (await manager.history(NAME))[-1].sentence
        assert sentence.startswith("cannot be read")


async def test_doctor_names_what_cannot_be_read(tmp_path: Path) -> None:
    from herdbook.core.doctor import DoctorOptions, examine  # noqa: PLC0415

    async with poisoned("not JSON", tmp_path) as (server, log, position):
        found = await examine(DoctorOptions(log=log, ollama=server.url, node="local"))
        (events,) = [each for each in found if each.check == "events"]
        assert events.level is Level.NOTICE
        assert f"#{position}" in events.what


@pytest.mark.parametrize(
    "fact",
    [
        facts.ModelUpdated(digest="d", size_bytes=HUGE),
        facts.ModelUpdated(digest="d", size_bytes=-1),
        facts.ModelLoaded(runner=facts.Runner(name="n", digest="d", size_bytes=HUGE)),
        facts.ConfigurationChanged(set={"seed": 1 << 64}, unset=(), note=""),
        facts.ConfigurationChanged(set={"seed": -(1 << 70)}, unset=(), note=""),
        facts.ModelLoaded(
            runner=facts.Runner(name="n", digest="d"), duration_s=float("nan")
        ),
        facts.ModelUsed(purpose="\ud800"),
        facts.UnreadableFact(data="{}", reason="made up"),
    ],
)
async def test_events_that_cannot_be_read_back_are_not_recorded(
    fact: facts.Fact,
) -> None:
    async with serve_manager() as (_, manager):
        store = manager._storage.store
        before = await store.head()
        event = NewEvent(
            fact=fact,
            occurred_at=manager._clock.now(),
            actor="library:test",
            cause=Cause.COMMAND,
        )
        version = await store.stream_version(STREAM)
        with pytest.raises(CallerError):
            await store.append(STREAM, [event], version)
        assert await store.head() == before


async def test_every_altered_bit_of_a_snapshot_is_noticed(tmp_path: Path) -> None:
    log, settings = tmp_path / "herd.db", ManagerSettings(snapshot_every=1)
    async with serve_sandbox() as server:
        async with server.open_manager(log, settings=settings) as manager:
            await manager.load(NAME)
        async with server.open_manager(log, refresh=False) as manager:
            expected = [view.dump() for view in all_views(manager._repository.views)]
    with closing(sqlite3.connect(log)) as connection, connection:
        (data,) = connection.execute(
            "SELECT data FROM views WHERE name = 'status'"
        ).fetchone()
    chance = Random(7)
    for _ in range(200):
        bit = chance.randrange(len(data) * 8)
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        set_snapshot(log, bytes(altered))
        async with await SQLiteEventStore.open(log) as store:
            views = await restore(store, store)
        assert [view.dump() for view in all_views(views)] == expected
    async with (
        serve_sandbox() as server,
        server.open_manager(log, refresh=False) as manager,
    ):
        findings = (await manager.verify()).findings
    assert Kind.SNAPSHOT in {finding.kind for finding in findings}


async def test_snapshot_with_a_valid_checksum_is_compared_with_a_replay(
    tmp_path: Path,
) -> None:
    log, settings = tmp_path / "herd.db", ManagerSettings(snapshot_every=1)
    async with serve_sandbox() as server:
        async with server.open_manager(log, settings=settings):
            pass
        async with await SQLiteEventStore.open(log) as store:
            view = await store.load_view("status")
            assert view is not None
            altered = view.data.replace(b'"size_bytes":', b'"size_bytes":1', 1)
            await store.save_view(msgspec.structs.replace(view, data=altered))
        async with server.open_manager(log, refresh=False) as manager:
            findings = (await manager.verify()).findings
    assert [finding.kind for finding in findings] == [Kind.SNAPSHOT]


def all_views(views: Any) -> list[Any]:
    return [views.status, views.recommendation, views.statistics]


def set_snapshot(log: Path, data: bytes) -> None:
    with closing(sqlite3.connect(log)) as connection, connection:
        connection.execute("UPDATE views SET data = ? WHERE name = 'status'", [data])
