"""The ladder keeps few rungs, near enough to every position, within its bytes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.core.history import ladder
from herdbook.core.history.ladder import (
    MOST_BYTES,
    RECENT,
    SPACING,
    is_wanted,
    scale_of,
    spacing,
    surplus,
)
from herdbook.events.snapshots import KeptView


def grown(head: int, size: int) -> list[KeptView]:
    """Return the ladder of a log that grew up to a position, rung by rung."""
    rungs: list[KeptView] = []
    for position in range(SPACING, head + 1, SPACING):
        scale = scale_of(rungs, position)
        if is_wanted(rungs, position, position, scale=scale):
            rungs.append(KeptView(version=1, position=position, size=size))
            gone = surplus(rungs, position, scale=scale_of(rungs, position))
            rungs = [rung for rung in rungs if rung not in gone]
    return rungs


def longest_gap(rungs: list[KeptView], head: int) -> int:
    positions = [0, *(rung.position for rung in rungs), head]
    return max(b - a for a, b in itertools.pairwise(positions))


@pytest.mark.parametrize(
    ("age", "wanted"),
    [
        (0, SPACING),
        (RECENT, SPACING),
        (RECENT + 1, 2 * SPACING),
        (2 * RECENT, 2 * SPACING),
        (2 * RECENT + 1, 4 * SPACING),
    ],
)
def test_spacing_doubles_with_age(age: int, wanted: int) -> None:
    assert spacing(age) == wanted


def test_one_million_events_have_a_rung_every_few_thousand() -> None:
    rungs = grown(1_000_000, size=240_000)

    assert longest_gap(rungs, 1_000_000) == SPACING
    assert len(rungs) == 1_000_000 // SPACING
    assert sum(rung.size for rung in rungs) <= MOST_BYTES


def test_older_rungs_of_a_longer_log_are_wider(monkeypatch: pytest.MonkeyPatch) -> None:
    recent = 16 * SPACING
    monkeypatch.setattr(ladder, "RECENT", recent)
    head = 16 * recent

    rungs = grown(head, size=1)

    assert len(rungs) <= 16 + 4 * 8 + 4  # half as many for each doubling
    late = [rung for rung in rungs if rung.position >= head - recent]
    assert longest_gap(late, head) >= SPACING
    gaps = [b.position - a.position for a, b in itertools.pairwise(rungs)]
    assert gaps == sorted(gaps, reverse=True)
    assert max(gaps) == 16 * SPACING


@given(st.integers(1, 100 * SPACING), st.integers(1, 64 << 20))
def test_rungs_fit_into_their_byte_limit(head: int, size: int) -> None:
    rungs = grown(head, size)

    assert sum(rung.size for rung in rungs) <= MOST_BYTES


def test_snapshots_of_many_models_are_spaced_wider() -> None:
    size = MOST_BYTES // 100

    rungs = grown(400 * SPACING, size)

    assert 50 <= len(rungs) <= 100
    assert longest_gap(rungs, 400 * SPACING) <= 16 * SPACING


def test_second_rung_of_a_slot_is_not_wanted() -> None:
    rungs = [KeptView(version=1, position=SPACING + 5, size=1)]
    head = 4 * SPACING

    assert not is_wanted(rungs, SPACING, head, scale=1)
    assert not is_wanted(rungs, SPACING - 1, head, scale=1)  # the log's own beginning
    assert is_wanted(rungs, 2 * SPACING, head, scale=1)
    twice = [*rungs, KeptView(version=1, position=SPACING + 9, size=1)]
    assert surplus(twice, head, scale=1) == twice[1:]
