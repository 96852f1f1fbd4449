"""Refreshes the server's state, and records the differences to the log.

Facts are recorded at the versions that the statuses had before the refresh. Changes
that commands make meanwhile are left to the next refresh.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import msgspec

from herdbook.core.actor import RECONCILER, acting_as, operation
from herdbook.core.clock import Clock
from herdbook.core.concurrency.work_tracker import WorkTracker
from herdbook.core.errors import (
    BadAnswerError,
    BusyServerError,
    HerdbookError,
    ModelNotFoundError,
    NodeAddressError,
    NodeTimeoutError,
    NodeUnreachableError,
    OllamaError,
    RefusedError,
)
from herdbook.core.logging import Logger
from herdbook.core.models.capabilities import detect
from herdbook.core.ollama.address import same_server
from herdbook.core.ollama.entries import UnreadableEntry, unreadable_text
from herdbook.core.ollama.restart_detection import Continuity
from herdbook.core.reconcile.drift import (
    Comparison,
    Drift,
    is_detected,
    is_outdated,
    undetected,
)
from herdbook.core.reconcile.flap_damping import Change, Damper, change_of, with_count
from herdbook.core.reconcile.observation import metadata_of, server_state
from herdbook.core.reconcile.recovery import interrupt_dead
from herdbook.core.reconcile.server_state import ListedModel, ServerState, WeightsOf
from herdbook.core.reconcile.unreadable_entries import (
    newly_unreadable,
    with_known_digests,
)
from herdbook.core.reconcile.use_watch import UseWatch
from herdbook.core.repository import ModelRepository
from herdbook.core.settings import ManagerSettings
from herdbook.events.errors import (
    IllegalTransitionError,
    LeaseLostError,
    WrongExpectedVersionError,
)
from herdbook.events.facts import (
    CapabilitiesDetected,
    Fact,
    ModelUnloaded,
    ModelUpdated,
    ModelUsed,
    ModelVanished,
    NodeLost,
    NodeReached,
)
from herdbook.events.instances import Fence, Instances
from herdbook.events.recorded import Cause
from herdbook.projections.status import ModelStatus

if TYPE_CHECKING:
    from herdbook.core.models.registry import ModelRegistry
    from herdbook.core.ollama.client import OllamaClient
    from herdbook.core.ollama.wire import ShowAnswer

_log = Logger("herdbook.reconciler")

T = TypeVar("T")

CONCURRENT_SHOWS = 4
"""Concurrent ``/api/show`` requests."""

RETRY_TIMEOUT_S = 0.25
"""Timeout for the details of a model that did not answer at an earlier refresh: a
model whose ``/api/show`` hangs must not delay every refresh."""

UNKNOWN_VERSION = "unknown"
"""The version of a server that does not report a valid one."""

RECHECK_WAIT_S = 0.5
"""Wait until a runner that disappeared is looked for again: a load that evicts it, or
reloads it, took 0.3 s for a small model and 1.5 s for one of 200 MB."""

RECHECKS = 3
"""How often a runner that disappeared is looked for again before it is recorded."""

COMPARE_BATCH = 50
"""Models compared before other tasks run."""

SHORTEST_TIMEOUT_S = 0.1
"""Models with less time left are not requested: that they did not answer would say
nothing about them."""

MOST_WARNINGS = 5
"""Unreadable entries that are named in the logs; the others are counted."""

_UNREACHABLE = (NodeUnreachableError, NodeTimeoutError)
_SERVER_ERRORS = (*_UNREACHABLE, BadAnswerError, BusyServerError, RefusedError)
"""Errors about the server, not about a model."""

_FOLLOWS_USES = (ModelUnloaded, ModelUpdated, ModelVanished)
"""Facts that are recorded after the relayed uses that ended before: after these the
model is no longer what was used, or no longer in memory."""


class Reconciler:
    """Compares one server with the log, and records the differences.

    Attributes:
        last_state: The state at the last successful refresh; None before the first.
        last_error: Why the last refresh failed; None if it succeeded.
        uses: What is known about uses by other programs.
    """

    def __init__(
        self,
        repository: ModelRepository,
        client: OllamaClient,
        registry: ModelRegistry,
        instances: Instances,
        *,
        clock: Clock,
        settings: ManagerSettings,
        changes: WorkTracker,
        at_work: Callable[[str], bool] | None = None,
    ) -> None:
        self.last_state: ServerState | None = None
        self.last_error: OllamaError | None = None
        self.uses = UseWatch(changes)
        self._damper = Damper(clock, budget=settings.max_repeated_changes)
        self._repository = repository
        self._client = client
        self._registry = registry
        self._instances = instances
        self._clock = clock
        self._settings = settings
        self._works_on = at_work
        self._refreshing = asyncio.Lock()
        self._changes = changes
        self._unload_requested: frozenset[str] = frozenset()
        self._compared: ServerState | None = None
        self._unexplained: dict[str, datetime] = {}
        self._lease: str | None = None

    async def forget(self) -> None:
        """Forget the server's state, as another instance refreshes it from now on.

        A later refresh must not compare with a state from before those of the other
        instance, or it would record again what that instance has recorded. A refresh
        that is running, on behalf of a user, is completed first.
        """
        async with self._refreshing:
            self.last_state = self._compared = self.last_error = None
            self._unexplained = {}
            self.uses.forget()
            self._damper = Damper(
                self._clock, budget=self._settings.max_repeated_changes
            )

    def held_back(self) -> dict[str, datetime]:
        """Return the models whose recorded state may be out of date, and since when.

        Either a change is not recorded yet, or the server did not report which model
        a runner belongs to.
        """
        state = self.last_state
        if state is None:
            return self._damper.held()
        digests = {runner.digest for runner in state.runners}
        undecided: Collection[str] = [
            name
            for name in (state.undecided if digests else ())
            if state.models[name].digest not in digests  # its own runner is known
        ]
        if not state.reports_runners:
            undecided = [n for n, one in state.models.items() if not one.remote_host]
        held = self._damper.held() | self._unexplained
        return dict.fromkeys(undecided, state.at) | held

    @property
    def notice(self) -> str:
        """What users need to know about the server, in one line; may be empty."""
        if self.last_error is not None:
            return str(self.last_error)
        state = self.last_state
        if state is None or state.reports_runners:
            return ""
        version = state.server_version or "of unknown version"
        return (
            f"Ollama {version} does not report loaded models: whether a model is "
            "loaded is unknown"
        )

    @property
    def unreadable_notice(self) -> str:
        """Which entries of the server's lists cannot be read; empty for none."""
        state = self.last_state
        if self.last_error is not None or state is None or not state.unreadable:
            return ""
        return unreadable_text(state.unreadable)

    def note_unload_requests(self, *digests: str) -> None:
        """Remember runners that the server unloads on request once they are idle."""
        self._unload_requested |= {*digests}

    async def refresh(
        self,
        *,
        recovered: Collection[str] = (),
        actors: Mapping[str, str] | None = None,
        lease: str | None = None,
    ) -> ServerState:
        """Refresh the server's state, and record the differences.

        Args:
            recovered: Models whose work was just found interrupted: changes of these
                are recorded with the cause ``recovery``.
            actors: Who is known to have changed a model, by its name; all other
                changes are recorded with the actor ``reconciler``.
            lease: Record only while this instance holds this lease; None to record in
                any case, on behalf of a user.

        Raises:
            NodeAddressError: The log has another address for this node; nothing was
                requested or recorded.
            OllamaError: The refresh failed; the node is recorded as lost.
        """
        for _ in range(RECHECKS):
            state = await self._refresh(recovered, actors or {}, lease, final=False)
            if not self._unexplained:
                return state
            await self._clock.sleep(RECHECK_WAIT_S)
        return await self._refresh(recovered, actors or {}, lease, final=True)

    async def _refresh(
        self,
        recovered: Collection[str],
        actors: Mapping[str, str],
        lease: str | None,
        *,
        final: bool,
    ) -> ServerState:
        """Refresh once.

        Args:
            recovered: As for ``refresh``.
            actors: As for ``refresh``.
            lease: As for ``refresh``.
            final: Whether to record also that a runner is gone for no known reason.
        """
        async with self._refreshing:
            self._lease = lease
            with operation(), acting_as(RECONCILER):
                await self._repository.catch_up()
                self.check_address()
                found = await interrupt_dead(
                    self._repository, self._instances, at_work=self._works_on
                )
                await asyncio.sleep(0)  # both read all statuses
                return await self._reconcile({*recovered, *found}, actors, final=final)

    def check_address(self) -> None:
        """Check that the server is the one that the log is about.

        Raises:
            NodeAddressError: The log has another address for this node.
        """
        node, url = self._repository.node_status(), self._client.base_url
        if node.url and not same_server(node.url, url):
            raise NodeAddressError(node.name, known=node.url, given=url)

    async def _reconcile(
        self, recovered: Collection[str], actors: Mapping[str, str], *, final: bool
    ) -> ServerState:
        statuses = {status.name: status for status in self._repository.statuses()}
        self._unexplained = {}
        self._damper.begin()
        deadline = self._clock.monotonic() + self._settings.refresh_timeout_s
        try:
            with self._changes.overlapping() as overlapping:
                await self._client.held.begin()
                state = with_known_digests(await self._ask(), statuses)
                settled = _without(state.models, overlapping)
                detected, undecided = await self._detect(
                    settled, statuses, deadline=deadline
                )
                continuity = self._client.held.continuity()
                moved = self._repository.node_status().is_at_new_address
                restarted = await self._reached(state)
                # After the answers: see work_tracker.py for why this order is sound.
                streams = await self._changes.changed_elsewhere()
                elsewhere = self._names_of(streams, state, statuses)
                changed = overlapping | elsewhere
                state = msgspec.structs.replace(state, undecided=undecided)
        except OllamaError as error:
            self.last_error = error
            await self._lost(error)
            raise
        self.last_error = None
        # A node can be lost without a restart; a restart can be missed without a loss.
        same = continuity is Continuity.SAME
        uses = self.uses.evidence(
            self.last_state,
            state,
            announced=streams,
            restarted=continuity is Continuity.CLOSED or (restarted and not same),
            moved=moved,
        )
        comparison = Comparison(
            state=state,
            statuses=statuses,
            detected=detected,
            weights_of=self._weights_of(detected),
            restarted=restarted,
            moved=moved,
            continuity=continuity,
            previous=self._compared,
            unload_requested=self._unload_requested,
            newly_unreadable=newly_unreadable(state, self.last_state),
            changed=changed,
            uses=uses,
            changed_by_clients=actors,
        )
        unexplained = frozenset() if final else comparison.unexplained()
        self._unexplained = dict.fromkeys(unexplained, state.at)
        comparison = msgspec.structs.replace(comparison, changed=changed | unexplained)
        _warn_of(comparison.newly_unreadable)
        for number, name in enumerate(comparison.names(), start=1):
            await self._record_drifts_of(name, comparison, recovered, actors)
            if number % COMPARE_BATCH == 0:
                await asyncio.sleep(0)
        self._unload_requested &= {runner.digest for runner in state.runners}
        self.last_state = state
        if not unexplained:  # else the next look compares with the same state again
            self._compared = state
            lost = comparison.lost_all_runners()
            self._client.held.complete(restarted=restarted or lost)
        return state

    async def _record_drifts_of(
        self,
        name: str,
        comparison: Comparison,
        recovered: Collection[str],
        actors: Mapping[str, str],
    ) -> None:
        """Record the drifts of a model, after the relayed uses that ended before."""
        uses = 0
        for drift in comparison.drifts_of(name):
            actor = actors.get(name) or self.uses.client_behind(name, drift.facts)
            if any(isinstance(fact, _FOLLOWS_USES) for fact in drift.facts):
                uses += await self.uses.record_ended(name)
            later = msgspec.structs.replace(drift, at_version=drift.at_version + uses)
            if not await self._record(later, recovered, actor):
                break  # later facts were decided at the version after this one

    def _names_of(
        self,
        streams: Collection[str],
        state: ServerState,
        statuses: Mapping[str, ModelStatus],
    ) -> set[str]:
        """Return the names of the models that have some streams."""
        names = state.models.keys() | statuses.keys()
        return {name for name in names if self._repository.stream(name) in streams}

    async def _ask(self) -> ServerState:
        """Return the server's state, within the timeout of a refresh."""
        began_at = self._clock.now()
        shown = await self._client.poll(within_s=self._settings.refresh_timeout_s)
        return await server_state(shown, self._clock.now(), began_at=began_at)

    async def _reached(self, state: ServerState) -> bool:
        """Record that the node answers, if it did not before.

        Returns:
            Whether the node was lost before, or has another version now.
        """
        node = self._repository.node_status()
        url = self._client.base_url
        known = node.version > 0
        version = state.server_version or node.server_version or UNKNOWN_VERSION
        same = node.server_version == version
        if node.reached and same and same_server(node.url, url):
            return False
        change = Change(node.name, "version", version)
        if node.reached and not self._damper.may_record(change):
            return False
        held = self._damper.held_back(change) if node.reached else None
        (fact,) = with_count((NodeReached(version=version, url=url),), held)
        await self._record_node(fact)
        if node.reached:
            self._damper.recorded(change)
        return known and not (node.reached and same)

    async def _lost(self, error: OllamaError) -> None:
        if self._repository.node_status().reached:
            await self.uses.record_ended()  # the server answered them while it could
            await self._record_node(NodeLost(kind=error.kind, message=str(error)))

    def _fence(self) -> Fence | None:
        return None if self._lease is None else self._instances.fence(self._lease)

    async def _record_node(self, fact: Fact) -> None:
        try:
            await self._repository.record_node(
                fact, cause=Cause.OBSERVED, fence=self._fence()
            )
        except (WrongExpectedVersionError, LeaseLostError):
            await self._repository.catch_up()  # another instance recorded it first

    async def _record(
        self, drift: Drift, recovered: Collection[str], actor: str | None
    ) -> bool:
        """Record a drift, unless it is held back; return whether it was recorded."""
        if drift.occurred_at is not None:
            return await self._append(drift, drift.facts, drift.cause, actor)
        change = change_of(drift.name, drift.facts)
        if not self._damper.may_record(change):
            return False
        facts = with_count(drift.facts, self._damper.held_back(change))
        cause = drift.cause
        if drift.name in recovered and cause in (Cause.OBSERVED, Cause.SHARED):
            cause = Cause.RECOVERY
        if not await self._append(drift, facts, cause, actor):
            return False
        self._damper.recorded(change)
        return True

    async def _append(
        self, drift: Drift, facts: tuple[Fact, ...], cause: Cause, actor: str | None
    ) -> bool:
        """Append the facts of a drift, unless the model has changed meanwhile."""
        try:
            await self._repository.record(
                drift.name,
                facts,
                cause=cause,
                at_version=drift.at_version,
                actor=actor,
                occurred_at=drift.occurred_at,
                fence=self._fence(),
            )
        except (WrongExpectedVersionError, IllegalTransitionError, LeaseLostError):
            _log.debug("drift_outdated", model=drift.name)
            return False
        use = facts[0]
        if isinstance(use, ModelUsed) and use.loaded_by_it is not True:
            self.uses.recorded(drift.name, self._clock.now())
        return True

    async def _detect(
        self,
        models: dict[str, ListedModel],
        statuses: Mapping[str, ModelStatus],
        *,
        deadline: float,
    ) -> tuple[dict[str, CapabilitiesDetected], frozenset[str]]:
        """Request the details of models that are not completely known.

        Args:
            models: The models to request.
            statuses: The statuses in the log.
            deadline: When the refresh has to end, seconds of the monotonic clock.

        Returns:
            The new facts, and the models whose details are not available: for them,
            the list's facts are used, and their weights are not known.
        """
        places = asyncio.Semaphore(CONCURRENT_SHOWS)
        unreadable: set[str] = set()
        failed: dict[str, str] = {}
        late: set[str] = set()

        async def ask(name: str) -> CapabilitiesDetected | None:
            known = is_detected(models[name], statuses.get(name))
            async with places:
                timeout_s = max(deadline - self._clock.monotonic(), 0)
                if known:
                    timeout_s = min(timeout_s, RETRY_TIMEOUT_S)
                if timeout_s < SHORTEST_TIMEOUT_S:
                    timeout_s = 0
                try:
                    async with self._clock.timeout(timeout_s):
                        found = await self._shown(models[name])
                except (HerdbookError, TimeoutError) as error:
                    if not timeout_s:
                        late.add(name)
                    else:
                        reason = str(error) or f"no answer within {timeout_s:.1f} s"
                        failed[name] = reason
                    unanswered = isinstance(error, (*_SERVER_ERRORS, TimeoutError))
                    if unanswered and (not known or statuses[name].weights is None):
                        unreadable.add(name)
                    if unanswered and (known or isinstance(error, _UNREACHABLE)):
                        return None  # what is known is more than the list has
                    found = self._detected(models[name], None)
            if known and found and found.weights is None:
                newer = is_outdated(statuses[name]) and not statuses[name].weights
                return found if newer else None
            return found

        names = [
            name
            for name in undetected(models, statuses)
            if not self._damper.is_pending(name, "presence")
        ]
        try:
            async with asyncio.TaskGroup() as group:
                asked = {name: group.create_task(ask(name)) for name in names}
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # a bug: no failure of the server
        _warn_of_details(failed, late=len(late))
        found = {name: task.result() for name, task in asked.items()}
        new = {name: answer for name, answer in found.items() if answer}
        return new, frozenset(unreadable)

    def _weights_of(self, detected: Mapping[str, CapabilitiesDetected]) -> WeightsOf:
        """Return a function from digests to weights: of this refresh, else the log."""
        shown = {found.digest: found.weights for found in detected.values()}
        known = self._repository.views.status.weights_of
        return lambda digest: shown.get(digest) or known(digest)

    async def detect(self, model: ListedModel) -> CapabilitiesDetected | None:
        """Return the facts about a model, or None if the server does not answer.

        If the server cannot show the model, only the list's facts are used.
        """
        try:
            return await self._shown(model)
        except _UNREACHABLE:
            return None
        except HerdbookError as error:
            _warn_of_details({model.name: str(error)})
            return self._detected(model, None)

    async def _shown(self, model: ListedModel) -> CapabilitiesDetected | None:
        """Return the facts about a model; None if the server does not have it.

        Raises:
            HerdbookError: The server does not show it.
        """
        try:
            shown = await self._client.show(model.name)
        except ModelNotFoundError:
            return None
        return self._detected(model, shown)

    def _detected(
        self, model: ListedModel, shown: ShowAnswer | None
    ) -> CapabilitiesDetected:
        return detect(model.name, metadata_of(model, shown), self._registry)


def _without(by_name: Mapping[str, T], names: Collection[str]) -> dict[str, T]:
    return {name: value for name, value in by_name.items() if name not in names}


def _warn_of(entries: Sequence[UnreadableEntry]) -> None:
    """Log the first few unreadable entries, and how many more there are."""
    for odd in entries[:MOST_WARNINGS]:
        _log.warning(
            "entry_unreadable", source=odd.source, name=odd.name, reason=odd.reason
        )
    if len(entries) > MOST_WARNINGS:
        _log.warning("more_entries_unreadable", entries=len(entries) - MOST_WARNINGS)


def _warn_of_details(failed: Mapping[str, str], *, late: int = 0) -> None:
    """Log why the details of the first models are missing, and how many others are.

    Args:
        failed: The reasons, by model.
        late: How many models were not requested, as no time was left.
    """
    if late:
        _log.warning("details_late", models=late)
    for name in sorted(failed)[:MOST_WARNINGS]:
        _log.warning("show_failed", model=name, reason=failed[name])
    if len(failed) > MOST_WARNINGS:
        _log.warning("more_shows_failed", models=len(failed) - MOST_WARNINGS)
