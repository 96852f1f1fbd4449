"""Export a log, or a part of it: every line can be checked without the log."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.log_lines import append, changed, export_of, lines_of

from herdbook.core import CallerError, Storage, SystemClock
from herdbook.core.proof.anchor import parse_anchors
from herdbook.core.transfer.contents import Selection
from herdbook.core.transfer.export import export, export_to_file
from herdbook.core.transfer.export_check import ExportCheck
from herdbook.core.transfer.import_events import check_export
from herdbook.events.errors import CorruptLogError
from herdbook.events.sqlite.store import SQLiteEventStore

CLOUD_EVENT = {"specversion", "id", "source", "type"}
"""The attributes that every CloudEvent has."""


async def checked(data: bytes, **trust: Any) -> ExportCheck:
    check = ExportCheck("a file", **trust)
    await check_export(io.BytesIO(data), check)
    return check


async def test_every_line_is_a_cloud_event_with_the_hash(log: Path) -> None:
    await append(log, 12)

    first, *events, last = lines_of(await export_of(log))

    assert [event["position"] for event in events] == list(range(1, 13))
    assert first["type"], last["type"] == (
        "herdbook-export.begin",
        "herdbook-export.end",
    )
    previous = "0" * 64
    for line in (first, *events, last):
        assert line.keys() >= CLOUD_EVENT
        assert line["specversion"] == "1.0"
        assert line["source"] == f"herdbook/{events[0]['id']}"
        assert all(name.isalnum() and name == name.lower() for name in line)
        assert all(value != "" for value in line.values())
    for event in events:  # as docs/export.md says
        canonical = {
            "actor": event["actor"],
            "causation_id": event.get("causationid"),
            "cause": event["cause"],
            "correlation_id": event.get("correlationid"),
            "data": event["data"],
            "event_id": event["id"],
            "occurred_at": event["time"],
            "position": event["position"],
            "recorded_at": event["recordedtime"],
            "schema": event["schemaversion"],
            "stream": event["subject"],
            "type": event["type"].removeprefix("herdbook."),
            "version": event["version"],
        }
        text = json.dumps(canonical, separators=(",", ":"), ensure_ascii=False)
        previous = hashlib.sha256((previous + text).encode()).hexdigest()
        assert event["chainhash"] == previous
    assert first["data"]["hash"] == last["data"]["hash"] == previous
    assert last["data"]["events"] == 12


@pytest.mark.parametrize("count", [1, 2, 9, 1030])
async def test_filtered_export_proves_each_event(log: Path, count: int) -> None:
    await append(log, count)
    stream = "model/local/m0:latest"

    data = await export_of(log, Selection(streams=(stream,)))

    first, *events, last = lines_of(data)
    assert events
    assert {event["subject"] for event in events} == {stream}
    assert first["data"]["complete"] is False
    assert first["data"]["streams"] == [stream]
    assert last["data"]["events"] == len(events)
    (anchor,) = parse_anchors(first["data"]["anchor"], source="")
    assert anchor.position == count
    check = await checked(data, anchors=[anchor])
    assert check.ending.events == len(events)


async def test_export_by_type_and_range(log: Path) -> None:
    await append(log, 20)

    by_type = lines_of(await export_of(log, Selection(types=("ModelUsed",))))
    below = lines_of(await export_of(log, Selection(streams=("model/local/",))))
    part = lines_of(await export_of(log, Selection(after=4, until=9)))

    assert {line["type"] for line in by_type[1:-1]} == {"herdbook.ModelUsed"}
    assert len(below) == 22
    assert [line["position"] for line in part[1:-1]] == [5, 6, 7, 8, 9]
    assert part[0]["data"]["complete"] is False


async def test_export_that_selects_nothing_is_valid(log: Path) -> None:
    await append(log, 3)

    data = await export_of(log, Selection(types=("NodeLost",)))

    assert (await checked(data)).ending.events == 0


@pytest.mark.parametrize(
    "selection", [Selection(), Selection(types=("ModelDiscovered",))]
)
async def test_any_altered_byte_of_an_event_is_found(
    log: Path, selection: Selection
) -> None:
    await append(log, 3)
    data = await export_of(log, selection)
    begin = data.index(b"\n") + 1
    end = data.index(b"\n", begin)

    for at in range(begin, end):
        altered = bytearray(data)
        altered[at] ^= 1
        try:
            check = await checked(bytes(altered))
        except (CorruptLogError, CallerError):
            continue
        pytest.fail(f"byte {at} was altered: {check.ending}")


async def test_attribute_that_is_there_twice_is_found(log: Path) -> None:
    await append(log, 3)
    lines = (await export_of(log)).splitlines(keepends=True)
    spaced = [line.replace(b'"source":', b'"source" : ') for line in lines]
    await checked(b"".join(spaced))  # other programs may format a line

    for at in range(len(lines)):
        twice = lines[at].replace(b"{", b'{"source":"x",', 1)
        with pytest.raises((CorruptLogError, CallerError)):
            await checked(b"".join((*lines[:at], twice, *lines[at + 1 :])))


@pytest.mark.parametrize(
    ("selection", "changes"),
    [
        (Selection(), {"streams": ["model/local/m0:latest"]}),
        (Selection(), {"after": 1}),
        (Selection(), {"previous": "1" * 64}),
        (Selection(until=4), {"complete": True}),
        (Selection(until=4), {"until": 7}),
        (Selection(after=2), {"after": -1}),
        (Selection(types=("ModelUsed",)), {"types": ["ModelLoaded"]}),
        (Selection(types=("ModelUsed",)), {"streams": ["model/local/m1:latest"]}),
        (Selection(types=("ModelUsed",)), {"after": 5}),
        (Selection(types=("ModelUsed",)), {"previous": "1" * 64}),
    ],
)
async def test_first_line_that_does_not_fit_the_events_is_found(
    log: Path, selection: Selection, changes: dict[str, Any]
) -> None:
    await append(log, 6)
    first, rest = (await export_of(log, selection)).split(b"\n", 1)
    line = json.loads(first)
    line["data"] |= changes

    with pytest.raises(CorruptLogError):
        await checked(json.dumps(line).encode() + b"\n" + rest)


async def test_anchor_of_another_log_is_found(log: Path) -> None:
    await append(log, 6)
    first, rest = (await export_of(log, Selection(until=4))).split(b"\n", 1)
    line = json.loads(first)
    anchor = line["data"]["anchor"]
    line["data"]["anchor"] = anchor.replace("herdbook/0", "herdbook/1")

    with pytest.raises(CorruptLogError, match="does not match its anchor"):
        await checked(json.dumps(line).encode() + b"\n" + rest)


async def test_lines_left_out_repeated_or_swapped_are_found(log: Path) -> None:
    await append(log, 6)
    for selection in (Selection(), Selection(types=("ModelUsed",))):
        lines = (await export_of(log, selection)).splitlines(keepends=True)
        for altered in (
            lines[:-1],
            lines[:2] + lines[3:],
            [*lines[:2], lines[1], *lines[2:]],
            [lines[0], lines[2], lines[1], *lines[3:]],
            [*lines, lines[1]],
            lines[1:],
            [],
        ):
            with pytest.raises((CorruptLogError, CallerError)):
                await checked(b"".join(altered))


async def test_damaged_log_is_not_exported(log: Path, tmp_path: Path) -> None:
    await append(log, 5)
    data = log.read_bytes()
    log.write_bytes(data.replace(b'"size_bytes":1', b'"size_bytes":2', 1))
    clock = SystemClock()

    async with Storage.open(log, clock) as storage:
        with pytest.raises(CorruptLogError, match="damaged"):
            await export_to_file(storage, tmp_path / "out.jsonl", clock)

    assert not list(tmp_path.glob("*.jsonl"))
    assert not list(tmp_path.glob(".herdbook-*"))


async def test_events_that_break_the_rules_of_cloud_events(log: Path) -> None:
    await append(log, 1)
    odd = {
        "data": '{"a" : 1e400, "b":\n[1.0]',
        "occurred_at": "yesterday",
        "actor": "mal\nlory",
        "correlation_id": "",
    }
    changed(log, odd)

    data = await export_of(log)

    _, _, line, _ = lines_of(data)
    columns = json.loads(base64.b64decode(line["original"]))
    assert odd.items() <= dict(zip(_names(log), columns, strict=True)).items()
    assert "data" not in line
    assert "time" not in line
    assert line["actor"] == "mallory"
    assert (await checked(data)).ending.events == 2


def _names(log: Path) -> list[str]:
    with closing(sqlite3.connect(log)) as connection:
        rows = connection.execute("PRAGMA table_info(events)")
        return [row[1] for row in rows]


async def test_export_ends_at_the_position_where_it_started(log: Path) -> None:
    await append(log, 3)
    written: list[bytes] = []

    async with await SQLiteEventStore.open(log) as store:

        class Slow:
            def write(self, data: bytes) -> None:
                written.append(data)

        clock = SystemClock()
        async with Storage.open(log, clock) as storage:
            exporting = export(storage, Slow(), clock)
            await append(store, 2, start=3)
            ending = await exporting
            assert ending.position == 5
            assert (await store.head()).position == 5
    assert len(written) == 7


async def test_empty_log_is_not_exported(log: Path) -> None:
    async with await SQLiteEventStore.open(log):
        pass
    with pytest.raises(CallerError, match="no events"):
        await export_of(log)


@pytest.mark.parametrize(
    "selection", [Selection(after=9), Selection(until=9), Selection(after=2, until=1)]
)
async def test_positions_that_do_not_exist_are_refused(
    log: Path, selection: Selection
) -> None:
    await append(log, 3)
    with pytest.raises(CallerError):
        await export_of(log, selection)
