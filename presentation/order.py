"""The order of models on every screen: models that are ready for use first.

The order is loaded, available, loading, error, not present. Models of the same
weights are adjacent, since they share memory and disk space.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from herdbook.core import ModelState, ModelStatus

_ORDER: Final = (
    ModelState.LOADED,
    ModelState.AVAILABLE,
    ModelState.LOADING,
    ModelState.ERROR,
    ModelState.NOT_PRESENT,
)


def display_order(statuses: Iterable[ModelStatus]) -> list[ModelStatus]:
    """Sort models for display."""
    listed = [*statuses]
    first = {key: min(names) for key, names in _by_weights(listed).items()}
    return sorted(
        listed,
        key=lambda status: (
            _ORDER.index(status.state),
            first.get(status.weights or "", status.name),
            status.name,
        ),
    )


def twins_of(statuses: Sequence[ModelStatus]) -> dict[str, str]:
    """Return, by name, the earlier model in the list that has the same weights.

    Args:
        statuses: Models in display order.
    """
    first: dict[str, str] = {}
    twins: dict[str, str] = {}
    for status in statuses:
        if status.weights is not None and status.present:
            twin = first.setdefault(status.weights, status.name)
            if twin != status.name:
                twins[status.name] = twin
    return twins


def _by_weights(statuses: Iterable[ModelStatus]) -> Mapping[str, list[str]]:
    names = defaultdict(list)
    for status in statuses:
        if status.weights is not None:
            names[status.weights].append(status.name)
    return names
