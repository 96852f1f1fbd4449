"""Verification finds every alteration, reports its position, and continues."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.odd_log import alter, append_raw, write_invalid_utf8

from herdbook.core.history.position_at import position_at
from herdbook.events import facts
from herdbook.events.errors import CorruptLogError
from herdbook.events.findings import Finding, Kind
from herdbook.events.memory import MemoryEventStore
from herdbook.events.recorded import (
    GENESIS,
    StoredEvent,
    canonical_bytes,
    chained_hash,
    time_text,
)
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.store import ANY, Head
from herdbook.events.testing.base import OCCURRED_AT, event
from herdbook.events.verify import (
    Verification,
    _Check,
    _is_time,
    verify,
)

DATA = {
    "ConfigurationChanged": {},
    "ModelUsed": {},
    "NodeLost": {"kind": "node_unreachable", "message": "refused"},
}
"""Data that can be read, by type."""

COLUMNS = StoredEvent.__struct_fields__


async def fill(path: Path, events: int = 6) -> None:
    async with await SQLiteEventStore.open(path) as store:
        for number in range(events):
            new = event(f"n{number}", correlation_id="c", causation_id="d")
            await store.append(f"model/n/{number % 2}", [new], ANY)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of six events in two streams; copy it before writing to it."""
    path = tmp_path_factory.mktemp("sound") / "herd.db"
    asyncio.run(fill(path))
    return path


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sound, tmp_path / "herd.db"))


async def verified(path: Path, *anchors: Head) -> Verification:
    async with await SQLiteEventStore.open(path) as store:
        return await verify(store, anchors=anchors)


async def kinds(path: Path, *anchors: Head) -> list[tuple[int, Kind]]:
    verification = await verified(path, *anchors)
    return [(finding.position, finding.kind) for finding in verification.findings]


async def test_sound_log_has_no_findings(path: Path) -> None:
    verification = await verified(path)
    assert verification.findings == ()
    assert (verification.events, verification.set_back) == (6, 0)
    async with await SQLiteEventStore.open(path) as store:
        assert verification.head == await store.head()


async def test_empty_log_is_sound() -> None:
    verification = await verify(MemoryEventStore(), anchors=[Head()])
    assert verification == Verification(events=0, head=Head(), set_back=0, findings=())


@given(data=st.data())
def test_any_altered_character_is_found(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = Path(shutil.copy(sound, tmp_path_factory.mktemp("altered") / "herd.db"))
    column = data.draw(st.sampled_from([c for c in COLUMNS if c != "position"]))
    position = data.draw(st.integers(1, 6))
    with closing(sqlite3.connect(path)) as connection:
        query = f"SELECT {column} FROM events WHERE position = {position}"
        (was,) = connection.execute(query).fetchone()
    if isinstance(was, int):
        now: object = data.draw(st.integers(7, 99))  # no version that is taken
    else:
        at = data.draw(st.integers(0, len(was) - 1))
        not_these = was[at] + ("01" if column == "stream" else "")  # nor the other's
        character = data.draw(
            st.characters(codec="utf-8", exclude_characters=not_these)
        )
        now = was[:at] + character + was[at + 1 :]
    quoted = str(now).encode().hex()
    value = str(now) if isinstance(now, int) else f"CAST(x'{quoted}' AS TEXT)"
    alter(path, f"UPDATE events SET {column} = {value} WHERE position = {position}")
    found = asyncio.run(kinds(path))
    assert found
    assert found[0][0] in {0, position}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE events SET actor = 'x' WHERE position = 3", [(3, Kind.HASH)]),
        (
            "UPDATE events SET hash = lower(actor) WHERE position = 3",
            [(3, Kind.HASH), (4, Kind.HASH)],
        ),
        (
            "DELETE FROM events WHERE position = 3",
            [
                (4, Kind.POSITION),
                (4, Kind.HASH),
                (5, Kind.VERSION),
            ],
        ),
        ("DELETE FROM events WHERE position > 4", [(4, Kind.HEAD)]),
        ("DELETE FROM events", [(0, Kind.HEAD)]),
        ("UPDATE head SET position = 5", [(6, Kind.HEAD)]),
        ("UPDATE head SET hash = 'x'", [(6, Kind.HEAD)]),
        (
            "UPDATE events SET type = 'ModelWashed' WHERE position = 3",
            [(3, Kind.HASH), (3, Kind.DATA)],
        ),
        (
            "UPDATE events SET data = '{}}' WHERE position = 3",
            [(3, Kind.HASH), (3, Kind.DATA)],
        ),
        (
            "UPDATE events SET occurred_at = '2026-01-02' WHERE position = 3",
            [(3, Kind.HASH), (3, Kind.TIME)],
        ),
        (
            "UPDATE events SET recorded_at = 'x' WHERE position = 6",
            [(6, Kind.HASH), (6, Kind.TIME)],
        ),
        (
            "UPDATE events SET version = 9 WHERE position = 6",
            [(6, Kind.HASH), (6, Kind.VERSION)],
        ),
        (
            "UPDATE events SET actor = CAST(x'ff' AS TEXT) WHERE position = 2",
            [(2, Kind.UNREADABLE)],
        ),
        (
            "UPDATE events SET actor = CAST(x'ff' AS TEXT) WHERE position = 6",
            [(6, Kind.UNREADABLE)],
        ),
    ],
)
async def test_alteration_is_found_where_it_is(
    path: Path, statement: str, expected: list[tuple[int, Kind]]
) -> None:
    alter(path, statement)
    assert await kinds(path) == expected


def rehashed(path: Path) -> Iterator[str]:
    """Return the statements that recompute every hash: a perfect forgery."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT * FROM events ORDER BY position").fetchall()
    previous = GENESIS
    for row in rows:
        stored = msgspec.structs.replace(StoredEvent(*row), actor="somebody else")
        previous = chained_hash(previous, canonical_bytes(stored))
        yield (
            f"UPDATE events SET actor = 'somebody else', hash = '{previous}'"
            f" WHERE position = {stored.position}"
        )
    yield f"UPDATE head SET hash = '{previous}'"


async def test_forged_chain_is_found_by_an_anchor(path: Path) -> None:
    heads = [(await verified(path)).head]
    async with await SQLiteEventStore.open(path) as store:
        heads += [Head(e.position, e.hash) async for e in store.read_stored(limit=2)]
    assert await kinds(path, *heads) == []
    alter(path, *rehashed(path))
    assert await kinds(path) == [(0, Kind.FILE)]  # by the saved head
    path.with_name("herd.db-head").unlink()
    assert await kinds(path) == []
    assert await kinds(path, *heads) == [(n, Kind.ANCHOR) for n in (1, 2, 6)]


async def test_anchor_after_the_end_is_missing(path: Path) -> None:
    assert await kinds(path, Head(9, "a" * 64)) == [(9, Kind.ANCHOR)]


async def test_tables_of_other_programs_are_not_findings(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE _litestream_seq (id INTEGER, seq INTEGER)")
        connection.execute("CREATE INDEX other ON _litestream_seq (seq)")
    assert (await verified(path)).findings == ()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER other AFTER INSERT ON events BEGIN SELECT 1; END",
        "CREATE INDEX other ON events (actor)",
    ],
)
async def test_foreign_trigger_or_index_on_the_log_is_found(
    path: Path, statement: str
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    (finding,) = (await verified(path)).findings
    assert finding.message == "schema object other was added to a table of the log"


async def test_missing_trigger_is_found(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER events_are_not_changed")
    assert (await verified(path)).findings == (
        Finding(
            position=0,
            kind=Kind.FILE,
            message="schema object events_are_not_changed is missing or was changed",
        ),
    )


async def test_damaged_index_is_found(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema"
            " WHERE name = 'head') WHERE name = 'sqlite_autoindex_events_1'"
        )
    assert (0, Kind.FILE) in await kinds(path)


@pytest.mark.parametrize(
    "column", [c for c in COLUMNS if c not in {"position", "version", "schema"}]
)
async def test_each_damaged_event_is_found_and_no_other(
    path: Path, column: str
) -> None:
    for position in (1, 2, 4, 6):
        damaged = f"CAST(x'ff0{position}' AS TEXT)"
        alter(path, f"UPDATE events SET {column} = {damaged} WHERE position={position}")
    found = await verified(path)
    assert found.events == 2
    assert [(one.position, one.kind) for one in found.findings if one.position] == [
        (position, Kind.UNREADABLE) for position in (1, 2, 4, 6)
    ]
    assert all(column in one.message for one in found.findings if one.position)


async def test_hash_of_a_damaged_event_continues_the_chain(path: Path) -> None:
    alter(
        path,
        "UPDATE events SET actor = CAST(x'ff' AS TEXT) WHERE position = 2",
        "UPDATE events SET actor = 'somebody else' WHERE position = 3",
    )
    anchors = [Head(2, "a" * 64)]
    assert await kinds(path, *anchors) == [
        (2, Kind.UNREADABLE),
        (2, Kind.ANCHOR),
        (3, Kind.HASH),
    ]


async def test_findings_of_each_kind_are_listed_up_to_a_limit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("herdbook.events.verify.MOST_FINDINGS", 2)
    alter(
        path,
        "UPDATE events SET actor = CAST(x'ff' AS TEXT) WHERE position < 5",
        "UPDATE events SET actor = 'x' WHERE position > 4",
    )
    found = await verified(path)
    assert [(one.position, one.kind) for one in found.findings] == [
        (1, Kind.UNREADABLE),
        (2, Kind.UNREADABLE),
        (5, Kind.HASH),
        (6, Kind.HASH),
    ]
    assert found.omitted == 2


async def test_reading_stops_after_a_limit_and_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("herdbook.events.verify.MOST_UNREADABLE", 3)
    alter(path, "UPDATE events SET actor = CAST(x'ff' AS TEXT)")
    found = (await verified(path)).findings
    assert [(one.position, one.kind) for one in found] == [
        *((position, Kind.UNREADABLE) for position in (1, 2, 3)),
        (3, Kind.FILE),
    ]
    assert found[-1].message == (
        "is the last one that was checked: 3 events cannot be read"
    )


async def test_log_that_does_not_match_its_head_refuses_appends(path: Path) -> None:
    alter(path, "UPDATE head SET position = 5")
    async with await SQLiteEventStore.open(path) as store:
        with pytest.raises(CorruptLogError):
            await store.append("model/n/m", [event()], ANY)


async def test_log_without_its_head_row_is_damaged(path: Path) -> None:
    alter(path, "DELETE FROM head")
    async with await SQLiteEventStore.open(path) as store:
        for attempt in (store.head(), store.append("model/n/m", [event()], ANY)):
            with pytest.raises(CorruptLogError):
                await attempt


async def test_log_that_ends_before_its_head_has_no_place_in_time(path: Path) -> None:
    alter(path, "DELETE FROM events WHERE position > 4")
    async with await SQLiteEventStore.open(path) as store:
        with pytest.raises(CorruptLogError):
            await position_at(store, datetime.now(UTC))


async def test_subscription_to_a_log_that_ends_before_its_head_fails(
    path: Path,
) -> None:
    alter(path, "DELETE FROM events WHERE position > 4")
    async with await SQLiteEventStore.open(path) as store:
        events = store.subscribe(3)
        assert (await anext(events)).position == 4
        with pytest.raises(CorruptLogError):
            await anext(events)


async def test_illegal_transition_is_found_and_the_stream_continues() -> None:
    used = event(fact=facts.ModelUsed())
    discovered = event(fact=facts.ModelDiscovered(digest="d", size_bytes=1))
    store = MemoryEventStore()
    await store.append("model/n/a", [discovered, used], ANY)
    for _ in range(2):  # the first leaves it loaded, so the second is legal
        await store.append("model/n/b", [event(fact=facts.ModelUsed())], ANY)
    (finding,) = (await verify(store)).findings
    assert (finding.position, finding.kind) == (3, Kind.TRANSITION)
    assert finding.message == (
        "ModelUsed is illegal in model/n/b: the model was not present. "
        "From this event on, it is treated as loaded"
    )
    assert "herdbook refresh" in finding.remedy


async def test_clock_that_was_set_back_is_counted() -> None:
    times = iter([5, 6, 4, 5, 5, 1])
    store = MemoryEventStore(clock=lambda: OCCURRED_AT + timedelta(seconds=next(times)))
    for _ in range(6):
        await store.append("model/n/m", [event()], ANY)
    verification = await verify(store)
    assert (verification.set_back, verification.findings) == (2, ())


async def test_log_may_grow_while_it_is_verified(path: Path) -> None:
    async with await SQLiteEventStore.open(path) as store:
        stop = asyncio.Event()

        async def grow() -> None:
            while not stop.is_set():
                await store.append("model/n/m", [event()], ANY)

        growing = asyncio.create_task(grow())
        for _ in range(5):
            assert not (await verify(store)).findings
        stop.set()
        await growing


@pytest.mark.parametrize(
    ("stream", "type_"),
    [
        ("model/local/", "ConfigurationChanged"),
        ("model//a:b", "ConfigurationChanged"),
        ("model/local/a:b", "NodeLost"),
        ("node/local", "ModelUsed"),
        ("node/", "NodeLost"),
        ("notes", "ConfigurationChanged"),
        ("notes", "NodeLost"),
    ],
)
async def test_event_in_a_wrong_stream_is_found(
    path: Path, stream: str, type_: str
) -> None:
    position = append_raw(path, stream, type_, DATA[type_])

    (finding,) = (await verified(path)).findings

    assert (finding.position, finding.kind) == (position, Kind.STREAM)
    assert finding.message.startswith(f"{type_} is in the stream {stream}, but")


async def test_each_event_in_a_wrong_stream_is_found(path: Path) -> None:
    data = DATA["ConfigurationChanged"]
    positions = [append_raw(path, "notes", "ConfigurationChanged", data)]
    positions.append(append_raw(path, "notes", "ConfigurationChanged", data))

    findings = (await verified(path)).findings

    assert [(one.position, one.kind) for one in findings] == [
        (position, Kind.STREAM) for position in positions
    ]


@given(
    st.one_of(
        st.datetimes().map(time_text),
        st.from_regex(
            r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]"
            r"[.,][0-9]{6}(Z|\+00:00)",
            fullmatch=True,
        ),
        st.text(max_size=30),
    )
)
def test_only_times_as_the_log_writes_them_are_times(text: str) -> None:
    try:
        expected = time_text(datetime.fromisoformat(text)) == text
    except ValueError:
        expected = False
    assert _is_time(text) == expected


@given(
    st.datetimes().map(time_text),
    st.one_of(
        st.from_regex(r"[0-9]{5,7}[Zz]?", fullmatch=True),
        st.text(st.characters(categories=["Nd"]), min_size=6, max_size=6).map(
            lambda digits: f"{digits}Z"
        ),
        st.text(max_size=8),
    ),
)
def test_times_of_one_second_are_checked_like_others(first: str, rest: str) -> None:
    check = _Check((), lambda _: True)
    assert check._is_time(first)
    text = first[: first.index(".") + 1] + rest
    assert check._is_time(text) == _is_time(text)


async def test_name_that_is_not_canonical_is_found_once_per_stream(path: Path) -> None:
    for stream in ("model/n/x", "model/n/y", "model/n/x"):
        append_raw(path, stream, "ConfigurationChanged", {})
    async with await SQLiteEventStore.open(path) as store:
        found = await verify(store, is_canonical=lambda name: name != "x")
    names = [each for each in found.findings if each.kind is Kind.NAME]
    assert [each.position for each in names] == [7]


@pytest.mark.parametrize("column", ["data", "actor", "occurred_at", "type"])
async def test_row_that_is_not_utf_8_is_the_only_finding(
    tmp_path: Path, column: str
) -> None:
    path = tmp_path / "herd.db"
    history = (
        facts.ModelDiscovered(digest="d", size_bytes=1),
        facts.ModelUsed(),
        facts.ModelUnloaded(reason=facts.UnloadReason.EXPIRED),
        facts.ModelUsed(),
    )
    async with await SQLiteEventStore.open(path) as store:
        await store.append("model/n/m", [event(fact=fact) for fact in history], ANY)
    write_invalid_utf8(path, "events", column, "position = 2")

    assert await kinds(path) == [(2, Kind.UNREADABLE)]
