"""Plan a group of appends before anything is written.

The plan is a pure function, shared by all stores. It checks each append on its own,
assigns positions, versions and hashes to the events, and has an outcome for each
caller. A store then writes all of ``Plan.events``, or none of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias, cast

import msgspec

from herdbook.events.codec import SCHEMAS, TYPES, decode, encode
from herdbook.events.errors import (
    CallerError,
    ConflictError,
    EventIdConflictError,
    LeaseLostError,
    UndecodableEventError,
    WrongExpectedVersionError,
    WrongStreamError,
)
from herdbook.events.facts import AnyFact, Fact
from herdbook.events.findings import belongs, home_of
from herdbook.events.instances import Fence
from herdbook.events.recorded import (
    Cause,
    NewEvent,
    Position,
    RecordedEvent,
    StoredEvent,
    canonical_bytes,
    chained_hash,
    time_text,
)
from herdbook.events.store import Expected, ExpectedVersion, Head, check_append, expects

LONGEST_DATA = 1 << 20
"""Maximum length of the data of one event, in characters. The largest events in
practice, the capabilities of a model, have a few thousand."""

_MANY_DIGITS = re.compile(r"\d{19}")

_CAUSES: dict[str, Cause] = {cause.value: cause for cause in Cause}

PendingResult: TypeAlias = tuple[RecordedEvent, ...] | ConflictError
"""The outcome of an append."""


class DraftEvent(NamedTuple):
    """A new event with its fact as stored (``data``) and as read back (``fact``)."""

    event: NewEvent
    cause: Cause
    type: str
    data: str
    fact: Fact


class Draft(NamedTuple):
    """An append that passed every check that needs no access to the log."""

    stream: str
    events: tuple[DraftEvent, ...]
    expected_version: ExpectedVersion
    fence: Fence | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the events."""
        return tuple(draft.event.event_id for draft in self.events)


def draft_append(
    stream: str,
    events: Sequence[NewEvent],
    expected_version: ExpectedVersion,
    fence: Fence | None = None,
) -> Draft:
    """Check an append and encode its facts.

    Raises:
        CallerError: As ``check_append``; also if a fact is of an unknown class, or
            would not be read back unchanged.
        WrongStreamError: A fact does not belong in the stream.
    """
    check_append(stream, events, expected_version)
    drafts = tuple(_draft(event) for event in events)
    for draft in drafts:
        if not belongs(draft.type, stream):
            raise WrongStreamError(stream, event=draft.type, home=home_of(draft.type))
    return Draft(stream, drafts, expected_version, fence)


def _draft(event: NewEvent) -> DraftEvent:
    type_ = type(event.fact).__name__
    cause = _CAUSES.get(event.cause)
    if TYPES.get(type_) is not type(event.fact) or not cause:
        raise CallerError(f"{type_!r}", "is not an event type of Herdbook")
    try:
        data = encode(event.fact)
        fact = decode(type_, SCHEMAS[type_], data)
    except (UndecodableEventError, msgspec.MsgspecError, UnicodeError) as error:
        raise CallerError(f"event {type_}", f"cannot be recorded: {error}") from error
    if fact != event.fact or len(data) > LONGEST_DATA or _has_huge_integer(data):
        raise CallerError(
            f"event {type_}",
            "cannot be recorded unchanged",
            "Use finite numbers of at most 64 bits, and a total of at most "
            f"{LONGEST_DATA:,} characters",
        )
    return DraftEvent(event, cause, type_, data, fact)


def _has_huge_integer(data: str) -> bool:
    """Return whether JSON has an integer of more than 64 bits."""
    if not _MANY_DIGITS.search(data):  # fast path: no need to parse
        return False

    def walk(value: object) -> bool:
        if isinstance(value, dict):
            return any(map(walk, value.values()))
        if isinstance(value, list):
            return any(map(walk, value))
        return isinstance(value, int) and not -(1 << 63) <= value < 1 << 63

    return walk(msgspec.json.decode(data))


class Plan:
    """The events to write, and the outcome of each append once they are written.

    Attributes:
        begin: End of the log before the plan.
        head: End of the log after the plan.
        versions: Versions of the streams after the plan.
        events: The events to write, in order.
        canonical: The hashed bytes of each.
        recorded: The same events, as reading them back returns them.
        outcomes: One outcome per draft.
    """

    def __init__(
        self,
        head: Head,
        versions: Mapping[str, int],
        recorded: Mapping[str, RecordedEvent],
        now: datetime,
        lost: Collection[str] = (),
    ) -> None:
        self.begin = head
        self.head = head
        self.versions = dict(versions)
        self.events: list[StoredEvent] = []
        self.canonical: list[bytes] = []
        self.recorded: list[RecordedEvent] = []
        self.outcomes: list[PendingResult] = []
        self._known = dict(recorded)
        self._lost = lost
        self._now = now.astimezone(UTC)
        self._recorded_at = time_text(self._now)

    @property
    def refuses(self) -> bool:
        """Whether an append of the group is refused."""
        return any(isinstance(outcome, ConflictError) for outcome in self.outcomes)

    def move(self, position: int, hashes: Sequence[str]) -> None:
        """Move the planned events to the end that the log had when they were written.

        Args:
            position: Position of the last one.
            hashes: Their hashes there.
        """
        first = position - len(self.events) + 1
        new = zip(self.recorded, self.events, hashes, strict=True)
        for number, (recorded, stored, hash_) in enumerate(new, first):
            # Nobody has them yet, and copies would take longer than all of the rest.
            for event in (recorded, stored):
                msgspec.structs.force_setattr(event, "position", number)
                msgspec.structs.force_setattr(event, "hash", hash_)
        self.head = Head(position, hashes[-1])

    def add(self, draft: Draft) -> None:
        """Decide one append, as if all earlier ones were written."""
        try:
            outcome: PendingResult = self._decide(draft)
        except ConflictError as error:
            outcome = error
        self.outcomes.append(outcome)

    def _decide(self, draft: Draft) -> tuple[RecordedEvent, ...]:
        if originals := find_originals(draft, self._known):
            return originals
        fence = draft.fence
        if fence and (fence.lease in self._lost or not fence.is_held()):
            raise LeaseLostError(fence.lease)
        actual = self.versions.get(draft.stream, 0)
        if not expects(draft.expected_version, actual):
            raise WrongExpectedVersionError(
                draft.stream, expected=_words(draft.expected_version), actual=actual
            )
        return tuple(self._record(draft.stream, event) for event in draft.events)

    def _record(self, stream: str, draft: DraftEvent) -> RecordedEvent:
        event = draft.event
        position = self.head.position + 1
        version = self.versions.get(stream, 0) + 1
        schema = SCHEMAS[draft.type]
        stored = StoredEvent(
            position,
            stream,
            version,
            event.event_id,
            draft.type,
            schema,
            draft.data,
            time_text(event.occurred_at),
            self._recorded_at,
            event.actor,
            draft.cause,
            event.correlation_id,
            event.causation_id,
            "",
        )
        canonical = canonical_bytes(stored)
        digest = chained_hash(self.head.hash, canonical)
        # Nobody has it yet, and a copy would take as long as the hash.
        msgspec.structs.force_setattr(stored, "hash", digest)
        # As reading it back would return it, without decoding it again.
        recorded = RecordedEvent(
            Position(position),
            stream,
            version,
            event.event_id,
            draft.type,
            schema,
            cast("AnyFact", draft.fact),
            event.occurred_at.astimezone(UTC),
            self._now,
            event.actor,
            draft.cause,
            event.correlation_id,
            event.causation_id,
            digest,
        )
        self.events.append(stored)
        self.canonical.append(canonical)
        self.recorded.append(recorded)
        self.head = Head(position, digest)
        self.versions[stream] = version
        self._known[event.event_id] = recorded
        return recorded


def plan_group(
    drafts: Iterable[Draft],
    *,
    head: Head,
    versions: Mapping[str, int],
    recorded: Mapping[str, RecordedEvent],
    now: datetime,
    lost: Collection[str] = (),
) -> Plan:
    """Decide a group of appends in order, each on its own.

    Args:
        drafts: The appends.
        head: End of the log.
        versions: Current versions of their streams; 0 for a new stream.
        recorded: Events that are already recorded under their ids, if known.
        now: Time of recording.
        lost: Leases that their instances were found not to hold.
    """
    plan = Plan(head, versions, recorded, now, lost)
    for draft in drafts:
        plan.add(draft)
    return plan


def find_originals(
    draft: Draft, recorded: Mapping[str, RecordedEvent]
) -> tuple[RecordedEvent, ...] | None:
    """Return the events that the same append recorded before; None if it did not.

    The same append has the same ids with the same content: stream, type, data,
    time, actor, cause, correlation and causation. The expected version is ignored.

    Raises:
        EventIdConflictError: An id is recorded with other content, or only some
            of the ids are recorded.
    """
    if not any(event.event.event_id in recorded for event in draft.events):
        return None
    known = [recorded.get(event_id) for event_id in draft.ids]
    first = next(event for event in known if event)
    for draft_event, event in zip(draft.events, known, strict=True):
        if event is None or not _is_same(draft.stream, draft_event, event):
            taken = event or first
            raise EventIdConflictError(taken.event_id, position=taken.position)
    return tuple(event for event in known if event)


def _is_same(stream: str, draft: DraftEvent, recorded: RecordedEvent) -> bool:
    event = draft.event
    return (
        recorded.stream == stream
        and recorded.type == draft.type
        and encode(recorded.data) == draft.data
        and recorded.occurred_at == event.occurred_at
        and recorded.actor == event.actor
        and recorded.cause == event.cause
        and recorded.correlation_id == event.correlation_id
        and recorded.causation_id == event.causation_id
    )


def _words(expected_version: ExpectedVersion) -> str:
    if isinstance(expected_version, Expected):
        return expected_version.value
    return str(expected_version)
