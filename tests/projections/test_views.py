"""Invariants of every view: deterministic, and a replay equals the live view."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import fold, histories

from herdbook.events.lifecycle import ModelState
from herdbook.events.recorded import RecordedEvent
from herdbook.projections.history import HistoryFilter, HistoryView
from herdbook.projections.recommendation import RecommendationView
from herdbook.projections.sentences import bytes_text, describe
from herdbook.projections.statistics import DeferredStatistics, StatisticsView
from herdbook.projections.status import Load
from herdbook.projections.status_view import StatusView
from herdbook.projections.usage.view import UsageView
from herdbook.projections.view import View

REPLACES_RUNNER = ("ReloadCompleted", "RunnerChanged")

KINDS: list[type[View]] = [StatusView, RecommendationView, StatisticsView, UsageView]


@pytest.mark.parametrize("kind", KINDS)
@given(events=histories())
def test_view_replayed_twice_has_equal_bytes(
    kind: type[View], events: list[RecordedEvent]
) -> None:
    one, other = kind(), kind()

    fold(one, events)
    fold(other, events)

    assert one.dump() == other.dump()


@pytest.mark.parametrize("kind", KINDS)
@given(events=histories(), data=st.data())
def test_loaded_view_behaves_like_the_dumped_view(
    kind: type[View], events: list[RecordedEvent], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(events)))
    whole, first = kind(), kind()
    fold(whole, events)
    fold(first, events[:cut])

    loaded = kind.load(first.dump())
    fold(loaded, events[cut:])

    assert loaded.dump() == whole.dump()


@given(events=histories(), data=st.data())
def test_deferred_statistics_are_those_of_a_replay(
    events: list[RecordedEvent], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(events)))
    question = data.draw(st.integers(cut, len(events)))
    streams = {event.stream for event in events}
    view = StatisticsView()
    fold(view, events[:cut])
    deferred = DeferredStatistics(view.dump())

    for part in (events[cut:question], events[question:]):
        fold(view, part)
        fold(deferred, part)
        for stream in streams:
            assert deferred.get(stream) == view.get(stream)
    assert deferred.kept == len(events) - cut
    assert StatisticsView.copy_of(deferred).dump() == view.dump()
    assert deferred.kept == 0
    assert deferred.dump() == view.dump()
    for stream in streams:
        assert deferred.get(stream) == view.get(stream)


@given(events=histories(longest=9))
def test_deferred_statistics_keep_few_events(events: list[RecordedEvent]) -> None:
    whole = StatisticsView()
    deferred = DeferredStatistics(whole.dump(), most=4)
    fold(whole, events)
    fold(deferred, events)

    assert deferred.kept < 4
    assert deferred.dump() == whole.dump()


def test_deferred_statistics_never_answer_without_their_dump() -> None:
    deferred = DeferredStatistics(b"{")
    for _ in range(2):
        with pytest.raises(msgspec.DecodeError):
            deferred.get("model/local/llama3.2:3b")


@given(events=histories())
def test_last_load_is_the_last_event_that_loaded_or_replaced_a_runner(
    events: list[RecordedEvent],
) -> None:
    view = StatusView()
    fold(view, events)

    for stream in {event.stream for event in events}:
        status = view.get(stream)
        if status is None or status.state is not ModelState.LOADED:
            assert status is None or status.last_load is None
            continue
        assert status.why is not None
        *_, last = (
            event
            for event in events
            if event.stream == stream
            and event.position >= status.why.position
            and (event.position == status.why.position or event.type in REPLACES_RUNNER)
        )
        assert status.last_load == Load(
            last.occurred_at, last.cause, last.actor, last.position
        )


@given(events=histories())
def test_every_event_has_a_sentence_of_one_line(
    events: list[RecordedEvent],
) -> None:
    for event in events:
        sentence = describe(event)
        assert sentence
        assert sentence[0].islower()
        assert "\n" not in sentence


@given(events=histories(), limit=st.integers(1, 5))
def test_history_with_a_limit_keeps_the_newest(
    events: list[RecordedEvent], limit: int
) -> None:
    view = HistoryView(HistoryFilter(limit=limit))

    fold(view, events)

    newest = [event.position for event in events][-limit:]
    assert [entry.position for entry in view.entries] == newest


@given(events=histories(longest=80))
def test_status_view_and_statistics_agree_on_the_lifecycle(
    events: list[RecordedEvent],
) -> None:
    status, statistics = StatusView(), StatisticsView()
    fold(status, events)
    fold(statistics, events)

    for event in events:
        known = status.get(event.stream)
        figures = statistics.get(event.stream)
        if known is not None and figures is not None:
            assert figures.lifecycle == known.lifecycle


def test_negative_size_is_unknown() -> None:
    assert bytes_text(-1) == "–"  # noqa: RUF001 - an empty cell in a table


def test_size_has_the_unit_in_which_it_is_less_than_a_thousand() -> None:
    assert [bytes_text(999), bytes_text(999_700), bytes_text(900 * 10**12)] == [
        "999 B",
        "1 MB",
        "900.0 TB",
    ]
