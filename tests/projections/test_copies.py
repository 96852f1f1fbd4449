"""A copy of a view changes independently, although they share records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import fold, histories

from herdbook.events.recorded import RecordedEvent
from herdbook.projections.recommendation import RecommendationView
from herdbook.projections.statistics import StatisticsView
from herdbook.projections.status_view import StatusView

Kind = type[StatusView] | type[RecommendationView] | type[StatisticsView]
KINDS: list[Kind] = [StatusView, RecommendationView, StatisticsView]


def copy_of(
    view: StatusView | RecommendationView | StatisticsView,
) -> StatusView | RecommendationView | StatisticsView:
    match view:
        case StatusView():
            return StatusView.copy_of(view)
        case RecommendationView():
            return RecommendationView.copy_of(view)
        case _:
            return StatisticsView.copy_of(view)


def replayed(kind: Kind, events: list[RecordedEvent]) -> bytes:
    view = kind()
    fold(view, events)
    return view.dump()


@pytest.mark.parametrize("kind", KINDS)
@given(events=histories(), data=st.data())
def test_copies_are_not_changed_by_later_events(
    kind: Kind, events: list[RecordedEvent], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=3)))
    view, copies, at = kind(), [], 0
    for cut in cuts:
        fold(view, events[at:cut])
        copies.append(copy_of(view))
        at = cut
    fold(view, events[at:])

    assert view.dump() == replayed(kind, events)
    for cut, copied in zip(cuts, copies, strict=True):
        assert copied.dump() == replayed(kind, events[:cut])


@pytest.mark.parametrize("kind", KINDS)
@given(events=histories(), data=st.data())
def test_copies_can_go_on_by_themselves(
    kind: Kind, events: list[RecordedEvent], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(events)))
    view = kind()
    fold(view, events[:cut])
    copied = copy_of(view)

    fold(copied, events[cut:])
    assert view.dump() == replayed(kind, events[:cut])
    fold(view, events[cut:])

    assert copied.dump() == view.dump() == replayed(kind, events)
