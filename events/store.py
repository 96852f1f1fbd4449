"""The contract of a store: append and read, and what every store must hold.

* Positions are 1, 2, 3, … over the whole log, versions the same in each stream.
* An append is committed whole, with its positions, or not at all. It has one of
  three outcomes: committed (and durable, when it returns), rejected with a
  reason, or unknown (``OutcomeUnknownError``), which appending the same events
  again resolves: an event id that is recorded with the same content answers with
  its own positions, with other content it is a conflict.
* A cancelled append has happened or has not; the log says which as soon as the
  cancellation has come out of it.
* What a reader has seen never changes, and nothing appears before it later.

``herdbook.events.testing`` is this contract as a suite of tests.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from datetime import datetime
from enum import Enum
from hashlib import sha256
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeAlias

import msgspec

from herdbook.events.errors import CallerError
from herdbook.events.recorded import GENESIS, NewEvent, RecordedEvent, StoredEvent
from herdbook.events.streams import check_stream


class Expected(Enum):
    """What a stream must be, where that is no version."""

    NO_STREAM = "no stream"
    EXISTS = "a stream with events"
    ANY = "any version"


NO_STREAM = Expected.NO_STREAM
"""The stream has no event yet; the same as version 0."""

EXISTS = Expected.EXISTS
"""The stream has an event."""

ANY = Expected.ANY
"""Whatever the stream is."""

ExpectedVersion: TypeAlias = int | Expected
"""The version that a stream must be at for an append, or a word about it."""


class Head(NamedTuple):
    """The end of the log.

    Attributes:
        position: Position of the newest event; 0 in an empty log.
        hash: Its hash; 64 zeros in an empty log.
    """

    position: int = 0
    hash: str = GENESIS


class EventStore(Protocol):
    """Where events are kept. Whoever opens it closes it."""

    async def append(
        self,
        stream: str,
        events: Sequence[NewEvent],
        expected_version: ExpectedVersion,
    ) -> tuple[RecordedEvent, ...]:
        """Append events to a stream, all or none, durably.

        Args:
            stream: The stream.
            events: At least one, in order.
            expected_version: What the stream must be.

        Returns:
            The events as recorded, with their positions: the caller can move its
            own state without reading them again.

        Raises:
            WrongExpectedVersionError: The stream is elsewhere; nothing was kept.
            EventIdConflictError: An id is recorded with other content.
            CallerError: The stream's name or an event cannot be recorded.
            WrongStreamError: An event does not belong in the stream.
            StoreClosedError: The store is closed.
            StoreFullError: No space is left; nothing was kept.
            StoreUnavailableError: Locked for too long or not writable.
            OutcomeUnknownError: It cannot be told whether it was kept.
        """
        ...

    def read_stream(
        self, stream: str, *, after_version: int = 0, limit: int | None = None
    ) -> AsyncIterator[RecordedEvent]:
        """Read a stream in order; one that does not exist has no events.

        Raises:
            CorruptLogError: An event cannot be read.
        """
        ...

    def read_all(
        self,
        *,
        after: int = 0,
        limit: int | None = None,
        stream_prefix: str = "",
        types: Collection[str] | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """Read the log in order of position.

        Args:
            after: Begin behind this position.
            limit: At most this many events; None for all there are when it ends.
            stream_prefix: Only streams whose names begin with it.
            types: Only these types; None for all.

        Raises:
            CorruptLogError: An event cannot be read.
        """
        ...

    def read_stored(
        self, *, after: int = 0, limit: int | None = None
    ) -> AsyncIterator[StoredEvent]:
        """Read the log as it is kept, undecoded: to verify or to export it."""
        ...

    async def stream_version(self, stream: str) -> int:
        """Return the version of a stream; 0 if it has no events."""
        ...

    async def head(self) -> Head:
        """Return the end of the log, as its head row has it."""
        ...

    def subscribe(self, after: int) -> AsyncGenerator[RecordedEvent, None]:
        """Read from behind a position, then go on with what is committed.

        Each event comes once, in order of position, whoever committed it; it
        ends when the store is closed.
        """
        ...

    async def close(self) -> None:
        """Commit what was accepted, then let go of everything. Twice is fine."""
        ...

    async def __aenter__(self) -> Self:
        """Return the store itself."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the store."""
        ...


class StoredView(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of a view: a cache, never a truth.

    Attributes:
        name: Which view.
        version: Number of the projection's form; another one makes it useless.
        position: Up to which event it is valid.
        hash: That event's hash, so that a snapshot of another log is noticed.
        data: The view.
    """

    name: str
    version: int
    position: int
    hash: str
    data: bytes

    @property
    def checksum(self) -> str:
        """SHA-256 of all of it: 64 hexadecimal digits."""
        head = f"{self.name}\0{self.version}\0{self.position}\0{self.hash}\0"
        return sha256(head.encode() + self.data).hexdigest()


class ViewStore(Protocol):
    """Where snapshots of views are kept."""

    async def load_view(self, name: str) -> StoredView | None:
        """Return the newest snapshot of a view, if there is one.

        Raises:
            CorruptLogError: It is not what was kept.
        """
        ...

    async def save_view(self, view: StoredView) -> None:
        """Keep a snapshot in the place of the one before.

        Raises:
            StoreError: It could not be kept; the one before is still there.
        """
        ...


class Instances(Protocol):
    """Who is at work on a log: an instance lives as long as it holds its lock."""

    @property
    def own(self) -> str:
        """The id of this instance."""
        ...

    def alive(self, instance: str) -> bool:
        """Return whether that instance is alive: this one, or one elsewhere."""
        ...

    def announce(self, streams: Collection[str]) -> None:
        """Publish the streams that this instance changes, in place of those before.

        Raises:
            StoreUnavailableError: They cannot be published.
        """
        ...

    def announced(self) -> frozenset[str]:
        """Return the streams that the other living instances have announced.

        Raises:
            StoreUnavailableError: They cannot be read.
        """
        ...


def check_append(
    stream: str, events: Sequence[NewEvent], expected_version: ExpectedVersion
) -> None:
    """Refuse what no store could record.

    Raises:
        CallerError: The stream's name is none, there are no events, two of them
            have one id, a text is empty, too long or not printable, a moment has
            no time zone or is not UTC, or the expected version is negative.
    """
    check_stream(stream)
    if not events:
        raise CallerError(f"append to {stream}", "has no events", "Give at least one")
    if not isinstance(expected_version, Expected) and expected_version < 0:
        raise CallerError(
            f"append to {stream}",
            f"expects version {expected_version}",
            "Versions begin at 1; 0 is a stream without events",
        )
    if len({event.event_id for event in events}) != len(events):
        raise CallerError(f"append to {stream}", "has one event id twice")
    for event in events:
        _check_text(event.event_id, "event id", 64)
        _check_text(event.actor, "actor", 200)
        for text in (event.correlation_id, event.causation_id):
            if text is not None:
                _check_text(text, "correlation or causation id", 64)
        _check_time(event.occurred_at)


def check_read(after: int, limit: int | None, *texts: str) -> None:
    """Refuse what no store could look for.

    Raises:
        CallerError: A place or a limit is negative or beyond 64 bits, or a text
            is not Unicode.
    """
    for number in (after, limit or 0):
        if not 0 <= number < 1 << 63:
            raise CallerError(f"a read from or of {number}", "is not possible")
    for text in texts:
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise CallerError(f"text {text[:80]!r}", "is not Unicode")


def _check_text(text: str, what: str, longest: int) -> None:
    if not text or len(text) > longest or not text.isprintable():
        raise CallerError(
            f"{what} {text[:80]!r}",
            "cannot be recorded",
            f"Use 1 to {longest} printable characters",
        )


def _check_time(moment: datetime) -> None:
    offset = moment.utcoffset()
    if offset is None or offset:
        raise CallerError(
            f"time {moment.isoformat()}", "is not in UTC", "Give it with UTC's zone"
        )


def expects(expected_version: ExpectedVersion, actual: int) -> bool:
    """Return whether a stream at version ``actual`` is what was expected."""
    match expected_version:
        case Expected.ANY:
            return True
        case Expected.EXISTS:
            return actual > 0
        case Expected.NO_STREAM:
            return actual == 0
        case _:
            return actual == expected_version
