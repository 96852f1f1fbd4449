"""Whether the log is what it says: every check there is, over every event.

Reads the log once, in order, and goes on after a finding. What is kept on the way
is one version and one lifecycle for each stream, so a log of any length fits.

The hashes prove that nothing between the first event and the head was altered
since it was written, unless somebody computed all later hashes anew. An anchor,
a head that was written down elsewhere, shows that too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec

from herdbook.events import codec
from herdbook.events.errors import CorruptLogError
from herdbook.events.findings import (
    Finding,
    Kind,
    belongs,
    illegal_event,
    not_canonical,
    wrong_stream,
)
from herdbook.events.lifecycle import EVENTS, INITIAL, TRANSITIONS, Lifecycle, fold
from herdbook.events.recorded import (
    StoredEvent,
    canonical_bytes,
    chained_hash,
    time_text,
)
from herdbook.events.store import EventStore, Head
from herdbook.events.streams import model_of

MOST_UNREADABLE = 100
"""Events that cannot even be read, after which the rest is not tried."""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        events: How many events were read.
        head: Position and hash of the last one.
        set_back: How often the clock was earlier than at the event before; a
            clock may be set back, so this is no finding.
        findings: What is wrong, in order of position; nothing in a sound log.
    """

    events: int
    head: Head
    set_back: int
    findings: tuple[Finding, ...]


@runtime_checkable
class FileStore(Protocol):
    """A store that can check what it keeps the log in."""

    async def check_file(self) -> list[str]:
        """Return what is wrong with the file itself, in words."""
        ...


class _Stream(NamedTuple):
    """Where a stream is."""

    version: int = 0
    lifecycle: Lifecycle = INITIAL


class _Check:
    """The checks of one event after another, and what they remember."""

    def __init__(
        self, anchors: Collection[Head], is_canonical: Callable[[str], bool]
    ) -> None:
        self._is_canonical = is_canonical
        self.findings: list[Finding] = []
        self.events = 0
        self.unreadable = 0
        self.set_back = 0
        self.head = Head()
        self._anchors: defaultdict[int, set[str]] = defaultdict(set)
        for at, hash_ in anchors:
            if at > 0:
                self._anchors[at].add(hash_)
        self._streams: dict[str, _Stream] = {}
        self._recorded_at = ""

    def find(self, position: int, kind: Kind, message: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(position=position, kind=kind, message=message))

    def skip(self, position: int, message: str) -> None:
        """Note an event that cannot be read, and go on behind it."""
        self.unreadable += 1
        self.find(position, Kind.UNREADABLE, message)
        self.head = Head(position, "")

    def take(self, event: StoredEvent) -> None:
        """Check an event, and go on from what it says."""
        self.events += 1
        for kind, message in (
            *self._check_chain(event),
            *self._check_version(event),
            *_check_data(event),
            *_check_times(event),
        ):
            self.find(event.position, kind, message)
        self.findings += self._check_stream(event)
        self.set_back += event.recorded_at < self._recorded_at
        self._recorded_at = event.recorded_at
        self.head = Head(event.position, event.hash)

    def _check_chain(self, event: StoredEvent) -> Iterator[tuple[Kind, str]]:
        if event.position != self.head.position + 1:
            yield Kind.POSITION, f"follows #{self.head.position}"
        previous = self.head.hash  # empty if that event could not be read
        if previous and event.hash != chained_hash(previous, canonical_bytes(event)):
            yield Kind.HASH, "is not what was written, or not behind what was before"
        for anchored in self._anchors.pop(event.position, {event.hash}):
            if anchored != event.hash:
                yield Kind.ANCHOR, f"has another hash than the anchor {anchored[:12]}"

    def _check_version(self, event: StoredEvent) -> Iterator[tuple[Kind, str]]:
        version = self._streams.get(event.stream, _Stream()).version
        if event.version != version + 1:
            yield Kind.VERSION, f"follows version {version} of {event.stream}"

    def _check_stream(self, event: StoredEvent) -> Iterator[Finding]:
        """Check an event against its stream, and continue the stream with it."""
        at, type_, stream = event.position, event.type, event.stream
        is_new = stream not in self._streams
        before = self._streams.get(stream, _Stream()).lifecycle
        key = model_of(stream)
        if is_new and key is not None and not self._is_canonical(key.name):
            yield not_canonical(at, stream)
        after = before
        if not belongs(type_, stream):
            yield wrong_stream(at, type_, stream)
        elif type_ in EVENTS:
            after = fold(before, type_)
            if type_ not in TRANSITIONS[before]:
                yield illegal_event(at, type_, stream, before, after)
        self._streams[stream] = _Stream(event.version, after)

    def finish(self, begin: Head, end: Head) -> None:
        """Compare what was read with the head row before and after."""
        for position in self._anchors:
            self.find(position, Kind.ANCHOR, "is not there, but an anchor says so")
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


def _check_data(event: StoredEvent) -> Iterator[tuple[Kind, str]]:
    try:
        codec.decode(event.type, event.schema, event.data)
    except CorruptLogError as error:
        yield Kind.DATA, str(error)


def _check_times(event: StoredEvent) -> Iterator[tuple[Kind, str]]:
    for text in (event.occurred_at, event.recorded_at):
        try:
            is_time = time_text(datetime.fromisoformat(text)) == text
        except ValueError:
            is_time = False
        if not is_time:
            yield Kind.TIME, f"{text!r} is no time of ours"


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
        store: The log; others may append to it meanwhile.
        anchors: Heads that were written down before; the log must still have them.
        is_canonical: Returns whether a name is the canonical one of its model; by
            default every name is.

    Raises:
        StoreError: It cannot be read at all.
    """
    check = _Check(anchors, is_canonical)
    begin = await _head(store, check)
    async for event in _read(store, begin, check):
        check.take(event)
    check.finish(begin, await _head(store, check))
    if isinstance(store, FileStore):
        for message in await _check_file(store):
            check.find(0, Kind.FILE, message)
    return Verification(
        events=check.events,
        head=check.head,
        set_back=check.set_back,
        findings=tuple(sorted(check.findings, key=lambda finding: finding.position)),
    )


async def _head(store: EventStore, check: _Check) -> Head:
    """Return the end of the log; one that is damaged is a finding."""
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
    """Read the log as far as it can be read, and around what cannot."""
    position = 0
    limit: int | None = None
    while True:
        before = position
        try:
            async for event in store.read_stored(after=position, limit=limit):
                _check_order(event, position)
                yield event
                position = event.position
        except CorruptLogError as error:
            if limit is None:  # somewhere in the next page: go on one by one
                limit = 1
                continue
            position += 1
            limit = None
            check.skip(position, str(error))
            if position >= begin.position or check.unreadable == MOST_UNREADABLE:
                return
        else:
            if limit is None or position == before:
                return


def _check_order(event: StoredEvent, after: int) -> None:
    """Refuse a read that goes back: a damaged index would lead in circles."""
    if event.position <= after:
        raise CorruptLogError(f"event #{event.position}", f"is read after #{after}")
