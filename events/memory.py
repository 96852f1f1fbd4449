"""An event store in memory, and its instances: the full contract, without durability.

An append has no await between its decision and its effect, so a cancelled append is
recorded completely or not at all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from datetime import UTC, datetime
from socket import gethostname
from typing import Self, TypeVar

from herdbook.events import codec
from herdbook.events.errors import ConflictError, StoreClosedError
from herdbook.events.instances import Fence, Holder
from herdbook.events.recorded import NewEvent, RecordedEvent, StoredEvent, new_id
from herdbook.events.shared.chain import check_chain, head_moved
from herdbook.events.shared.group import draft_append, plan_group
from herdbook.events.snapshots import KeptView, StoredView
from herdbook.events.store import ExpectedVersion, Head, check_read
from herdbook.events.subscription import Commits, follow

E = TypeVar("E")


def utc_now() -> datetime:
    """Return the current time, UTC."""
    return datetime.now(UTC)


class MemoryEventStore:
    """A log in memory, with snapshots of views.

    Args:
        clock: Returns the current time, UTC, for ``recorded_at``.
    """

    def __init__(self, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock = clock
        self._stored: list[StoredEvent] = []
        self._recorded: list[RecordedEvent] = []
        self._streams: dict[str, list[RecordedEvent]] = {}
        self._by_id: dict[str, RecordedEvent] = {}
        self._views: dict[str, StoredView] = {}
        self._kept: dict[tuple[str, int, int], StoredView] = {}
        self._head = Head()
        self._commits = Commits()
        self._is_closed = False

    async def append(
        self,
        stream: str,
        events: Sequence[NewEvent],
        expected_version: ExpectedVersion,
        *,
        fence: Fence | None = None,
    ) -> tuple[RecordedEvent, ...]:
        """Append events to a stream, all or none; see ``EventStore.append``."""
        draft = draft_append(stream, events, expected_version, fence)
        self._check_open()
        plan = plan_group(
            [draft],
            head=self._head,
            versions={stream: len(self._streams.get(stream, ()))},
            recorded={i: self._by_id[i] for i in draft.ids if i in self._by_id},
            now=self._clock(),
        )
        (outcome,) = plan.outcomes
        if isinstance(outcome, ConflictError):
            raise outcome
        if plan.events:
            self._add(stream, plan.events, outcome)
        return outcome

    def _add(
        self,
        stream: str,
        stored: Sequence[StoredEvent],
        recorded: Sequence[RecordedEvent],
    ) -> None:
        self._stored += stored
        self._recorded += recorded
        self._streams.setdefault(stream, []).extend(recorded)
        self._by_id |= {event.event_id: event for event in recorded}
        self._head = Head(stored[-1].position, stored[-1].hash)
        self._commits.announce(self._head.position)

    async def append_stored(
        self, events: Sequence[StoredEvent], *, after: Head
    ) -> None:
        """Append events unchanged; see ``ImportingStore.append_stored``."""
        check_chain(events, after)
        self._check_open()
        if self._head != after:
            raise head_moved(after)
        versions: dict[str, int] = {}
        ids = set[str]()
        for event in events:  # all checks come before the first effect
            before = versions.get(
                event.stream, len(self._streams.get(event.stream, ()))
            )
            is_taken = event.event_id in self._by_id or event.event_id in ids
            if is_taken or event.version != before + 1:
                raise ConflictError(
                    f"event #{event.position}", "has an id or a version that is taken"
                )
            versions[event.stream] = event.version
            ids.add(event.event_id)
        recorded = [codec.read(event) for event in events]
        for stored, decoded in zip(events, recorded, strict=True):
            self._add(stored.stream, [stored], [decoded])

    def read_stream(
        self, stream: str, *, after_version: int = 0, limit: int | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Read a stream in order; see ``EventStore.read_stream``."""
        check_read(after_version, limit, stream)
        return self._walk(self._streams.get(stream, []), after_version, limit)

    def read_all(
        self,
        *,
        after: int = 0,
        limit: int | None = None,
        stream_prefix: str = "",
        types: Collection[str] | None = None,
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Read the log in order of position; see ``EventStore.read_all``."""
        check_read(after, limit, stream_prefix, *(types or ()))

        def is_wanted(event: RecordedEvent) -> bool:
            return event.stream.startswith(stream_prefix) and (
                types is None or event.type in types
            )

        return self._walk(self._recorded, after, limit, is_wanted)

    def read_stored(
        self, *, after: int = 0, limit: int | None = None
    ) -> AsyncGenerator[StoredEvent, None]:
        """Read the log undecoded; see ``EventStore.read_stored``."""
        check_read(after, limit)
        return self._walk(self._stored, after, limit)

    async def _walk(
        self,
        events: Sequence[E],
        after: int,
        limit: int | None,
        is_wanted: Callable[[E], bool] = lambda _: True,
    ) -> AsyncGenerator[E, None]:
        """Yield matching events, including those that are appended meanwhile."""
        left = sys.maxsize if limit is None else limit
        self._check_open()
        while after < len(events) and left:
            event = events[after]
            after += 1
            if is_wanted(event):
                left -= 1
                yield event
                self._check_open()

    async def stream_version(self, stream: str) -> int:
        """Return the version of a stream; 0 if it has no events."""
        check_read(0, None, stream)
        self._check_open()
        return len(self._streams.get(stream, ()))

    async def head(self) -> Head:
        """Return the end of the log."""
        self._check_open()
        return self._head

    def subscribe(self, after: int) -> AsyncGenerator[RecordedEvent, None]:
        """Read after a position, then follow; see ``EventStore.subscribe``."""
        check_read(after, None)
        self._check_open()
        return follow(self._events_after, self._commits, after)

    async def _events_after(self, position: int) -> Sequence[RecordedEvent]:
        self._check_open()
        return self._recorded[position:]

    async def load_view(self, name: str) -> StoredView | None:
        """Return the snapshot of a view, if there is one."""
        check_read(0, None, name)
        self._check_open()
        return self._views.get(name)

    async def save_view(self, view: StoredView) -> None:
        """Replace the snapshot of a view."""
        check_read(view.position, None, view.name)
        self._check_open()
        self._views[view.name] = view

    async def keep_view(self, view: StoredView) -> None:
        """Keep a snapshot at its position; see ``KeptViewStore.keep_view``."""
        check_read(view.position, None, view.name)
        self._check_open()
        self._kept[view.name, view.version, view.position] = view

    async def kept_views(self, name: str) -> list[KeptView]:
        """Return the kept snapshots of a view; see ``KeptViewStore.kept_views``."""
        check_read(0, None, name)
        self._check_open()
        return sorted(
            (
                KeptView(view.version, view.position, len(view.data))
                for view in self._kept.values()
                if view.name == name
            ),
            key=lambda kept: (kept.position, kept.version),
        )

    async def load_kept_view(
        self, name: str, *, version: int, position: int
    ) -> StoredView | None:
        """Return a kept snapshot, if there is one."""
        check_read(position, None, name)
        self._check_open()
        return self._kept.get((name, version, position))

    async def drop_views(
        self, name: str, *, version: int, positions: Collection[int]
    ) -> None:
        """Delete kept snapshots; see ``KeptViewStore.drop_views``."""
        check_read(0, None, name)
        self._check_open()
        for position in positions:
            self._kept.pop((name, version, position), None)

    async def close(self) -> None:
        """Refuse further calls and end the subscriptions; safe to call twice."""
        self._is_closed = True
        self._commits.end()

    async def __aenter__(self) -> Self:
        """Return the store itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the store."""
        await self.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreClosedError("the log", "is closed", "Open it again")


class MemoryInstances:
    """Instances in one process, for a log in memory.

    Args:
        living: Ids of the living instances; pass one set to several instances to
            share it.
    """

    def __init__(self, living: set[str] | None = None) -> None:
        self._living = set() if living is None else living
        self._leases: set[str] = set()
        self._own = new_id()
        self._living.add(self._own)

    @property
    def own(self) -> str:
        """The id of this instance."""
        return self._own

    async def alive(self, instance: str) -> bool:
        """Return whether an instance is alive."""
        return instance in self._living

    async def announce(self, streams: Collection[str]) -> None:
        """Publish nothing: a log in memory has one manager."""

    async def announced(self) -> frozenset[str]:
        """Return an empty set: there are no other instances."""
        return frozenset()

    async def hold(self, lease: str) -> bool:
        """Hold any lease: a log in memory has one instance."""
        self._leases.add(lease)
        return True

    async def holds(self, lease: str) -> bool:
        """Return whether this instance holds a lease."""
        return lease in self._leases

    async def holders(self, leases: Collection[str]) -> dict[str, Holder]:
        """Return this instance for each of some leases that it holds."""
        own = Holder(self._own, gethostname(), os.getpid())
        return dict.fromkeys(self._leases & {*leases}, own)

    def fence(self, lease: str) -> Fence:
        """Return the condition of an append that this instance holds a lease."""
        return Fence(lease, self._own, lambda: lease in self._leases)

    async def release(self, lease: str) -> None:
        """Release a lease."""
        self._leases.discard(lease)

    def close(self) -> None:
        """End this instance; safe to call twice."""
        self._living.discard(self._own)

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(self, *_: object) -> None:
        """End this instance."""
        self.close()
