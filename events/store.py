"""The contract of an event store.

* Positions are 1, 2, 3, … over the whole log; versions are the same per stream.
* An append is committed completely or not at all. It has one of three outcomes:
  committed (and durable once it returns), rejected with a reason, or unknown
  (``OutcomeUnknownError``). To resolve an unknown outcome, append the same events
  again: an event id that is recorded with the same content returns the recorded
  event, and with other content it is a conflict.
* A cancelled append is recorded or not; reading the log after the cancellation
  shows which.
* Events that a reader has seen never change, and no event appears before them.

``herdbook.events.testing`` has this contract as a test suite.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Collection,
    Mapping,
    Sequence,
)
from datetime import datetime
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeAlias, runtime_checkable

from herdbook.events.archive_file import Archive
from herdbook.events.errors import CallerError
from herdbook.events.instances import Fence
from herdbook.events.recorded import GENESIS, NewEvent, RecordedEvent, StoredEvent
from herdbook.events.snapshots import StoredView
from herdbook.events.streams import check_stream


class Expected(Enum):
    """What a stream must be for an append, instead of a version."""

    NO_STREAM = "no stream"
    EXISTS = "a stream with events"
    ANY = "any version"


NO_STREAM = Expected.NO_STREAM
"""The stream has no event yet; the same as version 0."""

EXISTS = Expected.EXISTS
"""The stream has an event."""

ANY = Expected.ANY
"""Any version of the stream."""

ExpectedVersion: TypeAlias = int | Expected
"""The version that a stream must have for an append, or an ``Expected``."""


class Head(NamedTuple):
    """The end of the log.

    Attributes:
        position: Position of the newest event; 0 in an empty log.
        hash: Its hash; 64 zeros in an empty log.
    """

    position: int = 0
    hash: str = GENESIS


class EventStore(Protocol):
    """An append-only log of events. The code that opens a store closes it."""

    async def append(
        self,
        stream: str,
        events: Sequence[NewEvent],
        expected_version: ExpectedVersion,
        *,
        fence: Fence | None = None,
    ) -> tuple[RecordedEvent, ...]:
        """Append events to a stream, all or none, durably.

        Args:
            stream: Name of the stream.
            events: At least one event, in order.
            expected_version: Version that the stream must have.
            fence: The lease that must be held at the time of the commit; None for none.

        Returns:
            The recorded events with their positions, so that the caller can update
            its own state without reading them.

        Raises:
            WrongExpectedVersionError: The stream has another version.
            LeaseLostError: The lease of the fence is not held; nothing was appended.
            EventIdConflictError: An id is recorded with other content.
            CallerError: The stream's name or an event cannot be recorded.
            WrongStreamError: An event does not belong in the stream.
            StoreClosedError: The store is closed.
            StoreFullError: The disk is full; nothing was appended.
            StoreUnavailableError: The log is locked for too long or not writable.
            OutcomeUnknownError: The events may or may not be recorded.
        """
        ...

    def read_stream(
        self, stream: str, *, after_version: int = 0, limit: int | None = None
    ) -> AsyncIterator[RecordedEvent]:
        """Read a stream in order; a stream that does not exist has no events.

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
            after: Start after this position.
            limit: Maximum number of events; None for all events up to the end.
            stream_prefix: Read only streams with this prefix.
            types: Read only these event types; None for all.

        Raises:
            CorruptLogError: An event cannot be read.
        """
        ...

    def read_stored(
        self, *, after: int = 0, limit: int | None = None
    ) -> AsyncIterator[StoredEvent]:
        """Read the log undecoded, to verify or export it."""
        ...

    async def stream_version(self, stream: str) -> int:
        """Return the version of a stream; 0 if the stream has no events."""
        ...

    async def head(self) -> Head:
        """Return the end of the log, from its head row."""
        ...

    def subscribe(self, after: int) -> AsyncGenerator[RecordedEvent, None]:
        """Read the events after a position, then follow new commits.

        Yields each event once, in order of position, including those that other
        processes commit. Ends when the store is closed.
        """
        ...

    async def close(self) -> None:
        """Commit accepted appends and release all resources; safe to call twice."""
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


@runtime_checkable
class ImportingStore(Protocol):
    """A store that takes the events of another log exactly as they are."""

    async def append_stored(
        self, events: Sequence[StoredEvent], *, after: Head
    ) -> None:
        """Append recorded events unchanged, all or none, durably.

        Ids, positions, versions, times, data and hashes stay as they are; the data
        need not be readable.

        Args:
            events: At least one event; they continue the chain after ``after``.
            after: The end that the log must have.

        Raises:
            CallerError: The events do not continue the chain; nothing was appended.
            ConflictError: The log has another end, or an id or a version is taken;
                nothing was appended.
            StoreError: As for ``EventStore.append``; if it is not known whether the
                events are recorded, the head of the log shows it.
        """
        ...


@runtime_checkable
class ArchivedStore(Protocol):
    """A store that can move its oldest events to archives, and reads them there."""

    async def archives(self) -> Sequence[Archive]:
        """Return the archives, in order."""
        ...

    def path_of(self, archive: Archive) -> Path:
        """Return where the file of an archive is.

        Raises:
            ArchiveMissingError: It is in no known place.
        """
        ...

    async def boundary_views(self, position: int | None = None) -> Sequence[StoredView]:
        """Return the state of the views at the end of an archive.

        Args:
            position: The last archive that ends here or before; None for the last one.

        Raises:
            CorruptLogError: One is damaged.
        """
        ...

    async def archived_versions(self) -> Mapping[str, int]:
        """Return the versions of the streams at the end of the last archive."""
        ...

    async def keep_ids(self, *, after: int, until: int) -> None:
        """Keep the ids of events that will be archived, so that they stay unique.

        Args:
            after: Position before the first event.
            until: Position of the last event.

        Raises:
            StoreError: None was kept; they may be kept again.
        """
        ...

    async def seal(
        self,
        archive: Archive,
        *,
        stream: str,
        event: NewEvent,
        versions: Mapping[str, int],
        views: Sequence[StoredView],
    ) -> None:
        """Record an archive whose file is complete, all of this or nothing.

        From then on its events may be deleted; they are read from the file.

        Args:
            archive: The archive; the ids of its events are kept already.
            stream: Where the event is appended.
            event: The event that announces the archive.
            versions: The last version of each stream in it.
            views: The state of the views at its end.

        Raises:
            ConflictError: It does not follow the last archive.
            StoreError: It was not recorded, or the log shows whether it was.
        """
        ...

    async def has_archived(self) -> bool:
        """Return whether the log still has events that are archived."""
        ...

    async def delete_archived(self, limit: int) -> int:
        """Delete the oldest archived events; return how many.

        Raises:
            StoreError: None was deleted.
        """
        ...

    async def free_bytes(self) -> tuple[int, int]:
        """Return the unused and the used bytes of the file.

        Raises:
            StoreError: The log cannot be read.
        """
        ...

    async def shrink(self) -> None:
        """Give the space of deleted events back to the file system.

        Raises:
            StoreError: Another process holds a lock, or the disk is full.
        """
        ...


def check_append(
    stream: str, events: Sequence[NewEvent], expected_version: ExpectedVersion
) -> None:
    """Check an append that is invalid for every store.

    Raises:
        CallerError: The stream name is invalid, there are no events, two events have
            the same id, a text is empty, too long or not printable, a time is not in
            UTC, or the expected version is negative.
    """
    check_stream(stream)
    if not events:
        raise CallerError(f"append to {stream}", "has no events", "Append at least one")
    if not isinstance(expected_version, Expected) and expected_version < 0:
        raise CallerError(
            f"append to {stream}",
            f"expects version {expected_version}",
            "Versions start at 1; 0 is a stream without events",
        )
    if len(events) > 1 and len({event.event_id for event in events}) != len(events):
        raise CallerError(f"append to {stream}", "has the same event id twice")
    for event in events:
        _check_text(event.event_id, "event id", 64)
        _check_text(event.actor, "actor", 200)
        for text in (event.correlation_id, event.causation_id):
            if text is not None:
                _check_text(text, "correlation or causation id", 64)
        _check_time(event.occurred_at)


def check_read(after: int, limit: int | None, *texts: str) -> None:
    """Check a read that is invalid for every store.

    Raises:
        CallerError: A position or a limit is negative or too large for 64 bits, or a
            text is not Unicode.
    """
    for number in (after, limit or 0):
        if not 0 <= number < 1 << 63:
            raise CallerError(f"position or limit {number}", "is out of range")
    for text in texts:
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise CallerError(f"text {text[:80]!r}", "is not Unicode")


def _check_text(text: str, label: str, longest: int) -> None:
    if not text or len(text) > longest or not text.isprintable():
        raise CallerError(
            f"{label} {text[:80]!r}",
            "cannot be recorded",
            f"Use 1 to {longest} printable characters",
        )


def _check_time(time: datetime) -> None:
    offset = time.utcoffset()
    if offset is None or offset:
        raise CallerError(
            f"time {time.isoformat()}", "is not in UTC", "Convert it to UTC"
        )


def expects(expected_version: ExpectedVersion, actual: int) -> bool:
    """Return whether a stream at version ``actual`` meets an expected version."""
    if type(expected_version) is int:
        return actual == expected_version
    match expected_version:
        case Expected.ANY:
            return True
        case Expected.EXISTS:
            return actual > 0
        case Expected.NO_STREAM:
            return actual == 0
        case _:
            return actual == expected_version
