"""Verify a log: run every check on every event.

The log is read once, in order, and reading continues after a finding. Memory use is
one version and one lifecycle per stream, so a log of any length can be verified.

The hashes prove that no event was changed after it was written, unless all later
hashes were computed again. An anchor, which is a head that was saved elsewhere,
detects that too.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import NoReturn, Protocol, runtime_checkable

import msgspec

from herdbook.events import codec
from herdbook.events.archive_file import (
    UNREADABLE,
    Archive,
    ArchiveMissingError,
    DamagedArchiveError,
)
from herdbook.events.errors import CorruptLogError, StoreError
from herdbook.events.findings import (
    Finding,
    Kind,
    belongs,
    illegal_event,
    not_canonical,
    wrong_stream,
)
from herdbook.events.lifecycle import (
    EVENTS,
    INITIAL,
    TRANSITIONS,
    Lifecycle,
    fold,
    state_implied_by,
)
from herdbook.events.recorded import (
    RecordedEvent,
    StoredEvent,
    canonical_bytes,
    chained_hash,
)
from herdbook.events.shared.pages import PAGE
from herdbook.events.store import ArchivedStore, EventStore, Head
from herdbook.events.streams import model_of, node_of

MOST_FINDINGS = 1_000
"""Maximum number of findings of one kind that are listed; the others are counted."""

MOST_UNREADABLE = 10_000
"""Maximum number of unreadable rows, after which reading stops."""

_HASH = re.compile("[0-9a-f]{64}")


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The result of verifying a log.

    Attributes:
        events: Number of events that were read.
        head: Position and hash of the last event.
        set_back: Number of events recorded earlier than their predecessor. Clocks
            may be set back, so this is not a finding.
        findings: Problems in order of position, at most ``MOST_FINDINGS`` of each kind;
            empty for a sound log.
        omitted: How many more findings there are.
        missing: Which archives were missing, so that their events were not verified;
            empty if all events were.
    """

    events: int
    head: Head
    set_back: int
    findings: tuple[Finding, ...]
    omitted: int = 0
    missing: str = ""


@runtime_checkable
class FileStore(Protocol):
    """A store that can check the file of its log."""

    async def check_file(self) -> list[str]:
        """Return the problems of the file itself, in words."""
        ...


_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
)
"""The form of ``time_text``; since Python 3.13, ``fromisoformat`` also takes 24:00."""

_SECOND_LENGTH = len("2026-01-02T03:04:05.")
_TIME_LENGTH = len("2026-01-02T03:04:05.678901Z")


class _Stream(msgspec.Struct, gc=False):
    """What is known about a stream.

    Attributes:
        version: Version of the last event.
        lifecycle: Lifecycle of the model; None after an unknown event.
        is_model: Whether it is the stream of a model.
    """

    version: int = 0
    lifecycle: Lifecycle | None = INITIAL
    is_model: bool = False


class _Check:
    """The checks of the events in order, with the state between them."""

    def __init__(
        self, anchors: Collection[Head], is_canonical: Callable[[str], bool]
    ) -> None:
        self._is_canonical = is_canonical
        self.findings: list[Finding] = []
        self.omitted = 0
        self._found: Counter[Kind] = Counter()
        self.events = 0
        self.unreadable = 0
        self.set_back = 0
        self.head = Head()
        self._anchors: defaultdict[int, set[str]] = defaultdict(set)
        for at, hash_ in anchors:
            if at > 0:
                self._anchors[at].add(hash_)
        self._streams: dict[str, _Stream] = {}
        self.stopped = False
        self._unplaced = 0  # unreadable rows whose stream is not known
        self._knows_all_streams = True
        self._recorded_at = ""
        self._second = ""  # the last one of a valid time, such as 2026-01-02T03:04:05.
        self.missing: list[str] = []

    def begin_after(
        self, archive: Archive, versions: Mapping[str, int] | None, reason: str
    ) -> None:
        """Begin after an archive whose events cannot be read.

        Args:
            archive: The archive.
            versions: The versions of the streams at its end, if they are known.
            reason: Why it cannot be read.
        """
        self.head = Head(archive.last, archive.hash)
        self._knows_all_streams = versions is not None
        self._streams = {
            stream: _Stream(version, None, model_of(stream) is not None)
            for stream, version in (versions or {}).items()
        }
        for at in [at for at in self._anchors if archive.first <= at < archive.last]:
            del self._anchors[at]
            self.find(at, Kind.ANCHOR, f"cannot be compared with an anchor: {reason}")
        for anchored in self._anchors.pop(archive.last, {archive.hash}):
            if anchored != archive.hash:
                self.find(archive.last, Kind.ANCHOR, _contradicts(anchored))

    def find(self, position: int, kind: Kind, message: str) -> None:
        """Add a finding."""
        self._add(Finding(position=position, kind=kind, message=message))

    def _add(self, finding: Finding) -> None:
        self._found[finding.kind] += 1
        if self._found[finding.kind] <= MOST_FINDINGS:
            self.findings.append(finding)
        else:
            self.omitted += 1

    def skip(self, position: int, message: str, event: RecordedEvent | None) -> None:
        """Add a finding for a row that cannot be read, and continue after it.

        The hash of the row, if that can be read, continues the chain.

        Args:
            position: Position of the row.
            message: Why the row cannot be read.
            event: The columns that can be read, so that the next event of the stream
                gets no finding of its own.
        """
        self.unreadable += 1
        self.find(position, Kind.UNREADABLE, message)
        self.stopped = self.unreadable == MOST_UNREADABLE
        if self.stopped:
            last = f"{MOST_UNREADABLE:,} events cannot be read"
            self.find(position, Kind.FILE, f"is the last one that was checked: {last}")
        readable = event is not None and _HASH.fullmatch(event.hash)
        self.head = Head(position, event.hash if event and readable else "")
        for anchored in self._anchors.pop(position, ()):
            if anchored != self.head.hash:
                self.find(position, Kind.ANCHOR, _contradicts(anchored))
        key = model_of(event.stream) if event is not None else None
        if event is None or (key is None and node_of(event.stream) is None):
            self._unplaced += 1
            return
        self._check_name(position, event.stream)
        before = self._before(event.stream)
        after = None
        if event.type in EVENTS and before.lifecycle is not None:
            after = fold(before.lifecycle, event.type)
        known = event.stream in self._streams or self._knows_all_streams
        version = before.version + 1 if known else event.version
        self._streams[event.stream] = _Stream(version, after, key is not None)

    def _before(self, stream: str) -> _Stream:
        """Return what is known about a stream before its next event."""
        unknown = _Stream(lifecycle=INITIAL if self._knows_all_streams else None)
        return self._streams.get(stream, unknown)

    def check(self, event: StoredEvent) -> None:
        """Check an event, and update the state with it."""
        self.events += 1
        if not self._check_at_once(event):
            self._check_each(event)
        self.set_back += event.recorded_at < self._recorded_at
        self._recorded_at = event.recorded_at
        self.head = Head(event.position, event.hash)

    def _check_at_once(self, event: StoredEvent) -> bool:
        """Check an event that passes all checks, at a third of the cost.

        Returns:
            Whether it does; if not, nothing is changed, and ``_check_each`` finds out
            what is wrong. Events of nodes, and the first of a stream, go there too.
        """
        position, previous = self.head
        stream = self._streams.get(event.stream)
        if (
            stream is None
            or not stream.is_model
            or stream.lifecycle is None
            or not previous
            or event.position != position + 1
            or event.position in self._anchors
            or event.version != stream.version + 1
        ):
            return False
        after = TRANSITIONS[stream.lifecycle].get(event.type)
        if after is None or event.hash != chained_hash(
            previous, canonical_bytes(event)
        ):
            return False
        if not (self._is_time(event.occurred_at) and self._is_time(event.recorded_at)):
            return False
        try:
            codec.decode(event.type, event.schema, event.data)
        except CorruptLogError:
            return False
        stream.version, stream.lifecycle = event.version, after
        return True

    def _is_time(self, text: str) -> bool:
        """Return what ``_is_time`` does, in half of the time within one second."""
        second = text[:_SECOND_LENGTH]
        if second == self._second:
            fraction = text[_SECOND_LENGTH:-1]
            if (
                len(text) == _TIME_LENGTH
                and text[-1] == "Z"
                and fraction.isascii()
                and fraction.isdigit()
            ):
                return True
        if not _is_time(text):
            return False
        self._second = second
        return True

    def _check_each(self, event: StoredEvent) -> None:
        """Run each check on its own, and note all findings."""
        self._check_name(event.position, event.stream)
        for kind, message in (
            *self._check_chain(event),
            *self._check_version(event),
            *_check_data(event),
            *_check_times(event),
        ):
            self.find(event.position, kind, message)
        for finding in self._check_stream(event):
            self._add(finding)

    def _check_chain(self, event: StoredEvent) -> Iterator[tuple[Kind, str]]:
        if event.position != self.head.position + 1:
            yield Kind.POSITION, f"follows #{self.head.position}"
        previous = self.head.hash  # empty if that event could not be read
        if previous and event.hash != chained_hash(previous, canonical_bytes(event)):
            yield Kind.HASH, "was changed, or does not follow the event before it"
        for anchored in self._anchors.pop(event.position, {event.hash}):
            if anchored != event.hash:
                yield Kind.ANCHOR, _contradicts(anchored)

    def _check_name(self, position: int, stream: str) -> None:
        key = model_of(stream)
        is_new = stream not in self._streams
        if is_new and key is not None and not self._is_canonical(key.name):
            self._add(not_canonical(position, stream))

    def _check_version(self, event: StoredEvent) -> Iterator[tuple[Kind, str]]:
        if not self._knows_all_streams and event.stream not in self._streams:
            return
        before = self._before(event.stream)
        gap = event.version - before.version - 1
        if 0 < gap <= self._unplaced:  # unreadable rows may be of this stream
            self._unplaced -= gap
            self._streams[event.stream] = _Stream(before.version, None, before.is_model)
        elif gap:
            yield Kind.VERSION, f"follows version {before.version} of {event.stream}"

    def _check_stream(self, event: StoredEvent) -> Iterator[Finding]:
        """Check an event against its stream, and update the stream."""
        at, type_, stream = event.position, event.type, event.stream
        after = before = self._before(stream).lifecycle
        if not belongs(type_, stream):
            yield wrong_stream(at, type_, stream)
        elif type_ in EVENTS and before is None:
            after = state_implied_by(type_)
        elif type_ in EVENTS and before is not None:
            after = fold(before, type_)
            if type_ not in TRANSITIONS[before]:
                yield illegal_event(at, type_, stream, before, after)
        is_model = model_of(stream) is not None
        self._streams[stream] = _Stream(event.version, after, is_model)

    def finish(self, begin: Head, end: Head) -> None:
        """Compare the last event with the head row before and after the read."""
        if self.stopped:
            return
        for position in self._anchors:
            self.find(position, Kind.ANCHOR, "is missing, but has an anchor")
        if self.head.position < begin.position:
            self.find(
                self.head.position,
                Kind.HEAD,
                f"is the last event, but the head is at #{begin.position}",
            )
        elif end.position < self.head.position or (
            end.position == self.head.position and self.head.hash not in {"", end.hash}
        ):
            self.find(
                self.head.position,
                Kind.HEAD,
                f"is the last event, but the head is #{end.position} {end.hash}",
            )


def _contradicts(anchored: str) -> str:
    return f"does not match the hash of the anchor, {anchored[:12]}…"


def _check_data(event: StoredEvent) -> Iterator[tuple[Kind, str]]:
    try:
        codec.decode(event.type, event.schema, event.data)
    except CorruptLogError as error:
        yield Kind.DATA, str(error)


def _check_times(event: StoredEvent) -> Iterator[tuple[Kind, str]]:
    for text in (event.occurred_at, event.recorded_at):
        if not _is_time(text):
            yield Kind.TIME, f"{text!r} is not a time in the format of the log"


def _is_time(text: str) -> bool:
    """Return whether a text is a time, exactly as ``time_text`` writes it."""
    if not _TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:  # such as the 30th of February
        return False
    return True


def _any_name(_: str) -> bool:
    return True


async def verify(
    store: EventStore,
    *,
    anchors: Collection[Head] = (),
    is_canonical: Callable[[str], bool] = _any_name,
) -> Verification:
    """Check a log: chain, head, positions, versions, data, times and streams.

    Args:
        store: The log; other processes may append to it meanwhile.
        anchors: Heads that were saved before; the log must still contain them.
        is_canonical: Returns whether a model name is canonical; by default every
            name is.

    Raises:
        StoreError: The log cannot be read at all.
    """
    check = _Check(anchors, is_canonical)
    begin = await _head(store, check)
    async for event in _read(store, begin, check):
        check.check(event)
    check.finish(begin, await _head(store, check))
    if isinstance(store, FileStore):
        for message in await _check_file(store):
            check.find(0, Kind.FILE, message)
    return Verification(
        events=check.events,
        head=check.head,
        omitted=check.omitted,
        missing="; ".join(check.missing),
        set_back=check.set_back,
        findings=tuple(sorted(check.findings, key=lambda finding: finding.position)),
    )


async def _head(store: EventStore, check: _Check) -> Head:
    """Return the end of the log; a damaged head row is a finding."""
    try:
        return await store.head()
    except CorruptLogError as error:
        check.find(0, Kind.HEAD, str(error))
        return check.head


async def _check_file(store: FileStore) -> list[str]:
    try:
        return await store.check_file()
    except CorruptLogError as error:
        return [str(error)]


async def _read(
    store: EventStore, begin: Head, check: _Check
) -> AsyncIterator[StoredEvent]:
    """Read the log, skipping rows that cannot be read."""
    position = 0
    limit: int | None = None
    while True:
        before = position
        try:
            async for event in store.read_stored(after=position, limit=limit):
                if event.position <= position:
                    _refuse_order(event, position)
                yield event
                position = event.position
        except UNREADABLE as error:
            position, limit = await _skip_archive(store, check, error, position)
        except CorruptLogError as error:
            if limit != 1:  # somewhere in the next rows: read one
                limit = 1
                continue
            position += 1
            check.skip(position, str(error), await _readable_columns(store, position))
            if check.stopped or position >= begin.position:
                return
        else:
            if limit is None or position == before:
                return
            limit = limit * 2 if limit < PAGE else None  # sound again


async def _skip_archive(
    store: EventStore,
    check: _Check,
    error: ArchiveMissingError | DamagedArchiveError,
    position: int,
) -> tuple[int, int | None]:
    """Return where to continue, and how many events to read there."""
    if position < error.first - 1:  # the page ends in that archive
        return position, error.first - 1 - position
    assert isinstance(store, ArchivedStore)  # others do not raise the error
    archives = await store.archives()
    archive = next(each for each in archives if each.last == error.last)
    reason = f"{error.subject} {error.state}"
    if isinstance(error, DamagedArchiveError):
        check.find(0, Kind.ARCHIVE, reason)
    else:
        check.missing.append(reason)
    is_last = archive is archives[-1]
    versions = await store.archived_versions() if is_last else None
    check.begin_after(archive, versions, reason)
    return archive.last, None


async def _readable_columns(store: EventStore, position: int) -> RecordedEvent | None:
    """Return a damaged event with the columns that can be read, if there are any."""
    with suppress(StoreError):
        async for event in store.read_all(after=position - 1, limit=1):
            return event if event.position == position else None
    return None


def _refuse_order(event: StoredEvent, after: int) -> NoReturn:
    """Refuse a position that does not grow: a damaged index would read in circles."""
    raise CorruptLogError(f"event #{event.position}", f"was read after #{after}")
