"""Events of the log as CloudEvents 1.0 in JSON, and back without a difference.

The format is https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md,
one event per line. What CloudEvents has no attribute for are extension attributes:

    position, version, schemaversion    integers
    recordedtime                        when the event was recorded
    actor, cause                        who asked for it, and why
    correlationid, causationid          left out where the log has none
    chainhash                           the hash that chains the event

An attribute of CloudEvents is never empty and has no control characters, a time has one
form, and data are JSON. An event of an old log that breaks a rule is exported with the
attribute ``original``, which has all columns; the other attributes leave out what is
odd.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from urllib.parse import quote

import msgspec

from herdbook.events.recorded import StoredEvent, time_text

TYPE_PREFIX = "herdbook."
"""What the type of every exported event starts with."""

JSON = "application/json"
"""The type of all data."""


class CloudEvent(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True
):
    """A line of an export, with its attributes in the order of the line.

    Attributes:
        specversion: The version of CloudEvents.
        id: Id of the event.
        source: The log: ``herdbook/`` and the id of its first event.
        type: Event type, after ``TYPE_PREFIX``.
        subject: Name of the stream.
        time: When the fact became true.
        datacontenttype: The type of the data.
        data: The data, byte for byte as in the log.
        position: Position in the log.
        version: Position in the stream.
        schemaversion: Schema number of the data.
        recordedtime: When the event was recorded.
        actor: Who asked for it.
        cause: Why it was recorded.
        correlationid: Id of the operation.
        causationid: Id of the event that caused this one.
        chainhash: The hash that chains the event to the one before it.
        previoushash: The hash of the event before it; only with ``inclusion``.
        inclusion: The proof that the event is in the log: the path to the root of the
            Merkle tree, in base64; only in an export of a part of a log.
        original: All columns of the event, in base64, if it breaks a rule.
    """

    specversion: str = ""
    id: str = ""
    source: str = ""
    type: str = ""
    subject: str = ""
    time: str = ""
    datacontenttype: str = ""
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    position: int = 0
    version: int = 0
    schemaversion: int = 0
    recordedtime: str = ""
    actor: str = ""
    cause: str = ""
    correlationid: str | None = None
    causationid: str | None = None
    chainhash: str = ""
    previoushash: str = ""
    inclusion: str | None = None
    original: str = ""


_encode = msgspec.json.Encoder().encode
_is_json = msgspec.json.Decoder(msgspec.Raw).decode


def source_of(first_id: str) -> str:
    """Return the source of all events of a log, from the id of its first event."""
    return f"herdbook/{quote(first_id, safe='-._~')}"


def to_line(
    event: StoredEvent,
    source: str,
    *,
    previous: str = "",
    path: list[bytes] | None = None,
) -> bytes:
    """Return an event as a line, with its line break.

    Args:
        event: The event.
        source: The source of all events of the log.
        previous: The hash of the event before it, with a path.
        path: The path to the root of the tree; None for no proof.
    """
    is_plain = _is_plain(event)
    columns = b"" if is_plain else _encode(msgspec.structs.astuple(event))
    proof = None if path is None else base64.b64encode(b"".join(path)).decode()
    return (
        _encode(
            CloudEvent(
                specversion="1.0",
                id=_attribute(event.event_id) or f"position-{event.position}",
                source=source,
                type=f"{TYPE_PREFIX}{_attribute(event.type)}",
                subject=_attribute(event.stream),
                time=event.occurred_at if is_plain else _time(event.occurred_at),
                datacontenttype=JSON if is_plain else "",
                data=msgspec.Raw(event.data) if is_plain else msgspec.UNSET,
                position=event.position,
                version=event.version,
                schemaversion=event.schema,
                recordedtime=(
                    event.recorded_at if is_plain else _time(event.recorded_at)
                ),
                actor=_attribute(event.actor),
                cause=_attribute(event.cause),
                correlationid=_attribute(event.correlation_id or "") or None,
                causationid=_attribute(event.causation_id or "") or None,
                chainhash=_attribute(event.hash),
                previoushash=previous,
                inclusion=proof,
                original=base64.b64encode(columns).decode(),
            )
        )
        + b"\n"
    )


def to_stored(line: CloudEvent) -> StoredEvent:
    """Return the event of a line, exactly as it was in the log.

    Raises:
        ValueError: The attribute ``original`` is not in its form, the type does not
            start with ``TYPE_PREFIX``, or the data are not JSON.
    """
    if line.original:
        try:
            columns = base64.b64decode(line.original, validate=True)
        except binascii.Error as error:
            raise ValueError(f"original: {error}") from error
        return StoredEvent(*msgspec.json.decode(columns, type=_Columns))
    if line.datacontenttype != JSON or line.data is msgspec.UNSET:
        raise ValueError(f"data: must be {JSON}")
    if not line.type.startswith(TYPE_PREFIX):
        raise ValueError(f"type: does not start with {TYPE_PREFIX}")
    return StoredEvent(
        position=line.position,
        stream=line.subject,
        version=line.version,
        event_id=line.id,
        type=line.type.removeprefix(TYPE_PREFIX),
        schema=line.schemaversion,
        data=bytes(line.data).decode(),
        occurred_at=line.time,
        recorded_at=line.recordedtime,
        actor=line.actor,
        cause=line.cause,
        correlation_id=line.correlationid,
        causation_id=line.causationid,
        hash=line.chainhash,
    )


_Columns = tuple[
    int,
    str,
    int,
    str,
    str,
    int,
    str,
    str,
    str,
    str,
    str,
    str | None,
    str | None,
    str,
]


def _is_plain(event: StoredEvent) -> bool:
    """Return whether the attributes of an event obey all rules of CloudEvents."""
    texts = [event.stream, event.event_id, event.type, event.actor, event.cause]
    texts += [
        text for text in (event.correlation_id, event.causation_id) if text is not None
    ]
    if not all(text and text.isprintable() for text in texts):
        return False
    if not _time(event.occurred_at) or not _time(event.recorded_at):
        return False
    if "\n" in event.data or "\r" in event.data:
        return False
    try:
        return bytes(_is_json(event.data)).decode() == event.data
    except (msgspec.MsgspecError, UnicodeError):
        return False


def _attribute(text: str) -> str:
    """Return a text as an attribute, without what CloudEvents forbids."""
    return text if text.isprintable() else "".join(filter(str.isprintable, text))


def _time(text: str) -> str:
    """Return a time in the form of the log; empty if it has another form."""
    try:
        is_time = time_text(datetime.fromisoformat(text)) == text
    except ValueError:
        return ""
    return text if is_time else ""
