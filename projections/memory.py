"""The memory of the runners of each node: in use now, and the most so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from herdbook.events.facts import Runner
from herdbook.projections.status import ModelStatus


class MemoryByNode:
    """The memory of the runners by node, bytes; models of one runner count once.

    Ollama does not report how much memory its server has. The most that its runners had
    at once is a lower bound.

    Args:
        models: The models, of which those in memory have a runner.
        most: The most memory of the runners of each node so far, bytes.
    """

    def __init__(
        self, models: Iterable[ModelStatus] = (), most: Mapping[str, int] | None = None
    ) -> None:
        self._loaded: dict[str, dict[str, tuple[str, int]]] = {}  # by node and model
        self._used: dict[str, int] = {}
        self._most = dict(most or {})
        for model in models:
            if model.runner is not None:
                self.change(model.node, model.name, model.runner)

    @property
    def most(self) -> dict[str, int]:
        """The most memory of the runners of each node so far, bytes."""
        return self._most

    def used(self, node: str) -> int:
        """Return the memory of the runners of a node now, bytes."""
        return self._used.get(node, 0)

    def change(self, node: str, model: str, runner: Runner | None) -> None:
        """Record that a model has another runner, or none any more."""
        loaded = {**self._loaded.get(node, {})}  # copies share the one before
        part = (runner.digest, runner.size_bytes) if runner is not None else None
        if loaded.get(model) == part:
            return
        if part is None:
            del loaded[model]
        else:
            loaded[model] = part
        self._loaded[node] = loaded
        runners: dict[str, int] = {}
        for digest, size_bytes in loaded.values():
            runners[digest] = max(runners.get(digest, 0), size_bytes)
        used = self._used[node] = sum(runners.values())
        if used > self._most.get(node, 0):
            self._most[node] = used

    @classmethod
    def copy_of(cls, other: Self) -> Self:
        """Copy the memory, so that later changes are not in the copy."""
        copied = cls(most=other._most)
        copied._loaded, copied._used = dict(other._loaded), dict(other._used)
        return copied
