"""Check that recorded events continue a log, before a store takes them unchanged."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from herdbook.events.errors import CallerError, ConflictError
from herdbook.events.recorded import StoredEvent, canonical_bytes, chained_hash
from herdbook.events.store import Head


def check_link(event: StoredEvent, after: Head) -> Head:
    """Check that an event follows a head; return the head after the event.

    Raises:
        CallerError: It has another position, or its hash does not match its content
            and the event before it.
    """
    if event.position != after.position + 1:
        raise CallerError(f"event #{event.position}", f"follows #{after.position}")
    try:
        matches = event.hash == chained_hash(after.hash, canonical_bytes(event))
    except UnicodeError:  # a surrogate in a text, which no log can have
        matches = False
    if not matches:
        raise CallerError(
            f"event #{event.position}",
            "was changed, or does not follow the event before it",
        )
    return Head(event.position, event.hash)


def check_chain(events: Sequence[StoredEvent], after: Head) -> Head:
    """Check that events follow a head; return the head after them.

    Raises:
        CallerError: There are no events, one does not follow, or one has a NUL
            character, which JSON functions of SQLite and texts of other databases lack.
    """
    if not events:
        raise CallerError("an import", "has no events", "Append at least one")
    head = after
    for event in events:
        head = check_link(event, head)
        if any(
            "\0" in text for text in msgspec.structs.astuple(event) if type(text) is str
        ):
            raise CallerError(
                f"event #{event.position}",
                "has a NUL character, and cannot be stored unchanged",
                "Move such a log as a file: herdbook backup, herdbook restore",
            )
    return head


def head_moved(after: Head) -> ConflictError:
    """Return the error for an import into a log that has another end by now."""
    return ConflictError(
        "the log",
        f"no longer ends at #{after.position}",
        "Stop the other processes that use it, then retry",
    )
