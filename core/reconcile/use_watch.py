"""What one process remembers about uses between two refreshes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from datetime import datetime

from herdbook.core.concurrency.work_tracker import WorkTracker
from herdbook.core.reconcile.observed_uses import Sighting, UseEvidence, sightings
from herdbook.core.reconcile.server_state import ServerState


class UseWatch:
    """Collects the evidence of uses by other programs.

    Args:
        changes: Announces to other instances that this one runs a gateway.
    """

    def __init__(self, changes: WorkTracker) -> None:
        self._changes = changes
        self._sightings: dict[str, Sighting] = {}
        self._recorded_at: dict[str, datetime] = {}
        self._unrecorded: Callable[[], Collection[str]] | None = None

    @asynccontextmanager
    async def relaying(
        self, unrecorded: Callable[[], Collection[str]]
    ) -> AsyncIterator[None]:
        """Leave uses that a gateway relays to it, while the block runs.

        Only this instance observes uses meanwhile: others do not know which uses the
        gateway has not recorded yet.

        Args:
            unrecorded: Returns the models with uses that are not recorded yet.
        """
        self._unrecorded = unrecorded
        try:
            async with self._changes.relaying():
                yield
        finally:
            self._unrecorded = None

    def recorded(self, name: str, at: datetime) -> None:
        """Note that an observed use of a model was recorded."""
        self._recorded_at[name] = at

    def evidence(
        self,
        previous: ServerState | None,
        state: ServerState,
        *,
        announced: Collection[str],
        restarted: bool,
    ) -> UseEvidence | None:
        """Return the evidence of uses; None if another instance runs a gateway.

        Args:
            previous: The state at the previous refresh; None at the first.
            state: The state now.
            announced: What other instances announce.
            restarted: Whether the server restarted in between.
        """
        self._sightings = sightings(
            self._sightings, previous, state, restarted=restarted
        )
        relays = self._unrecorded
        if relays is None and self._changes.relay_mark in announced:
            return None
        return UseEvidence(
            sightings=self._sightings,
            recorded_at=self._recorded_at,
            unrecorded={*relays()} if relays else (),
        )
