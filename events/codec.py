"""Encode and decode the data of events, by an explicit table of types.

The data is deterministic JSON: sorted keys, UTF-8, no spaces. Every schema that
was ever written can be read: an upcaster turns the data of schema n into those of
schema n + 1, and the newest schema is decoded strictly. An unknown type is an
error and is never skipped, since a newer version wrote it. Data that cannot be
decoded become an ``UnreadableFact``, so that one event never hides the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast

import msgspec

from herdbook.events.errors import UndecodableEventError, UnknownEventTypeError
from herdbook.events.facts import (
    FACTS,
    AnyFact,
    CancelRequested,
    CapabilitiesDetected,
    Fact,
    ModelUnloaded,
    ModelUsed,
    UnreadableFact,
    UseFailed,
)
from herdbook.events.recorded import Cause, Position, RecordedEvent, StoredEvent

Upcaster: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""A pure function from the data of one schema to those of the next."""

TYPES: dict[str, type[Fact]] = {fact.__name__: fact for fact in FACTS}
"""Every fact class by its event type."""

TRIGGERS: dict[str, str] = {
    name: re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in TYPES
}
"""The trigger of each event type in the state machine: its name in snake case."""


def _unloaded_2(data: dict[str, Any]) -> dict[str, Any]:
    """Convert schema 1, which had one field: ``cause``, such as ``evicted:<name>``."""
    reason, _, evicted_by = str(data["cause"]).partition(":")
    return {"reason": reason, "evicted_by": evicted_by or None}


def _used_2(data: dict[str, Any]) -> dict[str, Any]:
    """Convert schema 1, which had one field: ``purpose``."""
    if unknown := sorted(data.keys() - {"purpose"}):
        raise LookupError(f"unknown field {unknown[0]!r}")
    return data


def _used_3(data: dict[str, Any]) -> dict[str, Any]:
    """Convert schema 2, which has the same fields.

    Uses of schema 3 count in recommendations for some roles; earlier ones for all.
    """
    return data


def _used_4(data: dict[str, Any]) -> dict[str, Any]:
    """Convert schema 3, which did not have estimated tokens."""
    if "estimated_tokens" in data:
        raise LookupError("unknown field 'estimated_tokens'")
    return data


def _use_failed_2(data: dict[str, Any]) -> dict[str, Any]:
    """Convert schema 1, which had neither role nor estimated tokens."""
    if unknown := sorted({"estimated_tokens", "role"} & data.keys()):
        raise LookupError(f"unknown field {unknown[0]!r}")
    return data


def _detected_2(data: dict[str, Any]) -> dict[str, Any]:
    """Convert schema 1, which did not have the model's own parameters."""
    if "parameters" in data:
        raise LookupError("unknown field 'parameters'")
    return data


def _cancel_requested_2(data: dict[str, Any]) -> dict[str, Any]:
    """Convert schema 1, when there were no reloads."""
    if data.get("activity") == "reload":
        raise LookupError("unknown activity 'reload'")
    return data


UPCASTERS: dict[tuple[str, int], Upcaster] = {
    (ModelUnloaded.__name__, 1): _unloaded_2,
    (ModelUsed.__name__, 1): _used_2,
    (ModelUsed.__name__, 2): _used_3,
    (ModelUsed.__name__, 3): _used_4,
    (UseFailed.__name__, 1): _use_failed_2,
    (CapabilitiesDetected.__name__, 1): _detected_2,
    (CancelRequested.__name__, 1): _cancel_requested_2,
}
"""Upcasters by event type and the schema that they read."""

SCHEMAS: dict[str, int] = {
    name: 1 + sum(1 for known, _ in UPCASTERS if known == name) for name in TYPES
}
"""The newest schema of each event type: one more than its number of upcasters."""

_encode = msgspec.json.Encoder(order="sorted").encode
_decoders = {name: msgspec.json.Decoder(fact).decode for name, fact in TYPES.items()}
_newest = {
    name: (SCHEMAS[name], cast("Callable[[str | bytes], AnyFact]", decoder))
    for name, decoder in _decoders.items()
}
_parse_time = datetime.fromisoformat
_causes = {cause.value: cause for cause in Cause}
_TYPE_NAME = re.compile(r"[A-Z][A-Za-z]{2,60}")
"""The form of every event type, including those of newer versions."""
COLUMN_TYPES = frozenset(
    (int, str, int, str, str, int, str, str, str, str, str, correlation, causation, str)
    for correlation in (str, type(None))
    for causation in (str, type(None))
)
"""The valid types of the columns of an event; a damaged page may have others."""
_UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)


def encode(fact: Fact) -> str:
    """Encode a fact as canonical JSON."""
    return _encode(fact).decode()


def decode(type_: str, schema: int, data: str | bytes) -> Fact:
    """Decode the data of an event to the newest form of its fact.

    Raises:
        UnknownEventTypeError: The type, or this schema of the type, is unknown.
        UndecodableEventError: The data do not match the schema.
    """
    newest = SCHEMAS.get(type_, 0)
    if not 1 <= schema <= newest:
        if not _TYPE_NAME.fullmatch(type_):
            raise UndecodableEventError(
                type_, schema=schema, reason="unknown event type"
            )
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
    """Decode a stored event: its fact, its times and its cause.

    Raises:
        UnknownEventTypeError: A newer version recorded the event.
    """
    return read_row(*msgspec.structs.astuple(event))


def read_rows(rows: Iterable[Sequence[Any]]) -> Iterator[RecordedEvent]:
    """Decode events from rows of the log, as ``read_row`` does.

    An event in its newest schema is decoded here, in half of the time; all others, and
    those that cannot be read, are left to ``read_row``.

    Raises:
        UnknownEventTypeError: A newer version recorded an event.
    """
    for row in rows:
        # Unpacked, checked and decoded in one place: calls would double the time.
        (
            position,
            stream,
            version,
            event_id,
            type_,
            schema,
            data,
            occurred_at,
            recorded_at,
            actor,
            cause,
            correlation_id,
            causation_id,
            hash_,
        ) = row
        if (
            type(stream) is type(event_id) is type(type_) is type(actor) is type(hash_)
            and type(stream) is str
            and (correlation_id is None or type(correlation_id) is str)
            and (causation_id is None or type(causation_id) is str)
            and type(version) is type(schema) is int
        ):
            known = _newest.get(type_)
            if known is not None and known[0] == schema:
                try:
                    event = RecordedEvent(
                        position,
                        stream,
                        version,
                        event_id,
                        type_,
                        schema,
                        known[1](data),
                        _aware(occurred_at),
                        _aware(recorded_at),
                        actor,
                        _causes[cause],
                        correlation_id,
                        causation_id,
                        hash_,
                    )
                except (ValueError, LookupError, TypeError, msgspec.MsgspecError):
                    pass  # read_row describes it
                else:
                    yield event
                    continue
        yield read_row(*row)


def read_row(*row: Any) -> RecordedEvent:
    """Decode an event from the columns of the log.

    An event that cannot be read never hides the others: its data become an
    ``UnreadableFact``, and damaged columns get a value of the right type.

    Raises:
        UnknownEventTypeError: A newer version recorded the event.
    """
    try:
        return _read_row(*row)
    except UndecodableEventError as error:
        reason = error.reason
    except (ValueError, LookupError, TypeError) as error:
        reason = str(error)
    return _unreadable(not_utf_8(row) or reason, *row)


def not_utf_8(row: Sequence[object]) -> str:
    """Describe the columns that are not UTF-8; empty if all of them are."""
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
    """Decode columns of the right types.

    A damaged page may return any value. The columns that projections rely on are
    checked here; ``verify`` finds the others by their hash.
    """
    if not (
        type(stream) is type(event_id) is type(type_) is type(actor) is type(hash_)
        and type(stream) is str
        and (correlation_id is None or type(correlation_id) is str)
        and (causation_id is None or type(causation_id) is str)
        and type(version) is type(schema) is int
    ):
        raise UndecodableEventError(
            column_text(type_), schema=0, reason="a column is damaged"
        )
    return RecordedEvent(
        Position(position),
        stream,
        version,
        event_id,
        type_,
        schema,
        cast("AnyFact", decode(type_, schema, data)),
        _aware(occurred_at),
        _aware(recorded_at),
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
        column_text(event_id),
        column_text(type_),
        schema if isinstance(schema, int) else 0,
        UnreadableFact(data=column_text(data), reason=reason),
        _time(occurred_at),
        _time(recorded_at),
        column_text(actor),
        _causes.get(column_text(cause), Cause.OBSERVED),
        correlation_id if isinstance(correlation_id, str) else None,
        causation_id if isinstance(causation_id, str) else None,
        column_text(hash_),
    )


def _stream(value: object) -> str:
    """Return the stream; a damaged name never equals the name of another stream."""
    return value if isinstance(value, str) else f"damaged stream {column_text(value)}"


def _time(value: object) -> datetime:
    """Return a column as a time; 1970-01-01 if it is not one."""
    try:
        return _aware(column_text(value))
    except ValueError:
        return _UNKNOWN_TIME


def _aware(text: str) -> datetime:
    """Return a time with its zone: without one, it cannot be compared with others.

    Raises:
        ValueError: The text is not such a time.
    """
    time = _parse_time(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return time


def text_or_bytes(raw: bytes) -> str | bytes:
    """Decode text of SQLite; return the bytes if they are not UTF-8.

    A connection uses this text factory once it has met such a text, which would fail
    the whole page.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def column_text(value: object) -> str:
    r"""Return a column as text; invalid UTF-8 becomes ``\xff``."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value)
