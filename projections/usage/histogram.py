"""Histograms of durations with a known error, which can be added to each other.

The bins grow by a constant factor, as in DDSketch (Masson, Rim, Lee: "DDSketch: A Fast
and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees", VLDB 2019, section
2). A quantile differs from that of the sorted values by at most ``ERROR`` of its value.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log
from typing import Final, TypeAlias

Histogram: TypeAlias = dict[int, int]
"""The number of values in each bin that has some."""

ERROR: Final = 0.02
"""Largest relative error of a quantile."""

LEAST_S: Final = 1e-4
"""Shorter durations count as this one, seconds."""

MOST_S: Final = 1e6
"""Longer durations count as this one, seconds: 11 days."""

_GROWTH: Final = (1 + ERROR) / (1 - ERROR)
_PER_LOG: Final = 1 / log(_GROWTH)
_LEAST: Final = ceil(log(LEAST_S) * _PER_LOG)
_MOST: Final = ceil(log(MOST_S) * _PER_LOG)

_ROUNDING: Final = 1e-9
"""A product such as 0.07 * 100 is larger than its exact value by less than this."""

BINS: Final = _MOST - _LEAST + 1
"""Number of bins at most."""


def bin_of(seconds: float) -> int:
    """Return the bin of a duration."""
    if seconds <= LEAST_S:
        return _LEAST
    if seconds >= MOST_S:
        return _MOST
    return ceil(log(seconds) * _PER_LOG)


def merge(into: Histogram, other: Mapping[int, int]) -> None:
    """Add the values of another histogram."""
    if not into:
        into.update(other)
        return
    for at, count in other.items():
        into[at] = into.get(at, 0) + count


def quantile(histogram: Mapping[int, int], share: float) -> float | None:
    """Return a quantile, seconds; None without values.

    It is the smallest value that at least the share of the values does not exceed: the
    nearest rank.

    Args:
        histogram: The values.
        share: The share of the values that are not larger, 0 to 1.
    """
    rank = ceil(share * sum(histogram.values()) - _ROUNDING)
    passed = 0
    for at in sorted(histogram):
        passed += histogram[at]
        if passed >= rank:
            return float(2 * _GROWTH**at / (1 + _GROWTH))
    return None
