"""Sort models, for ``ls`` and the models page.

The default order has models that are ready for use first: loaded, available, loading,
error, not present. Models of the same weights are adjacent, since they share memory
and disk space.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from herdbook.core import ModelState, ModelStatus, ReadModel
from herdbook.presentation.wording import (
    NOTHING,
    capabilities_text,
    trained_context,
)

if TYPE_CHECKING:
    from _typeshed import SupportsRichComparison

SORT_KEYS = ("state", "name", "size", "context", "can", "used", "family", "node")
"""The columns of ``ls``, and the family."""

_DESCENDING: Final = frozenset({"size", "context", "used"})

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


def sort_models(
    statuses: Sequence[ModelStatus],
    key: str,
    models: Mapping[str, ReadModel],
    *,
    reverse: bool = False,
) -> list[ModelStatus]:
    """Return models sorted by a key; unknown values are last.

    Args:
        statuses: Models in the default order, which decides between equal ones.
        key: One of ``SORT_KEYS``.
        models: The read models by node.
        reverse: Whether to reverse the order; unknown values stay last.
    """
    if key == "state":
        return [*reversed(statuses)] if reverse else [*statuses]
    return sort_by(statuses, key, models, descending=is_descending(key) != reverse)


def is_descending(key: str) -> bool:
    """Return whether a key sorts in descending order, unless that is reversed."""
    return key in _DESCENDING


def sort_by(
    statuses: Iterable[ModelStatus],
    key: str,
    models: Mapping[str, ReadModel],
    *,
    descending: bool,
) -> list[ModelStatus]:
    """Return models sorted by a value; equal ones keep their order.

    Args:
        statuses: The models.
        key: One of ``SORT_KEYS``, except ``state``.
        models: The read models by node.
        descending: Whether the greatest value is first. Unknown values are last.
    """
    known, unknown = [], []
    for status in statuses:
        value = _value(status, key, models)
        if value:
            known.append((value, status))
        else:
            unknown.append(status)
    known.sort(key=lambda pair: pair[0], reverse=descending)
    return [status for _, status in known] + unknown


def _value(
    status: ModelStatus, key: str, models: Mapping[str, ReadModel]
) -> SupportsRichComparison | None:
    """Return what a model is sorted by; an empty or zero value is unknown."""
    match key:
        case "can":
            known = models[status.node].capabilities(status.name)
            text = capabilities_text(n for n, one in known.items() if one.value)
            return None if text == NOTHING else text
        case "used":
            return status.last_used_at
        case "size":
            return status.size_bytes
        case "context":
            return trained_context(status)
        case _:
            value: str | None = getattr(status, key)  # name, family or node
            return value


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
