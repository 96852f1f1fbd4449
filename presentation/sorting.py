"""Sort models, for ``ls`` and the models page.

The default order has models that are ready for use first: loaded, available, loading,
error, not present. Models of the same weights are adjacent, since they share memory
and disk space.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from herdbook.core import ModelState, ModelStatus

SORT_KEYS = ("name", "size", "state", "used", "context", "family")

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
            status.node,
        ),
    )


def sort_models(statuses: list[ModelStatus], key: str) -> list[ModelStatus]:
    """Return models sorted by a key; unknown values are last.

    Args:
        statuses: Models in the default order, which decides between equal ones.
        key: One of ``SORT_KEYS``. Sizes, contexts and uses are in descending order.
    """
    if key == "name":
        return sorted(statuses, key=lambda each: each.name)
    if key == "family":
        return sorted(statuses, key=lambda each: (each.family or "~", each.name))
    if key == "state":
        return statuses
    values: dict[str, Callable[[ModelStatus], float]] = {
        "size": lambda each: each.size_bytes or 0,
        "context": lambda each: each.context_trained or 0,
        "used": lambda each: (
            each.last_used_at.timestamp() if each.last_used_at else 0.0
        ),
    }
    return sorted(statuses, key=values[key], reverse=True)


def twins_of(statuses: Sequence[ModelStatus]) -> dict[tuple[str, str], str]:
    """Return, by node and name, the earlier model there that has the same weights.

    Args:
        statuses: Models in display order.
    """
    first: dict[tuple[str, str], str] = {}
    twins: dict[tuple[str, str], str] = {}
    for status in statuses:
        if status.weights is not None and status.present:
            twin = first.setdefault((status.node, status.weights), status.name)
            if twin != status.name:
                twins[status.node, status.name] = twin
    return twins


def _by_weights(statuses: Iterable[ModelStatus]) -> Mapping[str, list[str]]:
    names = defaultdict(list)
    for status in statuses:
        if status.weights is not None:
            names[status.weights].append(status.name)
    return names
