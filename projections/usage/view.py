"""The view of use: sums by model, client, role, endpoint and outcome over time.

The sums are kept in periods of the log, oldest first: hours, and further back days and
months, so that the view stays small however long the log is. A period is a range of
positions without gaps, so that the use between any two positions is the sum of whole
periods and of a few events at the ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import ClassVar, Final, NamedTuple, Self

import msgspec
from msgspec import UNSET

from herdbook.events.facts import ModelUsed, UseFailed, UsesNotRecorded
from herdbook.events.recorded import Cause, RecordedEvent
from herdbook.events.streams import model_of, node_of
from herdbook.projections.usage.measures import (
    OBSERVED,
    OTHERS,
    REPORTED,
    Key,
    Measures,
)

USE_TYPES: Final = frozenset(
    {ModelUsed.__name__, UseFailed.__name__, UsesNotRecorded.__name__}
)
"""The event types that the view counts; all others do not change it."""

MOST_CLIENTS: Final = 1_000
"""Clients that are kept by name, in the order of their first use."""

MOST_SUMS: Final = 500
"""Sums in one period that are kept by client."""

HOURS: Final = 24 * 35
"""Hours with use that are kept before the oldest become days."""

DAYS: Final = 400
"""Days with use that are kept before the oldest become months."""

MOST_OF_A_SPAN: Final = 10_000
"""Sums in all hours, and in all days, before the oldest are put together."""

_HOUR: Final = timedelta(hours=1)
"""Length of a period. A clock that is set back by less does not begin a new one."""

_LATEST: Final = datetime.max.replace(tzinfo=UTC)


class Span(IntEnum):
    """The length of a period, in UTC."""

    HOUR = 0
    DAY = 1
    MONTH = 2

    def begin(self, at: datetime) -> datetime:
        """Return when the period with a time begins."""
        hour = at.replace(minute=0, second=0, microsecond=0)
        if self is Span.HOUR:
            return hour
        day = hour.replace(hour=0)
        return day if self is Span.DAY else day.replace(day=1)

    def text(self, begin: datetime) -> str:
        """Return the name of a period: ``2026-11-27T14Z``, ``2026-11-27``, ``2026-11``.

        The names of one length sort by time.
        """
        text = begin.isoformat()
        if self is Span.HOUR:
            return f"{text[:13]}Z"
        return text[:10] if self is Span.DAY else text[:7]


class Period(msgspec.Struct, array_like=True):
    """The use in a range of positions that were recorded in one period.

    Attributes:
        span: Its length.
        begin: When it begins.
        first: Position of its first use.
        last: Position of its last use.
        sums: What was counted.
        missing: By node, the requests that were not recorded.
    """

    span: Span
    begin: datetime
    first: int
    last: int
    sums: dict[Key, Measures] = {}
    missing: dict[str, int] = {}

    def sum_of(self, key: Key) -> Measures:
        """Return the sums of a key, new ones if there are none."""
        found = self.sums.get(key)
        if found is None and len(self.sums) >= MOST_SUMS:
            key = msgspec.structs.replace(key, client=OTHERS)
            found = self.sums.get(key)
        if found is None:
            found = self.sums[key] = Measures()
        return found

    def add(self, other: Period) -> None:
        """Add the period that follows."""
        self.last = other.last
        for key, measures in other.sums.items():
            self.sum_of(key).add(measures)
        for node, count in other.missing.items():
            self.missing[node] = self.missing.get(node, 0) + count


class Range(NamedTuple):
    """Positions after one and up to another."""

    after: int
    until: int


class _StoredPeriod(msgspec.Struct, array_like=True):
    span: Span
    begin: datetime
    first: int
    last: int
    sums: list[tuple[Key, Measures]]
    missing: dict[str, int]


class _Dump(msgspec.Struct):
    clients: list[str]
    periods: list[msgspec.Raw]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Dump).decode
_decode_period = msgspec.json.Decoder(_StoredPeriod).decode


class UsageView:
    """The use of all models of a log.

    Attributes:
        position: Position of the last applied event.
    """

    name: ClassVar[str] = "usage"
    form: ClassVar[int] = 2
    older_forms: ClassVar[frozenset[int]] = frozenset()

    def __init__(self) -> None:
        self.position = 0
        self._clients: dict[str, None] = {}
        self._spans: tuple[list[Period], list[Period], list[Period]] = ([], [], [])
        self._sums = [0, 0, 0]
        self._period: Period | None = None
        self._from = self._until = _LATEST

    def apply(self, event: RecordedEvent) -> None:
        """Apply one event; those that are not about use are ignored."""
        self.position = event.position
        if event.type not in USE_TYPES:
            return
        period = self._period
        if period is None or not self._from <= event.recorded_at < self._until:
            period = self._begin(event)
        period.last = event.position
        fact = event.data
        if isinstance(fact, UsesNotRecorded):
            node = node_of(event.stream)
            if node is not None:
                period.missing[node] = period.missing.get(node, 0) + fact.count
            return
        key = _key(event)
        if key is None:
            return
        measures = period.sums.get(key) or self._new(period, key)
        if measures is None:
            return
        if isinstance(fact, ModelUsed):
            measures.count_used(fact, key.outcome)
        elif isinstance(fact, UseFailed):
            measures.count_failed(fact)
        else:  # a use that cannot be read
            measures.requests += 1

    def _new(self, period: Period, key: Key) -> Measures | None:
        """Return new sums; None for a stream that is not of a model."""
        if model_of(key.stream) is None:
            return None
        if key.client not in self._clients:
            if len(self._clients) < MOST_CLIENTS:
                self._clients[key.client] = None
            else:
                key = msgspec.structs.replace(key, client=OTHERS)
        before = len(period.sums)
        found = period.sum_of(key)
        self._sums[Span.HOUR] += len(period.sums) - before
        return found

    def _begin(self, event: RecordedEvent) -> Period:
        begin = Span.HOUR.begin(event.recorded_at)
        self._period = period = Period(Span.HOUR, begin, event.position, event.position)
        self._spans[Span.HOUR].append(period)
        self._limit()
        self._continue(period)
        return period

    def _continue(self, period: Period) -> None:
        """Count the next events in a period, while it lasts."""
        self._period = period
        try:
            self._from, self._until = period.begin - _HOUR, period.begin + _HOUR
        except OverflowError:  # a damaged time, in the year 1 or 9999
            self._from, self._until = period.begin, _LATEST

    def _limit(self) -> None:
        """Put the oldest periods together while there are too many."""
        for span, most in ((Span.HOUR, HOURS), (Span.DAY, DAYS)):
            periods = self._spans[span]
            # The newest period stays: events are still added to it.
            while len(periods) > most or (
                self._sums[span] > MOST_OF_A_SPAN and len(periods) > 1
            ):
                self._put_together(periods.pop(0), Span(span + 1))

    def _put_together(self, period: Period, longer: Span) -> None:
        """Add the oldest period of a length to the newest longer one, or to a new one.

        One at a time: to add up a whole month takes a tenth of a second.
        """
        self._sums[period.span] -= len(period.sums)
        begin, periods = longer.begin(period.begin), self._spans[longer]
        if not periods or periods[-1].begin != begin:
            periods.append(Period(longer, begin, period.first, period.last))
        whole = periods[-1]
        before = len(whole.sums)
        whole.add(period)
        self._sums[longer] += len(whole.sums) - before

    def periods(self) -> Iterator[Period]:
        """Yield all periods in the order of the log."""
        for span in (Span.MONTH, Span.DAY, Span.HOUR):
            yield from self._spans[span]

    def between(self, wanted: Range) -> tuple[list[Period], list[Range]]:
        """Return what makes up the use in a range of positions.

        Returns:
            The periods that are wholly in the range, and the ranges of the log to fold
            besides: two at most, at the ends.
        """
        whole, parts = [], []
        for period in self.periods():
            if period.last <= wanted.after or period.first > wanted.until:
                continue
            if period.first > wanted.after and period.last <= wanted.until:
                whole.append(period)
            else:
                after = max(wanted.after, period.first - 1)
                parts.append(Range(after, min(wanted.until, period.last)))
        return whole, parts

    def dump(self) -> bytes:
        """Serialize the view; equal views have equal bytes."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """Yield the dump in pieces, one for each period."""
        yield b'{"clients":' + _encode(list(self._clients)) + b',"periods":['
        separator = b""
        for period in self.periods():
            stored = _StoredPeriod(
                period.span,
                period.begin,
                period.first,
                period.last,
                list(period.sums.items()),
                period.missing,
            )
            yield separator + _encode(stored)
            separator = b","
        yield b"]}"

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Load a view from a dump."""
        view = cls()
        for _ in view.restore(data):
            pass
        return view

    def restore(self, data: bytes) -> Iterator[None]:
        """Restore this new view from a dump; yield after each period.

        Raises:
            msgspec.MsgspecError: The bytes are not a dump of this view.
        """
        dump = _decode(data)
        self._clients = dict.fromkeys(dump.clients)
        for raw in dump.periods:
            stored = _decode_period(raw)
            period = Period(
                stored.span,
                stored.begin,
                stored.first,
                stored.last,
                dict(stored.sums),
                stored.missing,
            )
            self._spans[period.span].append(period)
            self._sums[period.span] += len(period.sums)
            yield
        if hours := self._spans[Span.HOUR]:
            self._continue(hours[-1])
            self.position = hours[-1].last


def _key(event: RecordedEvent) -> Key | None:
    """Return what an event is counted with; None if it is not counted."""
    fact = event.data
    if isinstance(fact, ModelUsed):
        if fact.outcome is UNSET:
            return _key_without_request(event, fact)
        client, role, failure = fact.client, fact.role, fact.failure
        return Key(
            event.stream,
            "" if client is UNSET else client,
            "" if role is UNSET else role,
            "" if fact.endpoint is UNSET else fact.endpoint,
            fact.outcome,
            "" if failure is UNSET else failure,
        )
    if isinstance(fact, UseFailed):
        return Key(
            event.stream,
            fact.client,
            "" if fact.role is UNSET else fact.role,
            fact.endpoint,
            fact.outcome,
            fact.failure,
        )
    if event.type == ModelUsed.__name__:
        return Key(event.stream, "", "", "", REPORTED, "")
    return None


def _key_without_request(event: RecordedEvent, fact: ModelUsed) -> Key:
    role = "" if fact.role is UNSET else fact.role
    if event.cause is Cause.OBSERVED:
        return Key(event.stream, "", role, "", OBSERVED, "")
    return Key(event.stream, event.actor, role, "", REPORTED, "")
