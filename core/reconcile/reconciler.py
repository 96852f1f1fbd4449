"""Looks at the server, and records what differs from the register.

Facts are recorded at the versions that the statuses had before the look: what a
command changed meanwhile is left to the next look.
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
from herdbook.core.ollama.entries import UnreadableEntry
from herdbook.core.reconcile.damping import Change, Damper, change_of, with_count
from herdbook.core.reconcile.drift import Comparison, Drift, is_detected, undetected
from herdbook.core.reconcile.hiding import newly_odd
from herdbook.core.reconcile.observation import looked, observed
from herdbook.core.reconcile.recovery import interrupt_dead
from herdbook.core.reconcile.server_state import ListedModel, ServerState, WeightsOf
from herdbook.core.repository import ModelRepository
from herdbook.core.settings import ManagerSettings
from herdbook.events.errors import IllegalTransitionError, WrongExpectedVersionError
from herdbook.events.facts import (
    CapabilitiesDetected,
    Fact,
    NodeLost,
    NodeReached,
    Runner,
)
from herdbook.events.recorded import Cause
from herdbook.events.store import Instances
from herdbook.projections.status import ModelStatus

if TYPE_CHECKING:
    from herdbook.core.models.registry import ModelRegistry
    from herdbook.core.ollama.client import OllamaClient

_log = Logger("herdbook.reconciler")

T = TypeVar("T")

SHOWS_AT_ONCE = 4
"""How many models are asked about at the same time."""

UNKNOWN_VERSION = "unknown"
"""The version of a server that says none that can be read."""

COMPARED_AT_ONCE = 50
"""How many models are compared before other tasks get their turn."""

WARNED_AT_ONCE = 5
"""How many unreadable entries are named in the logs; more are counted."""

_AWAY = (NodeUnreachableError, NodeTimeoutError)
_UNANSWERED = (*_AWAY, BadAnswerError, BusyServerError, RefusedError)
"""Failures that say nothing about a model."""


class Reconciler:
    """Compares one server with the register, and keeps the register right.

    Attributes:
        look: What the server showed last; None before the first look.
    """

    def __init__(
        self,
        register: ModelRepository,
        client: OllamaClient,
        registry: ModelRegistry,
        instances: Instances,
        *,
        clock: Clock,
        settings: ManagerSettings,
        changes: WorkTracker,
        at_work: Callable[[str], bool] | None = None,
    ) -> None:
        self.look: ServerState | None = None
        self._damper = Damper(clock, budget=settings.max_repeated_changes)
        self._register = register
        self._client = client
        self._registry = registry
        self._instances = instances
        self._clock = clock
        self._settings = settings
        self._works_on = at_work
        self._looking = asyncio.Lock()
        self._changes = changes
        self._asked: frozenset[str] = frozenset()

    def held_back(self) -> dict[str, datetime]:
        """Return the models that may be other than the log says, and since when.

        There is a change that is not recorded yet, or the server did not say whose a
        runner is.
        """
        look = self.look
        undecided = look.undecided if look is not None and look.runners else ()
        return {name: look.at for name in undecided if look} | self._damper.held()

    def asked_to_leave(self, *digests: str) -> None:
        """Remember runners that leave on our request, as soon as they are idle."""
        self._asked |= {*digests}

    async def refresh(self, *, recovered: Collection[str] = ()) -> ServerState:
        """Look at the server, and record what differs; nothing new, nothing recorded.

        Args:
            recovered: Models whose work was found interrupted just now: what is
                found out about them has the cause ``recovery``.

        Raises:
            NodeAddressError: The log knows this node at another address; nothing was
                asked or recorded.
            OllamaError: The server cannot be asked; the node is recorded as lost.
        """
        async with self._looking:
            with operation(), acting_as(RECONCILER):
                await self._register.catch_up()
                self.check_address()
                found = await interrupt_dead(
                    self._register, self._instances, at_work=self._works_on
                )
                await asyncio.sleep(0)  # both read all statuses
                return await self._reconcile({*recovered, *found})

    def check_address(self) -> None:
        """Refuse to ask a server that may not be the one that the log is about.

        Raises:
            NodeAddressError: The log knows this node at another address.
        """
        node, url = self._register.node_status(), self._client.base_url
        if node.url and not same_server(node.url, url):
            raise NodeAddressError(node.name, known=node.url, given=url)

    async def _reconcile(self, recovered: Collection[str]) -> ServerState:
        statuses = {status.name: status for status in self._register.statuses()}
        self._damper.begin()
        try:
            with self._changes.overlapping() as overlapping:
                look = await self._ask()
                settled = _without(look.models, overlapping)
                detected, undecided = await self._detect(look, settled, statuses)
                restarted = await self._reached(look)
                # After the answers: see work_tracker.py for why this order is sound.
                changed = overlapping | self._changed_elsewhere(look, statuses)
                look = msgspec.structs.replace(look, undecided=undecided)
        except OllamaError as error:
            await self._lost(error)
            raise
        comparison = Comparison(
            look=look,
            statuses=statuses,
            detected=detected,
            weights_of=self._weights_of(detected),
            restarted=restarted,
            before=self.look,
            asked=self._asked,
            newly_odd=newly_odd(look, self.look),
            changed=changed,
        )
        _warn_of(comparison.newly_odd)
        for number, name in enumerate(comparison.names(), start=1):
            for drift in comparison.drifts_of(name):
                if not await self._record(drift, recovered):
                    break  # what follows was decided at the version after it
            if number % COMPARED_AT_ONCE == 0:
                await asyncio.sleep(0)
        self._asked &= {runner.digest for runner in look.runners}
        self.look = look
        return look

    def _changed_elsewhere(
        self, look: ServerState, statuses: Mapping[str, ModelStatus]
    ) -> set[str]:
        """Return the names of models that other instances are changing."""
        streams = self._changes.changed_elsewhere()
        names = look.models.keys() | statuses.keys()
        return {name for name in names if self._register.stream(name) in streams}

    async def _ask(self) -> ServerState:
        """Return what the server shows, within the time that a look may take."""
        shown = await self._client.look(within_s=self._settings.refresh_timeout_s)
        return await looked(shown, self._clock.now())

    async def _reached(self, look: ServerState) -> bool:
        """Record that the node answers, where that is new.

        Returns:
            Whether it was away before, or is another version now.
        """
        node = self._register.node_status()
        url = self._client.base_url
        known = node.version > 0
        version = look.server_version or node.server_version or UNKNOWN_VERSION
        same = node.server_version == version
        if node.reached and same and node.url == url:
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
        if self._register.node_status().reached:
            await self._record_node(NodeLost(kind=error.kind, message=str(error)))

    async def _record_node(self, fact: Fact) -> None:
        try:
            await self._register.record_node(fact, cause=Cause.OBSERVED)
        except WrongExpectedVersionError:
            await self._register.catch_up()  # another instance saw it too

    async def _record(self, drift: Drift, recovered: Collection[str]) -> bool:
        """Record a drift, unless there are too many; return whether it is recorded."""
        change = change_of(drift.name, drift.facts)
        if not self._damper.may_record(change):
            return False
        facts = with_count(drift.facts, self._damper.held_back(change))
        cause = drift.cause
        if drift.name in recovered and cause in (Cause.OBSERVED, Cause.SHARED):
            cause = Cause.RECOVERY
        try:
            await self._register.record(
                drift.name, facts, cause=cause, at_version=drift.at_version
            )
        except (WrongExpectedVersionError, IllegalTransitionError):
            _log.debug("drift_overtaken", model=drift.name)
            return False
        self._damper.recorded(change)
        return True

    async def _detect(
        self,
        look: ServerState,
        models: dict[str, ListedModel],
        statuses: Mapping[str, ModelStatus],
    ) -> tuple[dict[str, CapabilitiesDetected], frozenset[str]]:
        """Ask about models of which there is more to find out.

        Returns:
            What is new, and the models whose answers could not be read: what the
            list says counts for them, and their weights are not known.

        Raises:
            OllamaError: It cannot be told which runner is whose.
        """
        places = asyncio.Semaphore(SHOWS_AT_ONCE)
        unreadable: set[str] = set()

        async def ask(name: str) -> CapabilitiesDetected | None:
            async with places:
                try:
                    found = await self.detect(models[name], look.runners)
                except BadAnswerError as error:
                    _log.warning("show_failed", model=name, reason=str(error))
                    unreadable.add(name)
                    found = detect(name, observed(models[name], None), self._registry)
            known = is_detected(models[name], statuses.get(name))
            return None if known and found and found.weights is None else found

        names = [
            name
            for name in undetected(models, statuses)
            if not self._damper.is_pending(name, "presence")
        ]
        try:
            async with asyncio.TaskGroup() as group:
                asked = {name: group.create_task(ask(name)) for name in names}
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        found = {name: task.result() for name, task in asked.items()}
        new = {name: answer for name, answer in found.items() if answer}
        return new, frozenset(unreadable)

    def _weights_of(self, detected: Mapping[str, CapabilitiesDetected]) -> WeightsOf:
        """Return what tells the weights of a digest: this look, else the register."""
        shown = {found.digest: found.weights for found in detected.values()}
        known = self._register.views.status.weights_of
        return lambda digest: shown.get(digest) or known(digest)

    async def detect(
        self, model: ListedModel, runners: Sequence[Runner] = ()
    ) -> CapabilitiesDetected | None:
        """Return what a model can do, or None if the server does not answer now.

        Where it answers that it cannot show the model, the listing alone counts.

        Args:
            model: The model, as it is listed.
            runners: What is in memory. Only its weights tell of each model whether
                one of them is its own.

        Raises:
            OllamaError: There is no answer, and there are runners.
        """
        try:
            shown = await self._client.show(model.name)
        except ModelNotFoundError:
            return None
        except HerdbookError as error:
            if isinstance(error, _UNANSWERED) and runners and not model.remote_host:
                raise
            if isinstance(error, _AWAY):
                return None
            _log.warning("show_failed", model=model.name, reason=str(error))
            shown = None
        return detect(model.name, observed(model, shown), self._registry)


def _without(by_name: Mapping[str, T], names: Collection[str]) -> dict[str, T]:
    return {name: value for name, value in by_name.items() if name not in names}


def _warn_of(entries: Sequence[UnreadableEntry]) -> None:
    """Log which entries cannot be read: the first few, and how many more."""
    for odd in entries[:WARNED_AT_ONCE]:
        _log.warning(
            "entry_unreadable", source=odd.source, name=odd.name, reason=odd.reason
        )
    if len(entries) > WARNED_AT_ONCE:
        _log.warning("more_unreadable", entries=len(entries) - WARNED_AT_ONCE)
