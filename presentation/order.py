"""The order of models on every screen: by what can be used soonest.

Loaded, available, loading, in error, gone. Models of the same weights stand
together, since they are one thing in memory and on disk.
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


def in_order(statuses: Iterable[ModelStatus]) -> list[ModelStatus]:
    """Return models in the order in which they are shown."""
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
    """Return, by name, the model further up that has the same weights.

    Args:
        statuses: Models in the order in which they are shown.
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
