"""Answers about use: sums by model, client, role, time, outcome or endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from herdbook.events.errors import CallerError
from herdbook.events.streams import ModelKey, model_of
from herdbook.projections.serializable import Serializable
from herdbook.projections.usage.histogram import quantile
from herdbook.projections.usage.measures import Key, Measures
from herdbook.projections.usage.view import Period, Span


class UsageDimension(StrEnum):
    """A dimension that usage can be grouped by."""

    NODE = "node"
    MODEL = "model"
    CLIENT = "client"
    ROLE = "role"
    DAY = "day"
    HOUR = "hour"
    OUTCOME = "outcome"
    ENDPOINT = "endpoint"
    FAILURE = "failure"


MOST_GROUPS: Final = 10_000
"""Groups that one answer has at most."""

TIMES = frozenset({UsageDimension.DAY, UsageDimension.HOUR})
"""The dimensions that are times; their rows are sorted by time."""


class UsageRow(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """The usage of one group, or the total.

    The quantiles are those of completed requests and differ from the exact ones by at
    most 2%. Requests that were recorded together all count with the mean duration of
    their group.

    Attributes:
        group: The value of each dimension; null where it is not known.
        requests: Number of requests: relayed by the gateway, or reported by programs.
        failed: How many of them failed.
        client_left: Number of requests in which the client disconnected.
        observed: Number of uses that the server's state revealed; each stands for one
            or more requests, which ``requests`` does not include.
        not_recorded: Number of requests that could not be recorded. Only their times
            are known; ``requests`` does not include them.
        loads: Number of requests known to have loaded the model.
        prompt_tokens: Tokens of the prompts, as the server reports them.
        output_tokens: Tokens of the answers, as the server reports them.
        estimated_tokens: Estimated tokens that the server did not report, such as those
            of cancelled requests. The other figures do not include them.
        duration_s: Duration of all requests, seconds.
        duration_p50_s: Median duration, seconds.
        duration_p95_s: 95th percentile of the duration, seconds.
        first_token_p50_s: Median time to the first token, seconds.
        first_token_p95_s: 95th percentile of the time to the first token, seconds.
        tokens_per_s: Output tokens per second of the requests that reported some.
    """

    group: dict[str, str | None]
    requests: int
    failed: int
    client_left: int
    observed: int
    not_recorded: int
    loads: int
    prompt_tokens: int
    output_tokens: int
    estimated_tokens: int
    duration_s: float
    duration_p50_s: float | None
    duration_p95_s: float | None
    first_token_p50_s: float | None
    first_token_p95_s: float | None
    tokens_per_s: float | None


class Usage(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """How the models of a node, or of all nodes, were used in a part of the log.

    Attributes:
        by: What the rows are grouped by.
        after: The part begins after this position.
        until: Position of the last event of the part.
        total: The total of all groups.
        rows: A row for each group, sorted by time or by requests, most first.
    """

    by: tuple[UsageDimension, ...]
    after: int
    until: int
    total: UsageRow
    rows: tuple[UsageRow, ...]


_Group = tuple[str, ...]


class UsageSums:
    """Adds up periods, grouped by some dimensions.

    Args:
        by: The dimensions.
        node: Only the models of this node; None for all.
    """

    def __init__(self, by: Sequence[UsageDimension], node: str | None = None) -> None:
        self._by = tuple(by)
        self._node = node
        self._groups: dict[_Group, Measures] = {}
        self._missing: dict[_Group, int] = {}
        self._models: dict[str, ModelKey | None] = {}
        self._by_time = all(each in TIMES for each in self._by)

    def add(self, period: Period) -> None:
        """Add a period.

        Raises:
            CallerError: There are more than ``MOST_GROUPS`` groups.
        """
        by = self._by
        times = {each: _time(each, period) for each in by if each in TIMES}
        for key, measures in period.sums.items():
            model = self._model(key.stream)
            if model is None:
                continue
            group = tuple([times.get(each) or _value(each, key, model) for each in by])
            known = self._groups.get(group)
            if known is None:
                known = self._groups[group] = Measures()
            known.add(measures)
        if len(self._groups) > MOST_GROUPS:
            raise CallerError(
                f"Use by {' and '.join(self._by)}",
                f"has more than {MOST_GROUPS:,} groups",
                "Group by less, or choose a shorter time with since",
            )
        for node, missing in period.missing.items():
            if self._node not in (None, node):
                continue
            group = tuple(times.values()) if self._by_time else ()
            self._missing[group] = self._missing.get(group, 0) + missing

    def _model(self, stream: str) -> ModelKey | None:
        """Return the model of a stream; None if it is on another node."""
        if stream not in self._models:
            model = model_of(stream)
            is_here = model is not None and self._node in (None, model.node)
            self._models[stream] = model if is_here else None
        return self._models[stream]

    def rows(self) -> Iterator[UsageRow]:
        """Yield the row of each group, in order."""
        groups: Iterable[_Group] = self._groups
        if self._by_time:
            groups = {**self._groups, **dict.fromkeys(self._missing)}
        for group in sorted(groups, key=self._place):
            yield self._row(group, self._groups.get(group) or Measures())

    def result(self, rows: Iterable[UsageRow], *, after: int, until: int) -> Usage:
        """Return the sums of the periods that were added.

        Args:
            rows: The rows.
            after: Position before the first event.
            until: Position of the last event.
        """
        total = Measures()
        for measures in self._groups.values():
            total.add(measures)
        return Usage(
            by=self._by,
            after=after,
            until=until,
            total=_row({}, total, sum(self._missing.values())),
            rows=tuple(rows),
        )

    def _place(self, group: _Group) -> tuple[_Group, int, int, _Group]:
        times = tuple(
            value for each, value in zip(self._by, group, strict=True) if each in TIMES
        )
        measures = self._groups.get(group) or Measures()
        return times, -measures.requests, -measures.observed, group

    def _row(self, group: _Group, measures: Measures) -> UsageRow:
        named = {
            each.value: value or None
            for each, value in zip(self._by, group, strict=True)
        }
        missing = self._missing.get(group, 0) if self._by_time else 0
        return _row(named, measures, missing)


def _value(dimension: UsageDimension, key: Key, model: ModelKey) -> str:
    if dimension is UsageDimension.MODEL:
        return model.name
    if dimension is UsageDimension.NODE:
        return model.node
    value: str = getattr(key, dimension.value)
    return value


def _time(dimension: UsageDimension, period: Period) -> str:
    """Return the day or hour of a period; longer periods have their own name."""
    span = Span.DAY if dimension is UsageDimension.DAY else Span.HOUR
    span = max(span, period.span)
    return span.text(span.begin(period.begin))


def _row(group: dict[str, str | None], sums: Measures, missing: int) -> UsageRow:
    busy_s = sums.generating_s
    return UsageRow(
        group=group,
        requests=sums.requests,
        failed=sums.failed,
        client_left=sums.left,
        observed=sums.observed,
        not_recorded=missing,
        loads=sums.loads,
        prompt_tokens=sums.prompt_tokens,
        output_tokens=sums.output_tokens,
        estimated_tokens=sums.estimated_tokens,
        duration_s=round(sums.duration_s, 6),
        duration_p50_s=_rounded(quantile(sums.durations, 0.5)),
        duration_p95_s=_rounded(quantile(sums.durations, 0.95)),
        first_token_p50_s=_rounded(quantile(sums.first_tokens, 0.5)),
        first_token_p95_s=_rounded(quantile(sums.first_tokens, 0.95)),
        tokens_per_s=round(sums.output_tokens / busy_s, 3) if busy_s else None,
    )


def _rounded(seconds: float | None) -> float | None:
    """Round to microseconds."""
    return None if seconds is None else round(seconds, 6)
