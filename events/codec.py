"""Facts to bytes and back, by an explicit table: no name is looked up in code.

A fact's data are deterministic JSON: sorted keys, UTF-8, no spaces. Reading
takes any schema that was ever written: an upcaster turns the data of schema n
into those of schema n + 1, and the newest is decoded, strictly. What is unknown
is a named error, never skipped: a newer version wrote it. Data that cannot be read
are an ``UnreadableFact``, so that one event never hides the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec

from herdbook.events.errors import UndecodableEventError, UnknownEventTypeError
from herdbook.events.facts import FACTS, Fact, ModelUnloaded, UnreadableFact
from herdbook.events.raw_text import shown
from herdbook.events.recorded import Cause, Position, RecordedEvent, StoredEvent

Upcaster: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns the data of one schema into those of the next; pure."""

TYPES: dict[str, type[Fact]] = {fact.__name__: fact for fact in FACTS}
"""Every fact by the name that it is recorded under."""

TRIGGERS: dict[str, str] = {
    name: re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in TYPES
}
"""Every fact's name in snake case: the trigger of the state machine."""


def _unloaded_2(data: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 said only ``cause``, and called an eviction ``evicted:<name>``."""
    reason, _, evicted_by = str(data["cause"]).partition(":")
    return {"reason": reason, "evicted_by": evicted_by or None}


UPCASTERS: dict[tuple[str, int], Upcaster] = {(ModelUnloaded.__name__, 1): _unloaded_2}
"""By type and the schema that they take; each gives the next one."""

SCHEMAS: dict[str, int] = {
    name: 1 + sum(1 for known, _ in UPCASTERS if known == name) for name in TYPES
}
"""The newest schema of each type: one more than its upcasters."""

_encode = msgspec.json.Encoder(order="sorted").encode
_decoders = {name: msgspec.json.Decoder(fact).decode for name, fact in TYPES.items()}
_causes = {cause.value: cause for cause in Cause}
_TYPE_NAME = re.compile(r"[A-Z][A-Za-z]{2,60}")
"""What the name of a type looks like, also of one that a newer version has."""
_UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)


def encode(fact: Fact) -> str:
    """Return the data of a fact: canonical JSON."""
    return _encode(fact).decode()


def decode(type_: str, schema: int, data: str | bytes) -> Fact:
    """Return the fact, in its newest form.

    Raises:
        UnknownEventTypeError: The type, or this schema of it, is not known.
        UndecodableEventError: The data do not have the form of the type.
    """
    newest = SCHEMAS.get(type_, 0)
    if not 1 <= schema <= newest:
        if not _TYPE_NAME.fullmatch(type_):
            raise UndecodableEventError(type_, schema=schema, reason="no such type")
        raise UnknownEventTypeError(type_, schema=schema)
    try:
        if schema == newest:
            return _decoders[type_](data)
        return msgspec.convert(_upcast(type_, schema, data), TYPES[type_])
    except (msgspec.MsgspecError, UnicodeError, LookupError, TypeError) as error:
        raise UndecodableEventError(type_, schema=schema, reason=str(error)) from error


def _upcast(type_: str, schema: int, data: str | bytes) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
    for number in range(schema, SCHEMAS[type_]):
        values = UPCASTERS[type_, number](values)
    return values


def read(event: StoredEvent) -> RecordedEvent:
    """Return a stored event with its fact and its times read.

    Raises:
        UnknownEventTypeError: A newer version recorded it.
    """
    return read_row(*msgspec.structs.astuple(event))


def read_row(*row: Any) -> RecordedEvent:
    """Return the event of the log's columns, as ``read`` does.

    An event that cannot be read never hides the others: its data are an
    ``UnreadableFact``, and columns that a damaged page has spoiled are made good.

    Raises:
        UnknownEventTypeError: A newer version recorded it.
    """
    try:
        return _read_row(*row)
    except UndecodableEventError as error:
        reason = error.reason
    except (ValueError, LookupError, TypeError) as error:
        reason = str(error)
    return _unreadable(not_utf_8(row) or reason, *row)


def not_utf_8(row: Sequence[object]) -> str:
    """Return which columns of the log are not UTF-8, in words; empty if all are."""
    columns = zip(StoredEvent.__struct_fields__, row, strict=True)
    damaged = [name for name, value in columns if isinstance(value, bytes)]
    return f"not UTF-8: {', '.join(damaged)}" if damaged else ""


def _read_row(  # noqa: PLR0913, PLR0917 - one parameter a column, for speed
    position: int,
    stream: str,
    version: int,
    event_id: str,
    type_: str,
    schema: int,
    data: str | bytes,
    occurred_at: str,
    recorded_at: str,
    actor: str,
    cause: str,
    correlation_id: str | None,
    causation_id: str | None,
    hash_: str,
) -> RecordedEvent:
    """Return the event of columns that are as they should be.

    What comes from a damaged page may be anything: what the folds rely on is
    checked, the rest is found by its hash.
    """
    if not (
        type(stream) is type(event_id) is type(type_) is type(actor) is type(hash_)
        and type(stream) is str
        and (correlation_id is None or type(correlation_id) is str)
        and (causation_id is None or type(causation_id) is str)
        and type(version) is type(schema) is int
    ):
        raise UndecodableEventError(
            shown(type_), schema=0, reason="a column is damaged"
        )
    return RecordedEvent(
        Position(position),
        stream,
        version,
        event_id,
        type_,
        schema,
        decode(type_, schema, data),
        datetime.fromisoformat(occurred_at),
        datetime.fromisoformat(recorded_at),
        actor,
        _causes[cause],
        correlation_id,
        causation_id,
        hash_,
    )


def _unreadable(  # noqa: PLR0913, PLR0917 - one parameter a column
    reason: str,
    position: int,
    stream: object,
    version: object,
    event_id: object,
    type_: object,
    schema: object,
    data: object,
    occurred_at: object,
    recorded_at: object,
    actor: object,
    cause: object,
    correlation_id: object,
    causation_id: object,
    hash_: object,
) -> RecordedEvent:
    return RecordedEvent(
        Position(position),
        _stream(stream),
        version if isinstance(version, int) else 0,
        shown(event_id),
        shown(type_),
        schema if isinstance(schema, int) else 0,
        UnreadableFact(data=shown(data), reason=reason),
        _time(occurred_at),
        _time(recorded_at),
        shown(actor),
        _causes.get(shown(cause), Cause.OBSERVED),
        correlation_id if isinstance(correlation_id, str) else None,
        causation_id if isinstance(causation_id, str) else None,
        shown(hash_),
    )


def _stream(value: object) -> str:
    """Return the name of a stream; a damaged one is never that of another stream."""
    return value if isinstance(value, str) else f"damaged stream {shown(value)}"


def _time(value: object) -> datetime:
    """Return a column as a time; one that is none is the beginning of 1970."""
    try:
        time = datetime.fromisoformat(shown(value))
    except ValueError:
        return _UNKNOWN_TIME
    return time if time.tzinfo is not None else _UNKNOWN_TIME
