"""Quantiles of a histogram are as near to the exact ones as promised."""

from __future__ import annotations

import math
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herdbook.projections.usage.histogram import (
    BINS,
    ERROR,
    LEAST_S,
    MOST_S,
    Histogram,
    bin_of,
    merge,
    quantile,
)

durations = st.floats(LEAST_S, MOST_S)


def histogram(values: list[float]) -> Histogram:
    found: Histogram = {}
    for value in values:
        merge(found, {bin_of(value): 1})
    return found


@given(st.lists(durations, min_size=1), st.floats(0, 1))
def test_quantile_differs_by_at_most_the_error(
    values: list[float], share: float
) -> None:
    exact = sorted(values)[max(0, ceil(share * len(values) - 1e-9) - 1)]

    estimate = quantile(histogram(values), share)

    assert estimate is not None
    assert abs(estimate - exact) <= ERROR * exact * (1 + 1e-9)


@given(st.lists(durations), st.lists(durations))
def test_merged_histograms_are_that_of_all_values(
    some: list[float], others: list[float]
) -> None:
    merged = histogram(some)

    merge(merged, histogram(others))

    assert merged == histogram(some + others)


def test_p95_of_few_values_is_the_largest() -> None:
    estimate = quantile(histogram([1.0, 100.0]), 0.95)

    assert estimate == pytest.approx(100.0, rel=ERROR)


def test_quantile_without_values_is_unknown() -> None:
    assert quantile({}, 0.5) is None


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-300, 1e300, math.inf])
def test_durations_out_of_range_are_in_the_outermost_bins(seconds: float) -> None:
    assert bin_of(seconds) in {bin_of(LEAST_S), bin_of(MOST_S)}
    assert bin_of(MOST_S) - bin_of(LEAST_S) + 1 == BINS
