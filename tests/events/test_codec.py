"""Facts to bytes and back, for every fact there is."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from herdbook.events import codec
from herdbook.events.errors import UndecodableEventError, UnknownEventTypeError
from herdbook.events.facts import (
    FACTS,
    Fact,
    ModelUnloaded,
    ModelUsed,
    UnloadReason,
    UnreadableFact,
    UseFailed,
)
from herdbook.events.lifecycle import EVENTS
from herdbook.events.recorded import Cause, NewEvent, RecordedEvent, StoredEvent
from herdbook.events.shared.group import draft_append

PLAIN: dict[type[inspect.Type], st.SearchStrategy[object]] = {
    inspect.BoolType: st.booleans(),
    inspect.IntType: st.integers(0, 2**53 - 1),
    inspect.StrType: st.text(),
    inspect.NoneType: st.none(),
    inspect.DateTimeType: st.datetimes(timezones=st.just(UTC)),
}


def values(type_: inspect.Type) -> st.SearchStrategy[object]:
    """Return a strategy for what a field of this type may hold."""
    match type_:
        case inspect.UnionType(types=types):
            return st.one_of(*(values(t) for t in types))
        case inspect.FloatType(ge=least, le=most):
            return st.floats(least, most, allow_nan=False, allow_infinity=False)
        case inspect.EnumType(cls=options) | inspect.LiteralType(values=options):
            return st.sampled_from(list(options))
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{f.name: values(f.type) for f in fields})
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values(key), values(value), max_size=3)
        case inspect.ListType(item_type=item):
            return st.lists(values(item), max_size=3)
        case inspect.VarTupleType(item_type=item):
            return st.lists(values(item), max_size=3).map(tuple)
        case _:
            return PLAIN[type(type_)]


facts = st.sampled_from(FACTS).flatmap(lambda kind: values(inspect.type_info(kind)))


@given(facts)
def test_fact_comes_back_as_it_was(fact: Fact) -> None:
    name = type(fact).__name__
    data = codec.encode(fact)
    assert codec.decode(name, codec.SCHEMAS[name], data) == fact
    assert codec.encode(codec.decode(name, codec.SCHEMAS[name], data)) == data


@given(facts)
def test_data_are_canonical(fact: Fact) -> None:
    data = codec.encode(fact)
    parsed = json.loads(data)
    assert list(parsed) == sorted(parsed)
    assert "\n" not in data
    assert msgspec.json.decode(data) == parsed


@given(facts, st.datetimes(timezones=st.just(UTC)), st.sampled_from(Cause))
def test_every_fact_can_be_appended(fact: Fact, moment: datetime, cause: Cause) -> None:
    new = NewEvent(fact=fact, occurred_at=moment, actor="cli:ann", cause=cause)
    of_model = type(fact).__name__ in EVENTS
    stream = "model/n/m" if of_model else "node/n"
    (draft,) = draft_append(stream, [new], 0).events
    assert draft.fact == fact


def test_every_fact_has_its_name_schema_and_trigger() -> None:
    assert list(codec.TYPES.values()) == list(FACTS)
    assert codec.SCHEMAS.keys() == codec.TRIGGERS.keys() == codec.TYPES.keys()
    assert codec.TRIGGERS["ModelUnloaded"] == "model_unloaded"


def test_every_schema_has_the_upcasters_before_it() -> None:
    for name, newest in codec.SCHEMAS.items():
        for schema in range(1, newest):
            assert (name, schema) in codec.UPCASTERS


@pytest.mark.parametrize(
    ("cause", "reason", "evicted_by"),
    [
        ("expired", UnloadReason.EXPIRED, None),
        ("server_restarted", UnloadReason.SERVER_RESTARTED, None),
        ("evicted:hf.co/a/b:Q4", UnloadReason.EVICTED, "hf.co/a/b:Q4"),
    ],
)
def test_unloading_of_schema_1_is_understood(
    cause: str, reason: UnloadReason, evicted_by: str | None
) -> None:
    fact = codec.decode("ModelUnloaded", 1, json.dumps({"cause": cause}))
    assert fact == ModelUnloaded(reason=reason, evicted_by=evicted_by)


@pytest.mark.parametrize(
    ("name", "schema"),
    [("ModelWashed", 1), ("ModelUsed", 5), ("ModelUsed", 0), ("ModelUnloaded", 3)],
)
def test_unknown_type_or_schema_is_named(name: str, schema: int) -> None:
    with pytest.raises(UnknownEventTypeError) as caught:
        codec.decode(name, schema, "{}")
    assert (caught.value.type, caught.value.schema) == (name, schema)


FAILED_1 = (
    '{"client":"ann","duration_s":1.5,"endpoint":"/api/chat","failure":"refused",'
    '"outcome":"failed","started_at":"2026-11-27T10:00:00Z"}'
)


def test_failed_use_of_schema_1_has_no_role() -> None:
    fact = codec.decode("UseFailed", 1, FAILED_1)
    assert isinstance(fact, UseFailed)
    assert (fact.client, fact.duration_s, fact.count) == ("ann", 1.5, 1)
    assert fact.role is msgspec.UNSET
    assert fact.estimated_tokens is msgspec.UNSET


def test_use_of_schema_3_has_no_estimated_tokens() -> None:
    fact = codec.decode("ModelUsed", 3, '{"output_tokens":7,"prompt_tokens":2}')
    assert fact == ModelUsed(output_tokens=7, prompt_tokens=2)


@pytest.mark.parametrize(
    ("name", "schema", "data"),
    [
        ("ModelUsed", 1, ""),
        ("ModelUsed", 1, "[]"),
        ("ModelUsed", 1, '{"purpose":7}'),
        ("ModelUsed", 1, '{"reason":"x"}'),
        ("ModelUsed", 1, '{"endpoint":"/api/chat"}'),
        ("ModelUsed", 2, '{"outcome":"well"}'),
        ("ModelUsed", 2, '{"reason":"x"}'),
        ("ModelUsed", 3, '{"outcome":"well"}'),
        ("ModelUsed", 3, '{"estimated_tokens":7}'),
        ("UseFailed", 1, FAILED_1.replace("}", ',"role":"coding"}')),
        ("UseFailed", 1, FAILED_1.replace("}", ',"estimated_tokens":7}')),
        ("ModelUsed", 1, b'{"purpose":"\xff"}'),
        ("ModelDiscovered", 1, '{"digest":"d"}'),
        ("ModelUnloaded", 1, "7"),
        ("ModelUnloaded", 1, "{}"),
        ("ModelUnloaded", 1, '{"cause":"whim"}'),
        ("ModelUnloaded", 2, '{"reason":"whim"}'),
    ],
)
def test_data_of_another_form_are_named(
    name: str, schema: int, data: str | bytes
) -> None:
    with pytest.raises(UndecodableEventError) as caught:
        codec.decode(name, schema, data)
    assert caught.value.type == name


STORED = StoredEvent(
    position=1,
    stream="model/n/m",
    version=1,
    event_id="e",
    type="ModelUsed",
    schema=1,
    data='{"purpose":""}',
    occurred_at="2026-01-02T03:04:05.000006Z",
    recorded_at="2026-01-02T03:04:05.000007Z",
    actor="cli:ann",
    cause="command",
    correlation_id=None,
    causation_id=None,
    hash="a" * 64,
)


def test_stored_event_is_read_with_its_fact_and_times() -> None:
    event = codec.read(STORED)
    assert event.data == ModelUsed()
    assert event.cause is Cause.COMMAND
    assert event.occurred_at.tzinfo is UTC
    assert event.recorded_at.microsecond == 7


@pytest.mark.parametrize(
    "change",
    [
        {"occurred_at": "yesterday"},
        {"occurred_at": "2026-01-02T03:04:05.678901"},
        {"recorded_at": ""},
        {"recorded_at": "2026-01-02"},
        {"cause": "whim"},
    ],
)
def test_envelope_that_cannot_be_read_hides_no_event(change: dict[str, str]) -> None:
    event = codec.read(msgspec.structs.replace(STORED, **change))
    assert isinstance(event.data, UnreadableFact)
    assert event.data.reason
    assert event.data.data == STORED.data
    assert event.occurred_at.tzinfo is not None
    assert event.recorded_at.tzinfo is not None
    assert (event.position, event.type) == (STORED.position, STORED.type)


@pytest.mark.parametrize("column", range(1, 14))
@pytest.mark.parametrize("torn", [None, 7, 7.5, b"\xff\x00", ""])
def test_damaged_column_hides_no_event(column: int, torn: object) -> None:
    row = list(msgspec.structs.astuple(STORED))
    if (column, torn) == (5, 7):
        return  # a schema that a newer version may have
    row[column] = torn
    event = codec.read_row(*row)
    assert event.position == STORED.position
    assert isinstance(event.stream, str)
    assert isinstance(event.version, int)
    assert event.occurred_at.tzinfo is not None


@pytest.mark.parametrize("column", range(14))
@pytest.mark.parametrize(
    "value", [None, b"\xff", "", "x", 1.5, 7, "{}", "[", "NodeLost", "2026-01-02"]
)
def test_rows_are_read_together_as_they_are_alone(column: int, value: object) -> None:
    sound = (
        *(1, "model/n/m", 1, "id", "ConfigurationChanged", 1),
        '{"note":"a","set":{},"unset":[]}',
        *("2026-01-02T03:04:05.678901Z", "2026-01-02T03:04:05.678902Z"),
        *("library:test", "command", None, "other", "a" * 64),
    )
    damaged = (*sound[:column], value, *sound[column + 1 :])
    rows = [sound, damaged, sound]

    def alone() -> list[RecordedEvent]:
        return [codec.read_row(*row) for row in rows]

    try:
        expected = alone()
    except UnknownEventTypeError:
        with pytest.raises(UnknownEventTypeError):
            list(codec.read_rows(rows))
    else:
        assert list(codec.read_rows(rows)) == expected
        assert type(expected[0].data).__name__ == "ConfigurationChanged"
