"""The envelope of an event, and the hash chain of the log.

``hash`` is the SHA-256 of the previous event's hash (64 hexadecimal digits in
ASCII; of the first event: 64 zeros) followed by the canonical bytes: the
envelope without the hash, with the data, as JSON in UTF-8 with sorted keys and
without spaces. The data is hashed exactly as it is stored.
"""

from __future__ import annotations

import os
import time
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import NewType

import msgspec

from herdbook.events.facts import AnyFact, Fact

Position = NewType("Position", int)
"""A position in the log, from 1, without gaps; 0 is before the first event."""

GENESIS = "0" * 64
"""The hash that the first event is chained to."""


class Cause(StrEnum):
    """Why an event was recorded."""

    COMMAND = "command"
    OBSERVED = "observed"
    SHARED = "shared"
    EXPIRY = "expiry"
    EVICTION = "eviction"
    RESTART = "restart"
    RECOVERY = "recovery"
    CONFIGURATION = "configuration"


def new_id() -> str:
    """Return a new UUID of version 7 (RFC 9562, section 5.7), which sorts by time."""
    time_ms = f"{time.time_ns() // 1_000_000:012x}"
    random = os.urandom(10).hex()
    variant = _VARIANTS[random[3]]
    return (
        f"{time_ms[-12:-4]}-{time_ms[-4:]}-7{random[:3]}"
        f"-{variant}{random[4:7]}-{random[7:19]}"
    )


_VARIANTS = {f"{digit:x}": f"{0b1000 | digit & 0b11:x}" for digit in range(16)}
"""The digit with the variant ``10`` in its upper bits, for each random digit."""


class NewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event to append.

    Attributes:
        fact: The data of the event.
        occurred_at: When the fact became true, UTC.
        actor: Who asked for it: ``cli:<user>``, ``api:<token name>``,
            ``library:<name>`` or ``reconciler``.
        cause: Why it is recorded.
        event_id: Unique id; appending the same event twice records it once.
        correlation_id: Id of the operation, shared by all of its events.
        causation_id: Id of the event that caused this one.
    """

    fact: Fact
    occurred_at: datetime
    actor: str
    cause: Cause
    event_id: str = msgspec.field(default_factory=new_id)
    correlation_id: str | None = None
    causation_id: str | None = None


class StoredEvent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event exactly as it is stored: not decoded and not upcast.

    The fields are in the order of the columns of the log: rows are converted to events,
    and events encoded as JSON arrays, without a step for each field.

    Attributes:
        position: Position in the log.
        stream: Name of the stream.
        version: Position in the stream, from 1.
        event_id: Unique id.
        type: Event type.
        schema: Schema number of the data.
        data: The data as canonical JSON.
        occurred_at: When the fact became true: ISO 8601, UTC, microseconds, ``Z``.
        recorded_at: When the event was recorded, in the same form.
        actor: Who asked for it.
        cause: Why it was recorded.
        correlation_id: Id of the operation, shared by all of its events.
        causation_id: Id of the event that caused this one.
        hash: 64 hexadecimal digits.
    """

    position: int
    stream: str
    version: int
    event_id: str
    type: str
    schema: int
    data: str
    occurred_at: str
    recorded_at: str
    actor: str
    cause: str
    correlation_id: str | None
    causation_id: str | None
    hash: str


class RecordedEvent(msgspec.Struct, frozen=True, gc=False):
    """A decoded event of the log.

    The attributes are those of ``StoredEvent``, with ``data`` as a fact in its newest
    form and with times as aware datetimes.
    """

    position: Position
    stream: str
    version: int
    event_id: str
    type: str
    schema: int
    data: AnyFact
    occurred_at: datetime
    recorded_at: datetime
    actor: str
    cause: Cause
    correlation_id: str | None
    causation_id: str | None
    hash: str


class Canonical(msgspec.Struct, frozen=True):
    """The hashed form of an event: its envelope with sorted keys, and its raw data."""

    actor: str
    causation_id: str | None
    cause: str
    correlation_id: str | None
    data: msgspec.Raw
    event_id: str
    occurred_at: str
    position: int
    recorded_at: str
    schema: int
    stream: str
    type: str
    version: int


_encode = msgspec.json.Encoder().encode


def canonical_bytes(event: StoredEvent) -> bytes:
    """Return the hashed bytes: the envelope without its hash, with the data."""
    return _encode(
        Canonical(
            event.actor,
            event.causation_id,
            event.cause,
            event.correlation_id,
            msgspec.Raw(event.data),
            event.event_id,
            event.occurred_at,
            event.position,
            event.recorded_at,
            event.schema,
            event.stream,
            event.type,
            event.version,
        )
    )


def split_at_position(canonical: bytes) -> tuple[str, str]:
    """Return the hashed text before and after the number of its position."""
    # The last such key: inside of a text, its quotes would be escaped.
    before, key, after = canonical.decode().rpartition(',"position":')
    return before + key, after[after.index(",") :]


def chained_hash(previous: str, canonical: bytes) -> str:
    """Return the hash of an event that follows an event with the hash ``previous``."""
    return sha256(previous.encode() + canonical).hexdigest()


_TIME_LENGTH = len("2026-01-02T03:04:05.678901")


def time_text(at: datetime) -> str:
    """Return a UTC time as ISO 8601 with microseconds and ``Z``."""
    return at.isoformat(timespec="microseconds")[:_TIME_LENGTH] + "Z"
