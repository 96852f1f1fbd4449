"""Few snapshots are kept, near enough to every position, within its bytes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.core.history import snapshot_retention
from herdbook.core.history.snapshot_retention import (
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
    """Return the snapshots of a log that grew up to a position, one by one."""
    snapshots: list[KeptView] = []
    for position in range(SPACING, head + 1, SPACING):
        scale = scale_of(snapshots, position)
        if is_wanted(snapshots, position, position, scale=scale):
            snapshots.append(KeptView(version=1, position=position, size=size))
            gone = surplus(snapshots, position, scale=scale_of(snapshots, position))
            snapshots = [snapshot for snapshot in snapshots if snapshot not in gone]
    return snapshots


def longest_gap(snapshots: list[KeptView], head: int) -> int:
    positions = [0, *(snapshot.position for snapshot in snapshots), head]
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


def test_one_million_events_have_a_snapshot_every_few_thousand() -> None:
    snapshots = grown(1_000_000, size=240_000)

    assert longest_gap(snapshots, 1_000_000) == SPACING
    assert len(snapshots) == 1_000_000 // SPACING
    assert sum(snapshot.size for snapshot in snapshots) <= MOST_BYTES


def test_older_snapshots_of_a_longer_log_are_wider(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recent = 16 * SPACING
    monkeypatch.setattr(snapshot_retention, "RECENT", recent)
    head = 16 * recent

    snapshots = grown(head, size=1)

    assert len(snapshots) <= 16 + 4 * 8 + 4  # half as many for each doubling
    late = [snapshot for snapshot in snapshots if snapshot.position >= head - recent]
    assert longest_gap(late, head) >= SPACING
    gaps = [b.position - a.position for a, b in itertools.pairwise(snapshots)]
    assert gaps == sorted(gaps, reverse=True)
    assert max(gaps) == 16 * SPACING


@given(st.integers(1, 100 * SPACING), st.integers(1, 64 << 20))
def test_snapshots_fit_into_their_byte_limit(head: int, size: int) -> None:
    snapshots = grown(head, size)

    assert sum(snapshot.size for snapshot in snapshots) <= MOST_BYTES


def test_snapshots_of_many_models_are_spaced_wider() -> None:
    size = MOST_BYTES // 100

    snapshots = grown(400 * SPACING, size)

    assert 50 <= len(snapshots) <= 100
    assert longest_gap(snapshots, 400 * SPACING) <= 16 * SPACING


def test_second_snapshot_of_a_slot_is_not_wanted() -> None:
    snapshots = [KeptView(version=1, position=SPACING + 5, size=1)]
    head = 4 * SPACING

    assert not is_wanted(snapshots, SPACING, head, scale=1)
    assert not is_wanted(
        snapshots, SPACING - 1, head, scale=1
    )  # the log's own beginning
    assert is_wanted(snapshots, 2 * SPACING, head, scale=1)
    twice = [*snapshots, KeptView(version=1, position=SPACING + 9, size=1)]
    assert surplus(twice, head, scale=1) == twice[1:]
