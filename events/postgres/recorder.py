"""Record groups of appends in a log on a PostgreSQL server.

A group is planned from the cached head and versions and written with one statement,
which locks the head row. If another instance has appended meanwhile, the statement
writes nothing and returns the new head and versions, so that the next attempt needs no
other round trip. While other instances are that busy, the statement has all that it
needs to chain the group to whatever head it finds, so that no attempt is wasted as
long as the streams are unchanged. The lock is never held while this process does
anything.

If the connection is lost, the group is recorded again on a new one. That is safe even
while the server still runs the first statement: both need the same head, so at most
one of them writes, and the events are found by their ids before they are planned again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from herdbook.events import codec
from herdbook.events.errors import (
    ConflictError,
    CorruptLogError,
    StoreError,
    StoreUnavailableError,
)
from herdbook.events.postgres.errors import (
    ConnectionLostError,
    ConstraintError,
    NoConnectionError,
    ReplanError,
    said,
)
from herdbook.events.postgres.session import Backoff, Session
from herdbook.events.postgres.tail import LINE, Tail
from herdbook.events.recorded import (
    RecordedEvent,
    StoredEvent,
    split_at_position,
)
from herdbook.events.shared.chain import head_moved
from herdbook.events.shared.group import Draft, Plan, plan_group
from herdbook.events.store import Head

BUSY_GROUPS = 64
"""Number of groups for which other instances count as busy after they came first."""

REMEMBERED_STREAMS = 10_000
"""Number of streams whose version is cached."""


async def find_recorded(
    session: Session, ids: Iterable[str]
) -> dict[str, RecordedEvent]:
    """Return the recorded events with the given ids, by id."""
    rows = await session.once("events_by_id", ids=list(ids))
    events = [codec.read_row(*row) for row in rows]
    return {event.event_id: event for event in events}


async def read_head(session: Session) -> Head:
    """Return the end of the log.

    Raises:
        CorruptLogError: The head row is missing.
    """
    for position, hash_ in await session.run("head"):
        return Head(position, hash_)
    raise CorruptLogError("the log", "has no head row", "Run: herdbook verify")


class PostgresRecorder:
    """Decides and writes groups of appends; used by one ``Writer`` alone.

    Args:
        session: The connection for writes, used by the recorder alone.
        clock: Returns the current time, UTC, for ``recorded_at``.

    Attributes:
        tail: The events of the last append, and those of other instances before it.
    """

    def __init__(self, session: Session, *, clock: Callable[[], datetime]) -> None:
        self._session = session
        self._clock = clock
        self._head: Head | None = None
        self._versions: dict[str, int] = {}
        self._busy_groups = 0
        self.tail = Tail()

    async def record(self, drafts: Sequence[Draft]) -> Plan:
        """Write a group of appends; see ``Recorder.record``.

        While the server cannot be reached, this waits for its return.
        """
        backoff = Backoff(self._session.lost_since)
        in_doubt: ConnectionLostError | None = None
        while True:
            try:
                plan = await self._record(drafts, backoff, afresh=in_doubt is not None)
            except ConnectionLostError as error:
                in_doubt = error
            except NoConnectionError as error:
                if backoff.is_over:
                    raise in_doubt or error from error
            except StoreError as error:
                if in_doubt is None:
                    raise
                # The server may still run the first statement, and commit it later.
                raise in_doubt from error
            else:
                return plan
            self.forget()
            if backoff.is_over:
                assert in_doubt
                raise in_doubt
            await backoff.wait()

    async def record_stored(self, events: Sequence[StoredEvent], after: Head) -> None:
        """Write events exactly as they are, if the log ends at ``after``.

        Raises:
            ConflictError: The log has another end, or an id or a version is taken.
            StoreError: They were not written, or the connection was lost meanwhile.
        """
        self.forget()
        try:
            written = await self._session.once(
                "append_group",
                previous=after.hash,
                rows=_json(events),
                last=events[-1].position,
                streams=[],
                versions=[],
                pieces=None,
            )
        except ReplanError as error:
            raise ConflictError(
                "the log",
                f"refuses the events after #{after.position}: it has one of the ids or "
                f"versions already, or lacks a trigger{said(error)}",
                "Run: herdbook doctor",
            ) from error
        if not written[0][0]:
            raise head_moved(after)

    async def find(self, ids: Sequence[str]) -> dict[str, RecordedEvent]:
        """Find recorded events by id; see ``Recorder.find``."""
        return await find_recorded(self._session, ids)

    def forget(self) -> None:
        """Clear the cached head and versions."""
        self._head = None
        self._versions.clear()

    async def _record(
        self, drafts: Sequence[Draft], backoff: Backoff, *, afresh: bool
    ) -> Plan:
        """Plan and write until no other instance comes first."""
        streams = sorted({draft.stream for draft in drafts})
        lost: set[str] = set()
        refused_at: Head | None = None
        while True:
            plan = None if afresh else await self._plan(drafts, streams, {}, lost)
            is_fresh = plan is None or plan.refuses  # an earlier append may be recorded
            if plan is None or is_fresh:
                plan = await self._plan_afresh(drafts, streams, lost)
                afresh = False
            holders = _holders(drafts, plan)
            try:
                if not plan.events or await self._insert(plan, streams, holders, lost):
                    break
            except ReplanError as error:  # an event is recorded already
                # Not if the plan was made from the log itself at the same head.
                if isinstance(error, ConstraintError) and is_fresh:
                    if refused_at == plan.begin:
                        raise _contradiction(
                            self._session.subject, plan.begin, error
                        ) from error
                    refused_at = plan.begin
                afresh = True
            if backoff.is_over:
                raise StoreUnavailableError(
                    self._session.subject,
                    "is so busy that other instances kept writing first",
                    "Retry later, or run fewer instances on this log",
                )
        self._head = plan.head
        self._versions |= plan.versions
        if len(self._versions) > REMEMBERED_STREAMS:
            self._versions.clear()
        return plan

    async def _plan(
        self,
        drafts: Sequence[Draft],
        streams: Sequence[str],
        recorded: dict[str, RecordedEvent],
        lost: Collection[str],
    ) -> Plan:
        """Plan from what is cached.

        A cached version may be wrong where other instances write to the same stream.
        Then the server refuses the plan, as for a wrong head.
        """
        if self._head is None:
            await self._read_state(streams)
        elif unknown := [each for each in streams if each not in self._versions]:
            rows = await self._session.once("stream_versions", streams=unknown)
            self._versions |= zip(unknown, rows[0][0], strict=True)
        assert self._head is not None
        return plan_group(
            drafts,
            head=self._head,
            versions={stream: self._versions[stream] for stream in streams},
            recorded=recorded,
            now=self._clock(),
            lost=lost,
        )

    async def _plan_afresh(
        self, drafts: Sequence[Draft], streams: Sequence[str], lost: Collection[str]
    ) -> Plan:
        """Plan from the log itself.

        The ids are read after the versions: an event that another instance records in
        between is found, rather than refused for the version that it changed.
        """
        self.forget()
        await self._read_state(streams)
        ids = [event_id for draft in drafts for event_id in draft.ids]
        recorded = await find_recorded(self._session, ids)
        return await self._plan(drafts, streams, recorded, lost)

    async def _read_state(self, streams: Sequence[str]) -> None:
        rows = await self._session.once("state", streams=list(streams))
        if not rows:
            raise CorruptLogError(
                self._session.subject, "has no head row", "Run: herdbook verify"
            )
        self._keep_state(streams, *rows[0])

    def _keep_state(
        self, streams: Sequence[str], position: int, hash_: str, versions: list[int]
    ) -> None:
        self._head = Head(position, hash_)
        self._versions |= zip(streams, versions, strict=True)

    async def _insert(
        self,
        plan: Plan,
        streams: Sequence[str],
        holders: Mapping[str, str],
        lost: set[str],
    ) -> bool:
        """Write the events of a plan; return False if it must be made again.

        Args:
            plan: The plan.
            streams: Its streams.
            holders: The leases that must be held, and by which instance.
            lost: Receives the leases that are not held.
        """
        rows = await self._session.once(
            "append_events",
            previous=plan.begin.hash,
            streams=_lines(streams),
            leases=list(holders) or None,
            holders=list(holders.values()) or None,
            known=plan.begin.position,
            **_columns(plan.events),
            **(_pieces(plan) if self._busy_groups else _HASHED),
        )
        is_written, position, hash_, versions, hashes, missed, not_held = rows[0]
        if not_held:
            lost.update(not_held)
            return False
        if is_written and position == plan.head.position:
            self._busy_groups = max(self._busy_groups - 1, 0)
        else:
            self._busy_groups = BUSY_GROUPS
        if not is_written:
            self._keep_state(streams, position, hash_, versions)
            return False
        if hashes is not None:
            plan.move(position, hashes.split(LINE))
        self.tail.keep(plan.begin.position, missed, plan.recorded)
        return True


def _contradiction(subject: str, head: Head, error: Exception) -> CorruptLogError:
    """Return the error of a log that refuses the event after its head."""
    return CorruptLogError(
        subject,
        f"refuses an event at #{head.position + 1}, after its head{said(error)}",
        "Run: herdbook doctor",
    )


def _holders(drafts: Sequence[Draft], plan: Plan) -> dict[str, str]:
    """Return the leases under which a plan appends, and who must hold them."""
    return {
        draft.fence.lease: draft.fence.holder
        for draft, outcome in zip(drafts, plan.outcomes, strict=True)
        if draft.fence is not None and not isinstance(outcome, ConflictError)
    }


_HASHED = {"before": None, "after": None}
"""The pieces of a group that is written with the hashes of its plan."""


def _pieces(plan: Plan) -> dict[str, str]:
    """Return what the server needs to chain the events, a line for each."""
    pieces = list(map(split_at_position, plan.canonical))
    return {
        "before": _lines([before for before, _ in pieces]),
        "after": _lines([after for _, after in pieces]),
    }


def _columns(events: Sequence[StoredEvent]) -> dict[str, str]:
    """Return the columns of the events of a group, a line for each event."""
    return {
        "event_streams": _lines([event.stream for event in events]),
        "event_versions": _integers([event.version for event in events]),
        "ids": _lines([event.event_id for event in events]),
        "types": _lines([event.type for event in events]),
        "schemas": _integers([event.schema for event in events]),
        "data": _lines([event.data for event in events]),
        "times": _lines([event.occurred_at for event in events]),
        "recorded_at": events[0].recorded_at,
        "actors": _lines([event.actor for event in events]),
        "causes": _lines([event.cause for event in events]),
        "correlations": _lines([event.correlation_id or "" for event in events]),
        "causations": _lines([event.causation_id or "" for event in events]),
        "hashes": _lines([event.hash for event in events]),
    }


def _lines(texts: Iterable[str]) -> str:
    return LINE.join(texts)


def _integers(values: Iterable[int]) -> str:
    return f"{{{','.join(map(str, values))}}}"


def _json(values: Sequence[object]) -> str:
    return msgspec.json.encode(values).decode()
