"""What one process remembers about uses between two refreshes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from herdbook.core.concurrency.work_tracker import WorkTracker
from herdbook.core.reconcile.observed_uses import Sighting, UseEvidence, sightings
from herdbook.core.reconcile.server_state import ServerState
from herdbook.events.facts import Fact, ModelLoaded, RunnerChanged

SETTLED_AFTER: Final = timedelta(seconds=5)
"""Time after which the gateways of other instances have recorded a use. They record
once a second."""


class Relayed(NamedTuple):
    """A request about a model that a gateway relays, or has not recorded yet.

    Attributes:
        actor: Who sent it; None if that does not matter.
        changes: Whether it changes the model. A use may only load it.
    """

    actor: str | None
    changes: bool = False


class RelayedUses(Protocol):
    """The uses that a gateway has not recorded yet."""

    def unrecorded(self) -> Mapping[str, Relayed]:
        """Return the models with requests that run, or are not recorded yet.

        The key is the canonical name.
        """
        ...

    async def record_ended(self, name: str | None = None) -> int:
        """Record the requests that have ended, before what ended after them.

        Args:
            name: Canonical name of the model whose requests are recorded; None for
                those of all models.

        Returns:
            How many events were recorded.
        """
        ...


class UseWatch:
    """Collects the evidence of uses by other programs.

    Args:
        changes: Announces to other instances that this one runs a gateway.
    """

    def __init__(self, changes: WorkTracker) -> None:
        self._changes = changes
        self._sightings: dict[str, Sighting] = {}
        self._unsettled: dict[str, list[Sighting]] = {}
        self._recorded_at: dict[str, datetime] = {}
        self._cut_off_at: dict[str, datetime] = {}
        self._relayed: RelayedUses | None = None
        self._relayed_elsewhere = False

    @property
    def relayed_elsewhere(self) -> bool:
        """Whether only another instance, which runs a gateway, can observe uses."""
        return self._relayed_elsewhere

    def forget(self) -> None:
        """Forget what earlier refreshes showed."""
        self._sightings = {}
        self._unsettled = {}
        self._recorded_at = {}
        self._cut_off_at = {}

    @asynccontextmanager
    async def relaying(self, relayed: RelayedUses) -> AsyncIterator[None]:
        """Leave uses that a gateway relays to it, while the block runs.

        Only instances with a gateway observe uses meanwhile: others do not know which
        uses the gateway has not recorded yet.

        Args:
            relayed: The uses that the gateway has not recorded yet.
        """
        self._relayed = relayed
        try:
            async with self._changes.relaying():
                yield
        finally:
            self._relayed = None

    async def record_ended(self, name: str | None = None) -> int:
        """Record relayed uses that have ended, before what ended after them.

        The gateway records once a second. Without this, a model that was unloaded
        meanwhile would be recorded as unloaded, and then as used and so as loaded.

        Args:
            name: Canonical name of the model that was used; None for all models.

        Returns:
            How many events were recorded.
        """
        return 0 if self._relayed is None else await self._relayed.record_ended(name)

    def client_behind(self, name: str, facts: Collection[Fact]) -> str | None:
        """Return the client of the gateway whose request led to a change.

        Args:
            name: The model.
            facts: What changed.

        Returns:
            The actor; None if no request is known that may have led to it.
        """
        relayed = self._unrecorded().get(name)
        if relayed is None:
            return None
        loads = any(isinstance(fact, ModelLoaded | RunnerChanged) for fact in facts)
        return relayed.actor if relayed.changes or loads else None

    def _unrecorded(self) -> Mapping[str, Relayed]:
        return {} if self._relayed is None else self._relayed.unrecorded()

    def recorded(self, name: str, at: datetime) -> None:
        """Note that an observed use of a model was recorded."""
        self._recorded_at[name] = at

    def cut_off(self, name: str, at: datetime) -> None:
        """Note that a relayed use was recorded whose answer was not complete.

        The expiry moves for it, although it may not count as a use of the model.
        """
        self._cut_off_at[name] = at

    def evidence(
        self,
        previous: ServerState | None,
        state: ServerState,
        *,
        announced: Collection[str],
        restarted: bool,
        moved: bool = False,
    ) -> UseEvidence | None:
        """Return the evidence of uses; None if only another instance runs a gateway.

        Next to gateways of other instances, an expiry counts only once they have
        recorded the uses that led to it.

        Args:
            previous: The state at the previous refresh; None at the first.
            state: The state now.
            announced: What other instances announce.
            restarted: Whether the server restarted in between.
            moved: Whether the node has another address: what is in memory there may
                have been loaded and used long before.
        """
        self._sightings = sightings(
            self._sightings, previous, state, restarted=restarted or moved
        )
        others_relay = self._changes.relay_mark in announced
        self._relayed_elsewhere = self._relayed is None and others_relay
        if self._relayed_elsewhere:
            return None
        settled = self._settled(state.began_at or state.at)
        relayed = self._unrecorded()
        return UseEvidence(
            sightings=settled if others_relay else self._sightings,
            recorded_at=self._recorded_at,
            cut_off_at=self._cut_off_at,
            unrecorded=relayed.keys(),
            reloading={name for name, one in relayed.items() if not one.changes},
            sees_loads=not (others_relay or moved),
        )

    def _settled(self, at: datetime) -> Mapping[str, Sighting]:
        """Return the newest expiry of each runner that was first seen long enough ago.

        One that moved along with the time is left out: the request that moves it is
        still running, perhaps through another gateway.

        Args:
            at: When the log was read.
        """
        found: dict[str, Sighting] = {}
        unsettled: dict[str, list[Sighting]] = {}
        for digest, newest in self._sightings.items():
            seen = self._unsettled.get(digest, [])
            if seen and seen[-1].expires_at == newest.expires_at:
                seen.pop()
            seen.append(newest)
            ripe = sum(at - each.until >= SETTLED_AFTER for each in seen)
            unsettled[digest] = seen[max(ripe - 1, 0) :]
            if ripe and not seen[ripe - 1].steps:
                found[digest] = seen[ripe - 1]
        self._unsettled = unsettled
        return found
