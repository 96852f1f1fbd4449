"""How much memory the nodes have for models."""

from __future__ import annotations

from typing import Final, NamedTuple

from herdbook.core.clock import Clock
from herdbook.core.fleet import placement
from herdbook.core.history.levels import LevelKind
from herdbook.core.manager import ModelManager
from herdbook.events.archive_file import UNREADABLE
from herdbook.projections.status import NodeStatus

FITTED_FOR_S: Final = 60.0
"""Seconds until the memory that has fitted on a node is read from the log again."""


class Capacities:
    """The memory for models of each node: from a tag, or the most that has fitted.

    Ollama does not report how much memory its server has.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._fitted: dict[str, _Fitted] = {}

    async def of(self, node: NodeStatus, manager: ModelManager | None) -> int | None:
        """Return the memory for models of a node, bytes; None if it is not known.

        Args:
            node: The node.
            manager: Its manager; None if it has none now.

        Raises:
            StoreError: The log cannot be read.
        """
        tagged = placement.capacity(node.settings)
        if tagged is not None or manager is None:
            return tagged
        now = self._clock.monotonic()
        known = self._fitted.get(node.name)
        if known is not None and now - known.at < FITTED_FOR_S:
            return known.size_bytes
        try:
            columns = await manager.levels(
                LevelKind.MEMORY, end=self._clock.now(), columns=1
            )
        except UNREADABLE:
            columns = []  # not known without the whole log
        fitted = max((column.total for column in columns), default=0) or None
        self._fitted[node.name] = _Fitted(now, fitted)
        return fitted


class _Fitted(NamedTuple):
    """The most memory that the runners of a node had at once, as of some time."""

    at: float
    size_bytes: int | None
