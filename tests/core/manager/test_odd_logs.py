"""Logs with odd events of older versions or other programs answer every query."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.manager_fixture import serve_sandbox
from support.odd_log import (
    MODEL,
    ODD,
    STREAM,
    alter,
    append_raw,
    new_log,
    odd_log,
    write_invalid_utf8,
)

from herdbook.core import Level, ManagerSettings, ModelManager, ModelState
from herdbook.core.doctor import DoctorOptions, examine
from herdbook.events import facts
from herdbook.events.errors import WrongStreamError
from herdbook.events.findings import Kind
from herdbook.events.memory import MemoryEventStore
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY, EventStore
from herdbook.events.testing.base import event

FIXTURE = Path(__file__).parents[2] / "fixtures" / "unbounded-count.db"


async def everything(manager: ModelManager) -> None:
    """Ask all that a log can answer."""
    end = (await manager.head()).position
    for name in [*(one.name for one in await manager.all_statuses()), "never:seen"]:
        await manager.get_status(name)
        await manager.history(name)
        await manager.why(name)
        await manager.statistics(name)
        await manager.capabilities(name)
        await manager.options_for(name)
    for position in range(end + 1):
        await manager.as_of(position)
    moment = (await manager.now()).node_status().since
    if moment is not None:
        await manager.position_at(moment)
    await manager.diff(0, end)
    await manager.history()
    await manager.explain("general")
    await manager.suggest("coding")
    await manager.freeze()
    for newest_first in (False, True):
        page = await manager.read_log(limit=100, newest_first=newest_first)
        assert len(page.events) == end


@pytest.mark.parametrize("what", ODD)
async def test_odd_log_still_answers_every_query(what: str, tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    position = odd_log(log, what)
    async with serve_sandbox("some") as server:
        async with server.open_manager(log, refresh=False) as manager:
            await everything(manager)
            found = (await manager.verify()).findings
        assert (position, ODD[what].kind) in {(f.position, f.kind) for f in found}
        async with server.open_manager(
            log, settings=ManagerSettings(snapshot_every=1)
        ) as manager:
            await everything(manager)
            status = await manager.load(MODEL)
            assert status.state is ModelState.LOADED
            await manager.refresh()
            await manager.unload(MODEL)
        async with server.open_manager(log) as again:  # from its snapshots
            await everything(again)
            assert not [
                one for one in (await again.verify()).findings if one not in found
            ]


@pytest.mark.parametrize("what", ODD)
async def test_doctor_reports_an_odd_event(what: str, tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    position = odd_log(log, what)
    async with serve_sandbox("some") as server:
        found = await examine(DoctorOptions(log=log, ollama=server.url))
    result = [each for each in found if each.check == "events"]
    if ODD[what].kind is Kind.NAME:
        assert [each.level for each in result] == [Level.OK]
    else:
        assert {each.level for each in result} == {Level.NOTICE}
        assert all(each.what.startswith(f"#{position} ") for each in result)
        assert all("herdbook log --after" in each.remedy for each in result)


async def test_illegal_event_moves_the_state_that_it_names(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    position = odd_log(log, "load of an absent model")
    async with (
        serve_sandbox("some") as server,
        server.open_manager(log, refresh=False) as manager,
    ):
        status = await manager.get_status("absent:1b")
        assert status.state is ModelState.LOADED
        assert status.why is not None
        assert status.why.position == position
        (finding,) = (await manager.now()).findings
        assert finding.message == (
            "ModelLoaded is illegal in model/local/absent:1b: "
            "the model was not present. From this event on, it is treated as loaded"
        )
        assert finding in (await manager.verify()).findings
        await manager.refresh()
        assert not await manager.is_available("absent:1b")


async def test_illegal_event_without_a_state_changes_nothing(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    new_log(log)
    async with serve_sandbox("some") as server:
        async with server.open_manager(log, refresh=False) as manager:
            before = await manager.get_status(MODEL)
        append_raw(log, STREAM, "UpdateProgressed", {"completed_bytes": 1})
        async with server.open_manager(log, refresh=False) as manager:
            after = await manager.get_status(MODEL)
    assert after.version == before.version + 1
    after.version = before.version
    assert after == before


@pytest.mark.parametrize(
    ("table", "column", "where"),
    [
        ("views", "name", "name = 'status'"),
        ("views", "hash", "name = 'status'"),
        ("views", "checksum", "name = 'statistics'"),
    ],
)
async def test_snapshot_that_is_not_utf_8_is_ignored_and_reported(
    table: str, column: str, where: str, tmp_path: Path
) -> None:
    log = tmp_path / "herd.db"
    async with serve_sandbox("some") as server:
        async with server.open_manager(log, settings=ManagerSettings(snapshot_every=1)):
            pass
        async with server.open_manager(log, refresh=False) as manager:
            expected = await manager.all_statuses()
        write_invalid_utf8(log, table, column, where)
        async with server.open_manager(log, refresh=False) as manager:
            assert await manager.all_statuses() == expected
            found = (await manager.verify()).findings
        assert {one.kind for one in found} <= {Kind.SNAPSHOT, Kind.FILE}
        assert found


async def test_head_row_that_is_not_utf_8_stops_only_appends(tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    new_log(log)
    alter(log, "UPDATE head SET hash = CAST(x'ff' AS TEXT)")
    async with (
        serve_sandbox("some") as server,
        server.open_manager(log, refresh=False) as manager,
    ):
        await everything(manager)
        found = (await manager.verify()).findings
    assert Kind.HEAD in {one.kind for one in found}


async def test_log_of_an_older_version_with_an_unbounded_count_opens(
    tmp_path: Path,
) -> None:
    log = tmp_path / "herd.db"
    log.write_bytes(FIXTURE.read_bytes())
    async with (
        serve_sandbox("some") as server,
        server.open_manager(log, refresh=False) as manager,
    ):
        await everything(manager)
        (finding,) = (await manager.verify()).findings
        assert finding.kind is Kind.DATA
        assert (await manager.now()).findings[0].position == finding.position


@pytest.mark.parametrize(
    ("stream", "fact"),
    [
        ("model/local/a:b", facts.NodeReached(url="u", version="1")),
        ("node/local", facts.ModelUsed()),
        ("notes", facts.ModelUsed()),
        ("notes", facts.NodeReached(url="u", version="1")),
        ("model/local/", facts.ModelUsed()),
        ("model//a:b", facts.ModelUsed()),
        ("node/", facts.NodeReached(url="u", version="1")),
    ],
)
async def test_append_to_a_wrong_stream_is_refused_as_a_whole(
    stream: str, fact: facts.Fact, tmp_path: Path
) -> None:
    async def refuse(store: EventStore) -> None:
        right = event() if stream.startswith("model/local/a") else event(fact=fact)
        with pytest.raises(WrongStreamError) as refused:
            await store.append(stream, [right, event(fact=fact)], ANY)
        assert refused.value.stream == stream
        assert (await store.head()).position == 0

    await refuse(MemoryEventStore())
    async with await SQLiteEventStore.open(tmp_path / "herd.db") as store:
        await refuse(store)
