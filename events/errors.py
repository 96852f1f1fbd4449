"""The root of all errors, and those of the log.

    HerdbookError                      everything that Herdbook raises on purpose
    ├── CallerError                    the caller asked for what cannot be
    │   ├── IllegalTransitionError     an event that the lifecycle does not allow
    │   └── WrongStreamError           an event in a stream of another kind
    ├── ResourceExhaustedError         too many open files; see ``resources.py``
    └── StoreError                     the log could not do its part
        ├── ConflictError              somebody was faster, or the id is taken
        │   ├── WrongExpectedVersionError
        │   └── EventIdConflictError
        ├── CorruptLogError            what is stored cannot be right
        │   ├── UnknownEventTypeError
        │   └── UndecodableEventError
        ├── OutcomeUnknownError        kept or not: appending again resolves it
        ├── StoreClosedError
        ├── StoreUnavailableError      locked, unreadable, not writable
        ├── StoreFullError             no space left for the log
        ├── NotALogError               the file belongs to another program
        └── NewerSchemaError           the log was written by a newer Herdbook

``core/errors.py`` continues the tree with Ollama's failures and the caller's
mistakes about models. The first split is by whose fault it is. A message is
composed here, from typed fields: subject, state, remedy.
"""

from __future__ import annotations

from typing import ClassVar

LONGEST_PART = 1000
"""Characters of a part of a message; what is longer is cut."""


class HerdbookError(Exception):
    """The root: what Herdbook raises on purpose, in three parts.

    It is one line, whatever a caller or a server said: what does not print is
    escaped, so that no terminal obeys it and every encoding takes it.

    Attributes:
        subject: What it is about: a model, a stream, a file, a server.
        state: What is wrong with it, as a clause that follows the subject.
        remedy: What to do about it; empty where nothing can be said.
    """

    code: ClassVar[str] = "error"
    """A stable word for programs, one per class (``--json`` shows it)."""

    def __init__(self, subject: str, state: str, remedy: str = "") -> None:
        self.subject = in_line(subject)
        self.state = in_line(state)
        self.remedy = in_line(remedy)
        super().__init__(self.subject, self.state, self.remedy)

    def __str__(self) -> str:
        return f"{self.subject} {self.state}" + (
            f". {self.remedy}" if self.remedy else ""
        )


def in_line(text: str, longest: int = LONGEST_PART) -> str:
    """Return a text as part of a line: cut if it is long, escaped if need be."""
    if len(text) > longest:
        text = f"{text[: longest - 1]}…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class CallerError(HerdbookError):
    """The caller asked for something that cannot be; nothing was changed."""

    code = "invalid"


class IllegalTransitionError(CallerError):
    """An event that the lifecycle does not allow in the model's state.

    Attributes:
        model: Name of the model (or of its stream).
        current: Its state in words, with the activity where there is one.
        event: The name of the refused event.
        allowed: The names of the events that are allowed now, sorted.
    """

    code = "illegal_transition"

    def __init__(
        self, model: str, *, current: str, event: str, allowed: tuple[str, ...]
    ) -> None:
        self.model = model
        self.current = current
        self.event = event
        self.allowed = allowed
        super().__init__(
            model,
            f"is {current}; {event} is not allowed",
            f"Allowed now: {', '.join(allowed)}" if allowed else "",
        )


class WrongStreamError(CallerError):
    """An event does not belong in the stream; nothing of the append was kept.

    Attributes:
        stream: The stream.
        event: The name of the refused event.
        home: The form of the streams that it belongs in.
    """

    code = "wrong_stream"

    def __init__(self, stream: str, *, event: str, home: str) -> None:
        self.stream = stream
        self.event = event
        self.home = home
        super().__init__(
            f"append of {event}",
            f"cannot go to the stream {stream[:80]!r}",
            f"Append it to a stream of the form {home}",
        )


class StoreError(HerdbookError):
    """The log could not do its part; what was acknowledged is still there."""

    code = "store"


class ConflictError(StoreError):
    """Somebody else was faster; nothing of the append was kept."""

    code = "conflict"


class WrongExpectedVersionError(ConflictError):
    """The stream is not at the version that the append expected.

    Attributes:
        stream: The stream.
        expected: The expected version, as given.
        actual: The version found.
    """

    code = "wrong_expected_version"

    def __init__(self, stream: str, *, expected: str, actual: int) -> None:
        self.stream = stream
        self.expected = expected
        self.actual = actual
        super().__init__(
            stream,
            f"is at version {actual}; expected was {expected}",
            "Read it again and decide anew",
        )


class EventIdConflictError(ConflictError):
    """The event id is recorded already, with other content.

    Attributes:
        event_id: The id.
        position: Where it is recorded.
    """

    code = "event_id_conflict"

    def __init__(self, event_id: str, *, position: int) -> None:
        self.event_id = event_id
        self.position = position
        super().__init__(
            f"event id {event_id}",
            f"is recorded at #{position} with other content",
            "Give a new event its own id",
        )


class CorruptLogError(StoreError):
    """What is stored cannot be right."""

    code = "corrupt_log"


class UnknownEventTypeError(CorruptLogError):
    """The log holds a type, or a schema of it, that this version does not know.

    Attributes:
        type: The event's type.
        schema: Its schema number.
    """

    code = "unknown_event_type"

    def __init__(self, type_: str, *, schema: int) -> None:
        self.type = type_
        self.schema = schema
        super().__init__(
            f"event type {type_} (schema {schema})",
            "is not known to this version",
            "Use the version of Herdbook that wrote it, or a newer one",
        )


class UndecodableEventError(CorruptLogError):
    """The data of an event do not have the form of its type."""

    code = "undecodable_event"

    def __init__(self, type_: str, *, schema: int, reason: str) -> None:
        self.type = type_
        self.schema = schema
        self.reason = reason
        super().__init__(
            f"data of {type_} (schema {schema})",
            f"cannot be read: {reason}",
            "Run: herdbook verify",
        )


class OutcomeUnknownError(StoreError):
    """It cannot be told whether the append was kept.

    Appending the same events again, with their ids, resolves it.

    Attributes:
        event_ids: The ids of the events.
    """

    code = "outcome_unknown"

    def __init__(self, stream: str, *, event_ids: tuple[str, ...], reason: str) -> None:
        self.event_ids = event_ids
        super().__init__(
            f"append to {stream}",
            f"may or may not have been kept: {reason}",
            "Append the same events again: that records them once",
        )


class StoreClosedError(StoreError):
    """The log is closed; nothing was appended."""

    code = "closed"


class StoreUnavailableError(StoreError):
    """The log's file is locked, unreadable, not writable or not there."""

    code = "store_unavailable"


class StoreFullError(StoreError):
    """No space is left where the log is kept; nothing was appended."""

    code = "store_full"


class NotALogError(StoreError):
    """The file is no Herdbook log: another program's, or no database at all."""

    code = "not_a_log"


class NewerSchemaError(StoreError):
    """The log was written by a newer Herdbook; this one leaves it alone."""

    code = "newer_schema"
