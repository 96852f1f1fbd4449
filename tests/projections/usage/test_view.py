"""The view of use: what it counts, and that it stays small."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from support.strategies import fold
from support.uses import START, brute_force, failed, random_events, recorded, used

from herdbook.events.errors import CallerError
from herdbook.events.facts import ModelUsed, UnreadableFact, UsesNotRecorded
from herdbook.events.recorded import Cause, RecordedEvent
from herdbook.projections.usage import report
from herdbook.projections.usage import view as module
from herdbook.projections.usage.histogram import ERROR
from herdbook.projections.usage.report import Usage, UsageDimension, UsageRow, UsageSums
from herdbook.projections.usage.view import Range, Span, UsageView


def folded(events: Iterable[RecordedEvent]) -> UsageView:
    view = UsageView()
    fold(view, events)
    return view


def usage(view: UsageView, *by: UsageDimension) -> Usage:
    sums = UsageSums(by, "local")
    for period in view.periods():
        sums.add(period)
    return sums.result(sums.rows(), after=0, until=view.position)


def rows(view: UsageView, *by: UsageDimension) -> dict[Any, UsageRow]:
    found = {}
    for row in usage(view, *by).rows:
        values = tuple(row.group.values())
        found[values[0] if len(by) == 1 else values] = row
    return found


def counts(row: UsageRow) -> dict[str, int]:
    names = "requests", "failed", "client_left", "observed", "not_recorded"
    every = (*names, "prompt_tokens", "output_tokens", "estimated_tokens")
    return {name: getattr(row, name) for name in every}


def test_request_is_counted_with_all_that_is_known() -> None:
    view = folded([recorded(1, used(role="coding", loaded_by_it=True))])

    row = rows(view, UsageDimension.CLIENT)["ann"]

    assert counts(row) == {
        "requests": 1,
        "failed": 0,
        "client_left": 0,
        "observed": 0,
        "not_recorded": 0,
        "prompt_tokens": 10,
        "output_tokens": 100,
        "estimated_tokens": 0,
    }
    assert row.loads == 1
    assert row.duration_s == 2.0
    assert row.duration_p50_s == pytest.approx(2.0, rel=1.001 * ERROR)
    assert row.duration_p95_s == pytest.approx(2.0, rel=1.001 * ERROR)
    assert row.first_token_p50_s == pytest.approx(0.5, rel=1.001 * ERROR)
    assert row.tokens_per_s == 50.0
    assert list(rows(view, UsageDimension.ROLE)) == ["coding"]
    assert list(rows(view, UsageDimension.ENDPOINT)) == ["/api/chat"]
    assert list(rows(view, UsageDimension.MODEL)) == ["llama3.2:3b"]
    assert list(rows(view, UsageDimension.DAY)) == ["2026-03-01"]
    assert list(rows(view, UsageDimension.HOUR)) == ["2026-03-01T12Z"]


def test_requests_recorded_together_count_with_their_mean() -> None:
    view = folded([recorded(1, used(count=4, duration_s=8.0, first_token_s=4.0))])

    row = rows(view, UsageDimension.MODEL)["llama3.2:3b"]

    assert row.requests == 4
    assert row.duration_p50_s == pytest.approx(2.0, rel=1.001 * ERROR)
    assert row.first_token_p95_s == pytest.approx(1.0, rel=1.001 * ERROR)


def test_failed_requests_are_counted_by_kind_and_do_not_change_the_quantiles() -> None:
    view = folded([recorded(1, used()), recorded(2, failed(count=3))])

    by_outcome = rows(view, UsageDimension.OUTCOME, UsageDimension.FAILURE)

    assert by_outcome["failed", "server_busy"].failed == 3
    assert by_outcome["completed", None].failed == 0
    total = usage(view, UsageDimension.MODEL).total
    assert (total.requests, total.failed) == (4, 3)
    assert total.duration_p95_s == pytest.approx(2.0, rel=1.001 * ERROR)


def test_failed_requests_count_for_the_requested_role() -> None:
    view = folded(
        [
            recorded(1, failed(role="coding", estimated_tokens=7)),
            recorded(2, used(role="coding", estimated_tokens=5)),
        ]
    )

    row = rows(view, UsageDimension.ROLE)["coding"]

    assert (row.requests, row.failed) == (2, 1)
    assert row.estimated_tokens == 12


def test_observed_uses_are_not_requests_and_have_no_client() -> None:
    fact = ModelUsed()
    view = folded([recorded(1, fact, cause=Cause.OBSERVED, actor="reconciler")])

    row = rows(view, UsageDimension.CLIENT, UsageDimension.OUTCOME)[None, "observed"]

    assert (row.requests, row.observed) == (0, 1)


def test_reported_use_has_the_actor_as_client() -> None:
    view = folded([recorded(1, ModelUsed(purpose="review"), actor="cli:ann")])

    row = rows(view, UsageDimension.CLIENT, UsageDimension.OUTCOME)[
        "cli:ann", "reported"
    ]

    assert row.requests == 1
    assert row.duration_p50_s is None
    assert row.tokens_per_s is None


def test_use_that_cannot_be_read_counts_as_one() -> None:
    event = msgspec.structs.replace(
        recorded(1, used()), data=UnreadableFact(data="{", reason="cut")
    )

    assert usage(folded([event]), UsageDimension.MODEL).total.requests == 1


def test_missing_uses_are_counted_by_time_only() -> None:
    fact = UsesNotRecorded(count=7, since=START, until=START, reason="full")
    view = folded([recorded(1, used()), recorded(2, fact)])

    assert usage(view, UsageDimension.CLIENT).total.not_recorded == 7
    assert rows(view, UsageDimension.CLIENT)["ann"].not_recorded == 0
    assert rows(view, UsageDimension.DAY)["2026-03-01"].not_recorded == 7
    other = msgspec.structs.replace(recorded(1, fact), stream="node/other")
    assert usage(folded([other]), UsageDimension.DAY).total.not_recorded == 0


def test_rows_of_times_are_in_order_of_time_and_others_by_number() -> None:
    later = START + timedelta(days=2)
    events = [
        recorded(1, used(client="ben", count=2)),
        recorded(2, used(client="ann")),
        recorded(3, used(client="cy", count=9), at=later),
    ]

    view = folded(events)

    assert list(rows(view, UsageDimension.CLIENT)) == ["cy", "ben", "ann"]
    assert list(rows(view, UsageDimension.DAY, UsageDimension.CLIENT)) == [
        ("2026-03-01", "ben"),
        ("2026-03-01", "ann"),
        ("2026-03-03", "cy"),
    ]


def test_clients_over_the_limit_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CLIENTS", 2)
    events = [
        recorded(n, used(client=f"c{n % 4}"), at=START + timedelta(hours=n))
        for n in range(1, 41)
    ]

    by_client = rows(folded(events), UsageDimension.CLIENT)

    assert {name: row.requests for name, row in by_client.items()} == {
        "(others)": 20,
        "c1": 10,
        "c2": 10,
    }


def test_sums_of_one_hour_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SUMS", 3)
    events = [recorded(n, used(client=f"c{n}")) for n in range(1, 31)]

    view = folded(events)

    by_client = rows(view, UsageDimension.CLIENT)
    assert len(by_client) == 4
    assert by_client["(others)"].requests == 27
    assert usage(view, UsageDimension.CLIENT).total.requests == 30


def test_old_hours_become_days_and_months(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOURS", 24)
    monkeypatch.setattr(module, "DAYS", 10)
    events = [
        recorded(n, used(), at=START + timedelta(hours=5 * n)) for n in range(1, 500)
    ]

    view = folded(events)

    spans = [period.span for period in view.periods()]
    assert spans.count(Span.HOUR) <= 24
    assert spans.count(Span.DAY) <= 10
    assert spans == sorted(spans, reverse=True)
    assert usage(view, UsageDimension.MODEL).total.requests == 499
    days = list(rows(view, UsageDimension.DAY))
    assert days[:3] == ["2026-03", "2026-04", "2026-05"]
    assert days[-1] == "2026-06-13"
    assert list(rows(view, UsageDimension.HOUR))[3].startswith("2026-05-")


def test_many_sums_are_put_together_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OF_A_SPAN", 50)
    events = [
        recorded(n, used(client=f"c{n % 40}"), at=START + timedelta(minutes=10 * n))
        for n in range(1, 3_000)
    ]

    view = folded(events)

    for span in (Span.HOUR, Span.DAY):
        sums = [len(one.sums) for one in view.periods() if one.span is span]
        assert sum(sums[:-1]) <= 50 + 40
    assert usage(view, UsageDimension.MODEL).total.requests == 2_999


@pytest.mark.parametrize("year", [1, 9999])
def test_damaged_times_are_counted(year: int) -> None:
    at = datetime(year, 12 if year > 1 else 1, 31, 23, tzinfo=UTC)
    events = [recorded(1, used(), at=at), recorded(2, used())]

    assert usage(folded(events), UsageDimension.DAY).total.requests == 2


@pytest.mark.parametrize("seed", range(20))
def test_range_is_whole_periods_and_parts(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOURS", 20)
    monkeypatch.setattr(module, "DAYS", 8)
    events = random_events(seed, 300)
    view = folded(events)
    for after in (0, 10, 150, 299):
        for until in (after, after + 7, 280, 300):
            sums = UsageSums([UsageDimension.MODEL], "local")
            whole, parts = view.between(Range(after, until))
            for period in whole:
                sums.add(period)
            assert len(parts) <= 2
            for part in parts:
                for period in folded(events[part.after : part.until]).periods():
                    sums.add(period)
            total = sums.result([], after=after, until=until).total
            assert counts(total) == brute_force(events[after:until])


@pytest.mark.parametrize("seed", range(5))
def test_loaded_view_continues_as_the_original(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOURS", 20)
    monkeypatch.setattr(module, "DAYS", 8)
    monkeypatch.setattr(module, "MOST_CLIENTS", 5)
    events = random_events(seed, 400)
    whole = folded(events)
    for cut in range(0, 400, 37):
        loaded = UsageView.load(folded(events[:cut]).dump())
        fold(loaded, events[cut:])
        assert loaded.dump() == whole.dump()


def test_answer_with_too_many_groups_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "MOST_GROUPS", 10)
    view = folded([recorded(n, used(client=f"c{n}")) for n in range(1, 12)])

    assert usage(view, UsageDimension.MODEL).total.requests == 11
    with pytest.raises(CallerError, match="has more than 10 groups"):
        usage(view, UsageDimension.CLIENT)
