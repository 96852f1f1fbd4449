"""The base class of all errors, and the errors of the log.

    HerdbookError                      everything that Herdbook raises on purpose
    ├── CallerError                    an invalid request; nothing was changed
    │   ├── IllegalTransitionError     an event that the lifecycle does not allow
    │   └── WrongStreamError           an event in a stream of another kind
    ├── ResourceExhaustedError         too many open files (``file_descriptors.py``)
    ├── MissingExtraError              a part of Herdbook is not installed
    └── StoreError                     the log failed
        ├── ConflictError              another append came first, or the id is taken
        │   ├── WrongExpectedVersionError
        │   ├── LeaseLostError         the instance no longer holds its lease
        │   └── EventIdConflictError
        ├── CorruptLogError            the stored data is damaged
        │   ├── DamagedArchiveError    (``archive_file.py``)
        │   ├── UnknownEventTypeError
        │   └── UndecodableEventError
        ├── OutcomeUnknownError        recorded or not; append again to resolve
        ├── StoreClosedError
        ├── StoreUnavailableError      locked, unreadable, not writable
        │   ├── ArchiveMissingError    (``archive_file.py``)
        │   └── InterruptedWriteError  resolved by the writer; never raised to callers
        ├── StoreFullError             no space left for the log
        ├── NotALogError               the file belongs to another program
        ├── ForkError                  a different history (``core/transfer``)
        └── NewerSchemaError           the log was written by a newer Herdbook

``core/errors`` adds the failures of Ollama and invalid requests about models.
Messages are built from typed fields: subject, state and remedy.
"""

from __future__ import annotations

from typing import ClassVar

LONGEST_PART = 1000
"""Maximum length of each part of a message, in characters; longer parts are cut."""


class HerdbookError(Exception):
    """The base class of every error that Herdbook raises on purpose.

    The message is always one line. Characters that do not print are escaped, so
    that they cannot control a terminal.

    Attributes:
        subject: The model, stream, file or server that the error is about.
        state: The problem, as a clause that follows the subject.
        remedy: How to fix the problem; empty if there is no advice.
    """

    code: ClassVar[str] = "error"
    """A stable code for programs, one per class; ``--json`` prints it."""

    def __init__(self, subject: str, state: str, remedy: str = "") -> None:
        self.subject = in_line(subject)
        self.state = in_line(state)
        self.remedy = in_line(remedy)
        super().__init__(self.subject, self.state, self.remedy)

    def __str__(self) -> str:
        return f"{self.subject} {self.state}" + (
            f". {self.remedy}" if self.remedy else ""
        )


def shortened(text: str, longest: int = 80) -> str:
    """Cut a text to a maximum length."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def in_line(text: str, longest: int = LONGEST_PART) -> str:
    """Cut a text to a maximum length and escape what does not print."""
    text = shortened(text, longest)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class CallerError(HerdbookError):
    """The request is invalid; nothing was changed."""

    code = "invalid"


class IllegalTransitionError(CallerError):
    """An event that the lifecycle does not allow in the model's state.

    Attributes:
        model: Name of the model, or of its stream.
        current: State of the model in words, with its activity.
        event: Type of the refused event.
        allowed: Types of the events that are allowed now, sorted.
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
    """An event does not belong in the stream; nothing was appended.

    Attributes:
        stream: Name of the stream.
        event: Type of the refused event.
        home: Form of the streams that the event belongs in.
    """

    code = "wrong_stream"

    def __init__(self, stream: str, *, event: str, home: str) -> None:
        self.stream = stream
        self.event = event
        self.home = home
        super().__init__(
            f"event {event}",
            f"cannot be appended to the stream {stream[:80]!r}",
            f"Append it to a stream named {home}",
        )


class MissingExtraError(HerdbookError):
    """Something needs a part of Herdbook that is not installed."""

    code = "missing_extra"


class StoreError(HerdbookError):
    """The log failed; events that were acknowledged are still recorded."""

    code = "store"


class ConflictError(StoreError):
    """Another append came first; nothing was appended."""

    code = "conflict"


class WrongExpectedVersionError(ConflictError):
    """The stream is not at the version that the append expected.

    Attributes:
        stream: Name of the stream.
        expected: The expected version, as given.
        actual: Current version of the stream.
    """

    code = "wrong_expected_version"

    def __init__(self, stream: str, *, expected: str, actual: int) -> None:
        self.stream = stream
        self.expected = expected
        self.actual = actual
        super().__init__(
            stream,
            f"is at version {actual}, not at {expected}",
            "Read the stream again, then retry",
        )


class LeaseLostError(ConflictError):
    """The instance does not hold the lease under which it appends.

    Attributes:
        lease: Name of the lease.
    """

    code = "lease_lost"

    def __init__(self, lease: str) -> None:
        self.lease = lease
        super().__init__(
            f"the lease of {lease}",
            "is no longer held by this process",
            "Another process has taken over",
        )


class EventIdConflictError(ConflictError):
    """The event id is already recorded with different content.

    Attributes:
        event_id: The id.
        position: Position of the recorded event.
    """

    code = "event_id_conflict"

    def __init__(self, event_id: str, *, position: int) -> None:
        self.event_id = event_id
        self.position = position
        super().__init__(
            f"event id {event_id}",
            f"is already recorded at #{position} with different content",
            "Use a new id for a new event",
        )


VERIFY_OR = "Run: herdbook verify, or "
"""How advice begins that ends with another one, for all but ``verify`` itself."""


class CorruptLogError(StoreError):
    """The stored data is damaged."""

    code = "corrupt_log"


class UnknownEventTypeError(CorruptLogError):
    """The log has an event type, or a schema of one, that this version cannot read.

    Attributes:
        type: The event type.
        schema: The schema number.
    """

    code = "unknown_event_type"

    def __init__(self, type_: str, *, schema: int) -> None:
        self.type = type_
        self.schema = schema
        super().__init__(
            f"event type {type_} (schema {schema})",
            "is unknown to this version of Herdbook",
            "Use the version of Herdbook that recorded it, or a newer one",
        )


class UndecodableEventError(CorruptLogError):
    """The data of an event do not match the schema of its type."""

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
    """The outcome of an append is unknown.

    Appending the same events again, with their ids, resolves it.

    Attributes:
        event_ids: The ids of the events.
    """

    code = "outcome_unknown"

    def __init__(self, stream: str, *, event_ids: tuple[str, ...], reason: str) -> None:
        self.event_ids = event_ids
        super().__init__(
            f"append to {stream}",
            f"may or may not have been recorded: {reason}",
            "Append the same events again; they are recorded only once",
        )


class StoreClosedError(StoreError):
    """The log is closed; nothing was appended."""

    code = "closed"


class StoreUnavailableError(StoreError):
    """The file of the log is locked, unreadable, not writable or missing."""

    code = "store_unavailable"


class InterruptedWriteError(StoreUnavailableError):
    """A write was interrupted: it may or may not be stored.

    The writer of a log finds out by the ids of the events.
    """


class StoreFullError(StoreError):
    """The disk of the log is full; nothing was appended."""

    code = "store_full"


class NotALogError(StoreError):
    """The file is not a Herdbook log: another database, or no database."""

    code = "not_a_log"


class NewerSchemaError(StoreError):
    """A newer version of Herdbook wrote the log; this version does not change it."""

    code = "newer_schema"
