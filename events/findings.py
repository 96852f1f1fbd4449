"""Findings: problems of an event or a log, in the words that users read.

``verify``, the projections and ``doctor`` report an event with the same finding.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from herdbook.events.codec import TYPES
from herdbook.events.errors import in_line
from herdbook.events.lifecycle import EVENTS, Lifecycle
from herdbook.events.streams import model_of, node_of

IN_A_MODEL = "model/<node>/<name>"
IN_A_NODE = "node/<node>"


class Kind(StrEnum):
    """The kind of a problem."""

    UNREADABLE = "unreadable"
    POSITION = "position"
    VERSION = "version"
    HASH = "hash"
    DATA = "data"
    TIME = "time"
    TRANSITION = "transition"
    STREAM = "stream"
    NAME = "name"
    HEAD = "head"
    ANCHOR = "anchor"
    FILE = "file"
    ARCHIVE = "archive"
    SNAPSHOT = "snapshot"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A problem of an event or of the log.

    Attributes:
        position: Position of the event; 0 for the log as a whole.
        kind: Kind of the problem.
        message: The problem in words.
        remedy: How to fix it; empty if there is no advice.
    """

    position: int
    kind: Kind
    message: str
    remedy: str = ""


def belongs(type_: str, stream: str) -> bool:
    """Return whether a stream may contain events of a type.

    Events of an unknown type may be in any stream of a model or a node.
    """
    if type_ in EVENTS:
        return model_of(stream) is not None
    if type_ in TYPES:
        return node_of(stream) is not None
    return model_of(stream) is not None or node_of(stream) is not None


def home_of(type_: str) -> str:
    """Return the form of the streams that events of a type belong in."""
    if type_ in EVENTS:
        return IN_A_MODEL
    return IN_A_NODE if type_ in TYPES else f"{IN_A_MODEL} or {IN_A_NODE}"


def unreadable_data(position: int, type_: str, stream: str, reason: str) -> Finding:
    """Return the finding for an event whose data cannot be read."""
    return Finding(
        position=position,
        kind=Kind.DATA,
        message=f"{in_line(type_)} in {in_line(stream)} cannot be read: "
        f"{in_line(reason)}",
        remedy="Its data is ignored. The other events are not affected",
    )


def wrong_stream(position: int, type_: str, stream: str) -> Finding:
    """Return the finding for an event in a stream that it does not belong in."""
    return Finding(
        position=position,
        kind=Kind.STREAM,
        message=f"{in_line(type_)} is in the stream {in_line(stream)}, "
        f"but belongs in {home_of(type_)}",
        remedy="It is ignored. The other events are not affected",
    )


def illegal_event(
    position: int, type_: str, stream: str, before: Lifecycle, after: Lifecycle
) -> Finding:
    """Return the finding for an event that is illegal in the model's state.

    Args:
        position: Position of the event.
        type_: Type of the event.
        stream: Stream of the model.
        before: State of the model before the event.
        after: State that projections assume after the event.
    """
    return Finding(
        position=position,
        kind=Kind.TRANSITION,
        message=f"{type_} is illegal in {in_line(stream)}: the model was {before}. "
        f"From this event on, it is treated as {after}",
        remedy="To record the actual state of the model, run: herdbook refresh",
    )


def not_canonical(position: int, stream: str) -> Finding:
    """Return the finding for a model stream with a name that is not canonical."""
    return Finding(
        position=position,
        kind=Kind.NAME,
        message=f"the stream {in_line(stream)} does not have a canonical model name",
        remedy="An older version recorded it. Its history is kept under this name",
    )
