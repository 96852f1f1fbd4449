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
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from datetime import datetime
from enum import Enum
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeAlias, runtime_checkable

import msgspec

from herdbook.events.archive_file import Archive
from herdbook.events.errors import CallerError
from herdbook.events.recorded import GENESIS, NewEvent, RecordedEvent, StoredEvent
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


def _always() -> bool:
    return True


class Fence(NamedTuple):
    """The condition of an append that an instance holds a lease when it is written.

    A process that was stopped, and continues after another instance took the lease,
    cannot append under it any more.

    Attributes:
        lease: Name of the lease.
        holder: Id of the instance that must hold it.
        is_held: Returns whether it is held, where the lock belongs to this process and
            nobody can take it away; where the database has the lock, the append asks
            there.
    """

    lease: str
    holder: str
    is_held: Callable[[], bool] = _always


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


class StoredView(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of a view: a cache that can be rebuilt from the log.

    Attributes:
        name: Name of the view.
        version: Format number of the projection; other versions are ignored.
        position: Position of the last event in the snapshot.
        hash: Hash of that event, to detect a snapshot of another log.
        data: The serialized view.
    """

    name: str
    version: int
    position: int
    hash: str
    data: bytes

    @property
    def checksum(self) -> str:
        """SHA-256 of all fields: 64 hexadecimal digits."""
        head = f"{self.name}\0{self.version}\0{self.position}\0{self.hash}\0"
        return sha256(head.encode() + self.data).hexdigest()


class KeptView(NamedTuple):
    """A snapshot that is kept at its position, without its data.

    Attributes:
        version: Format number, as in ``StoredView``.
        position: Position of the last event in the snapshot.
        size: Size of the data, bytes.
    """

    version: int
    position: int
    size: int


class ViewStore(Protocol):
    """A store for the newest snapshot of each view, a cache of the log."""

    async def load_view(self, name: str) -> StoredView | None:
        """Return the snapshot of a view, if there is one.

        Raises:
            CorruptLogError: The snapshot is damaged.
        """
        ...

    async def save_view(self, view: StoredView) -> None:
        """Replace the snapshot of a view.

        Raises:
            StoreError: The snapshot was not saved; the previous one is unchanged.
        """
        ...


class KeptViewStore(Protocol):
    """A store for snapshots of views at many positions, a cache of the log.

    They are independent of the newest snapshots of ``ViewStore``.
    """

    async def keep_view(self, view: StoredView) -> None:
        """Keep a snapshot in addition to those at other positions.

        It replaces a kept snapshot of the same name, version and position.

        Raises:
            StoreError: The snapshot was not saved.
        """
        ...

    async def kept_views(self, name: str) -> Sequence[KeptView]:
        """Return the kept snapshots of a view, sorted by position, then version."""
        ...

    async def load_kept_view(
        self, name: str, *, version: int, position: int
    ) -> StoredView | None:
        """Return a kept snapshot, if there is one.

        Raises:
            CorruptLogError: The snapshot is damaged.
        """
        ...

    async def drop_views(
        self, name: str, *, version: int, positions: Collection[int]
    ) -> None:
        """Delete kept snapshots; positions without one are ignored.

        Raises:
            StoreError: They were not deleted.
        """
        ...


class SnapshotStore(ViewStore, KeptViewStore, Protocol):
    """A store for all snapshots of views."""


class Holder(msgspec.Struct, frozen=True):
    """The instance that holds a lease.

    Attributes:
        instance: Its id.
        host: Name of the machine that it runs on; empty if it is not known.
        process: Its process id there; None if it is not known.
    """

    instance: str
    host: str = ""
    process: int | None = None


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


class Instances(Protocol):
    """The instances of Herdbook on a log; one is alive while it holds its lock."""

    @property
    def own(self) -> str:
        """The id of this instance."""
        ...

    async def alive(self, instance: str) -> bool:
        """Return whether an instance is alive, in this process or another.

        Raises:
            StoreUnavailableError: It cannot be found out.
        """
        ...

    async def announce(self, streams: Collection[str]) -> None:
        """Publish the streams that this instance changes, instead of earlier ones.

        Raises:
            StoreUnavailableError: The streams cannot be published.
        """
        ...

    async def announced(self) -> frozenset[str]:
        """Return the streams that the other living instances announced.

        Raises:
            StoreUnavailableError: The announcements cannot be read.
        """
        ...

    async def hold(self, lease: str) -> bool:
        """Take a lease unless another instance has it; return whether it is held.

        A lease is held by at most one instance at a time, until it is released, its
        instance ends, or (in a database) its connection is lost.

        Args:
            lease: Its name, such as the stream of a node.

        Raises:
            StoreError: It cannot be found out.
        """
        ...

    async def holds(self, lease: str) -> bool:
        """Return whether this instance holds a lease now; take nothing.

        Raises:
            StoreError: It cannot be found out.
        """
        ...

    async def holders(self, leases: Collection[str]) -> Mapping[str, Holder]:
        """Return the instance that holds each of some leases, if one does.

        Raises:
            StoreError: It cannot be found out.
        """
        ...

    def fence(self, lease: str) -> Fence:
        """Return the condition of an append that this instance holds a lease."""
        ...

    async def release(self, lease: str) -> None:
        """Release a lease, so that another instance can take it at once.

        Raises:
            StoreError: It could not be released; it ends with this instance.
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
