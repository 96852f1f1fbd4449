"""Colours of models: the same model has the same colour in all charts.

The style sheet has the colours as classes ``s0`` to ``s7``; the last is grey.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from herdbook.core import ModelStatus

COLOURS: Final = 7
"""Colours that stand for one model; the grey one after them is for the others."""


OTHERS_CLASS: Final = f"s{COLOURS}"
"""The class of models that are drawn together."""


class Colours:
    """Which model has which colour.

    The colour follows from the digest of the weights, so that it is the same on all
    pages, and for all names of the same weights. Where models would share one, the
    larger model keeps it.

    Args:
        statuses: The models of a node.
    """

    def __init__(self, statuses: Iterable[ModelStatus]) -> None:
        models = sorted(
            statuses,
            key=lambda one: (not one.present, -(one.size_bytes or 0), one.name),
        )
        self._weights = {one.name: one.weights or one.name for one in models}
        self._numbers: dict[str, int] = {}
        taken: set[int] = set()
        for key in dict.fromkeys(self._weights.values()):
            if len(taken) == COLOURS:
                taken.clear()
            self._numbers[key] = _nearest_free(_preferred(key), taken)
            taken.add(self._numbers[key])

    def classes(self, names: Sequence[str]) -> list[str]:
        """Return the class of each model of one chart; no two are the same.

        Models beyond the number of colours are grey.

        Args:
            names: The models, the most important first.
        """
        numbers: list[int] = []
        for name in names:
            key = self._weights.get(name, name)
            wanted = self._numbers.get(key, _preferred(key))
            numbers.append(_nearest_free(wanted, numbers))
        return [f"s{number}" for number in numbers]


def _preferred(key: str) -> int:
    return zlib.crc32(key.encode()) % COLOURS


def _nearest_free(wanted: int, taken: Collection[int]) -> int:
    """Return a colour that is not taken, the wanted one if possible; else grey."""
    after = ((wanted + step) % COLOURS for step in range(COLOURS))
    return next((number for number in after if number not in taken), COLOURS)
