"""Load pinned models again after an eviction, when there is room.

Ollama has no pinning: a model with ``keep_alive: -1`` can be evicted too, as the last
one. A pinned model is loaded again once the model that evicted it has left memory, or
once nothing in memory is in use any more: models without expiry would stay there for
ever. The number of loads per hour is limited, because two pinned models that do not fit
into memory together would evict each other endlessly.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from datetime import timedelta

from herdbook.core.clock import Clock
from herdbook.core.reconcile.observed_uses import idle_since
from herdbook.core.reconcile.server_state import ServerState
from herdbook.core.settings import ManagerSettings
from herdbook.events.facts import UnloadReason
from herdbook.events.lifecycle import Activity, ModelState
from herdbook.projections.status import ModelStatus

HOUR_S = 3600.0


class Pins:
    """Choose the pinned models to load again, and limit how often."""

    def __init__(self, *, clock: Clock, settings: ManagerSettings) -> None:
        self._clock = clock
        self._limit = settings.pinned_loads_per_hour
        self._idle_after = timedelta(seconds=settings.pinned_idle_s)
        self._loads: defaultdict[str, deque[float]] = defaultdict(deque)

    def due(self, statuses: list[ModelStatus], server: ServerState) -> Iterator[str]:
        """Yield the names of evicted pinned models to load, most recently used first.

        Each yielded name counts as a load of that model.

        Args:
            statuses: All models of the node.
            server: State of the server at the last refresh.
        """
        in_memory = {runner.name for runner in server.runners}
        in_memory |= {s.name for s in statuses if s.activity is Activity.LOAD}
        for status in sorted(statuses, key=_last_use, reverse=True):
            if not _was_evicted(status):
                continue
            waits = _evicted_by(status) in in_memory
            if waits and not self._all_idle(statuses, server):
                continue
            recent = self._recent(status.name)
            if len(recent) < self._limit:
                recent.append(self._clock.monotonic())
                yield status.name

    def _all_idle(self, statuses: list[ModelStatus], server: ServerState) -> bool:
        """Return whether no model in memory is pinned, in use or to expire."""
        loaded = [s for s in statuses if s.state is ModelState.LOADED]
        digests = {status.runner.digest for status in loaded if status.runner}
        return (
            not any(status.activity is Activity.LOAD for status in statuses)
            and all(runner.digest in digests for runner in server.runners)
            and all(self._is_idle(status) for status in loaded)
        )

    def _is_idle(self, status: ModelStatus) -> bool:
        since = idle_since(status)
        if since is None or status.settings.get("pinned") is True:
            return False
        return self._clock.now() - since >= self._idle_after

    def _recent(self, name: str) -> deque[float]:
        loads = self._loads[name]
        while loads and loads[0] <= self._clock.monotonic() - HOUR_S:
            loads.popleft()
        return loads


def _last_use(status: ModelStatus) -> float:
    return status.last_used_at.timestamp() if status.last_used_at else 0.0


def _was_evicted(status: ModelStatus) -> bool:
    return (
        status.settings.get("pinned") is True
        and status.state is ModelState.AVAILABLE
        and status.why is not None
        and status.why.detail == UnloadReason.EVICTED
    )


def _evicted_by(status: ModelStatus) -> str | None:
    return status.why.evicted_by if status.why else None
