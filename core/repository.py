"""Append events about models, checked by the state machine, and update the views.

A command runs in this order: lock the model; read its state and version; check with
the state machine that the events are legal; append durably at the expected version;
update the state. There is no await between the return of the append and the update, so
a cancellation takes effect before or after both. After a cancelled append, the views
learn from the log whether it took place.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime

from herdbook.core.actor import current_actor, current_correlation
from herdbook.core.clock import Clock
from herdbook.core.errors import BusyError
from herdbook.core.machine import LifecycleMachine
from herdbook.core.observer import NO_OBSERVER, Observer
from herdbook.core.views import Views
from herdbook.events.errors import HerdbookError, WrongExpectedVersionError
from herdbook.events.facts import Fact
from herdbook.events.instances import Fence
from herdbook.events.lifecycle import INITIAL
from herdbook.events.recorded import Cause, NewEvent, RecordedEvent
from herdbook.events.store import EventStore
from herdbook.events.streams import StreamName, model_stream, node_stream
from herdbook.projections.status import ModelStatus, NodeStatus

ATTEMPTS = 20
"""How often a command is decided again after a concurrent change. Each failed attempt
means that another command succeeded; twenty in a row point to a fault elsewhere."""


class LiveViews:
    """The views of a log that follow it, shared by the repositories of its nodes.

    Args:
        store: The log.
        views: The views, up to the last event that was applied.

    Attributes:
        store: The log.
        views: The views.
    """

    def __init__(self, store: EventStore, views: Views) -> None:
        self.store = store
        self.views = views
        self._is_read = asyncio.Event()  # cleared while somebody reads the log
        self._is_read.set()

    async def apply(self, recorded: tuple[RecordedEvent, ...]) -> None:
        """Apply appended events: at once if they are next, else after those before."""
        await self.catch_up(until=recorded[0].position - 1)
        for event in recorded:
            if event.position > self.views.position:
                self.views.apply(event)

    async def catch_up(self, *, until: int | None = None) -> None:
        """Apply events that others, or cancelled callers, have appended.

        Args:
            until: Position to reach; by default the end of the log. Nothing is read if
                the views are there already.
        """
        target = (await self.store.head()).position if until is None else until
        while self.views.position < target and not self._is_read.is_set():
            await self._is_read.wait()
        missing = target - self.views.position
        if missing <= 0:
            return
        self._is_read.clear()
        try:
            events = self.store.read_all(after=self.views.position, limit=missing)
            async for event in events:
                # Commands of this process may have applied theirs meanwhile.
                if event.position > self.views.position:
                    self.views.apply(event)
        finally:
            self._is_read.set()


class ModelRepository:
    """The recorded models of one node.

    Args:
        live: The log and its views.
        node: Name of the node.
        clock: The clock.
        actor: Recorded as who requested a change, outside of ``acting_as``.
        observer: Receives the duration of each append.

    Attributes:
        store: The log.
        views: The views, up to the last event that was applied.
        node: Name of the node.
    """

    def __init__(
        self,
        live: LiveViews,
        *,
        node: str,
        clock: Clock,
        actor: str,
        observer: Observer = NO_OBSERVER,
    ) -> None:
        self.store = live.store
        self.views = live.views
        self.node = node
        self._live = live
        self._clock = clock
        self._actor = actor
        self._observer = observer
        self._machine = LifecycleMachine()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def actor(self) -> str:
        """Return the current actor."""
        return current_actor(self._actor)

    def stream(self, name: str) -> StreamName:
        """Return the stream of a model of this node."""
        return model_stream(self.node, name)

    def status(self, name: str) -> ModelStatus | None:
        """Return a model's status as the views have it."""
        return self.views.status.get(self.stream(name))

    def version(self, name: str) -> int:
        """Return the version of a model's stream as the views have it."""
        known = self.views.status.find(self.stream(name))
        return known.version if known else 0

    def statuses(self) -> list[ModelStatus]:
        """Return the status of every model of this node, by name."""
        return self.views.status.all(self.node)

    def records(self) -> list[ModelStatus]:
        """Return the records of the models of this node without copies, by name.

        Do not change them; later events replace or change them.
        """
        return self.views.status.records(self.node)

    def node_status(self) -> NodeStatus:
        """Return the node's own status."""
        known = self.views.status.node(node_stream(self.node))
        return known or NodeStatus(name=self.node)

    async def record(
        self,
        name: str,
        facts: Sequence[Fact],
        *,
        cause: Cause,
        at_version: int | None = None,
        actor: str | None = None,
        occurred_at: datetime | None = None,
        fence: Fence | None = None,
    ) -> tuple[RecordedEvent, ...]:
        """Append facts about a model, if its lifecycle allows each of them in turn.

        Args:
            name: Canonical name of the model.
            facts: The facts, in order.
            cause: Why they are recorded.
            at_version: Expected version of the stream; None accepts any and
                retries after a concurrent change.
            actor: Who requested them; by default the current actor.
            occurred_at: When they became true; by default now.
            fence: The lease that this instance must hold; None for none.

        Raises:
            IllegalTransitionError: A fact is not legal; nothing was recorded.
            WrongExpectedVersionError: The stream is not at ``at_version``.
            LeaseLostError: The lease is not held.
            BusyError: The model changed during every attempt.
        """
        return await self.decide(
            name,
            lambda _: facts,
            cause=cause,
            at_version=at_version,
            actor=actor,
            occurred_at=occurred_at,
            fence=fence,
        )

    async def decide(
        self,
        name: str,
        decision: Callable[[ModelStatus | None], Sequence[Fact]],
        *,
        cause: Cause,
        at_version: int | None = None,
        actor: str | None = None,
        occurred_at: datetime | None = None,
        fence: Fence | None = None,
    ) -> tuple[RecordedEvent, ...]:
        """Append facts that a function decides from the current status of a model.

        The decision is made from the views first, and again if they turn out to lag
        behind the log. So a decision to record nothing, or to refuse, is never based on
        an old status.

        Args:
            name: Canonical name of the model.
            decision: Returns the facts to record for a status, possibly none, or
                raises. Called once per attempt.
            cause: Why they are recorded.
            at_version: Expected version of the stream; None accepts any.
            actor: Who requested them; by default the current actor.
            occurred_at: When they became true; by default now.
            fence: The lease that this instance must hold; None for none.

        Raises:
            HerdbookError: Raised by the decision.
            IllegalTransitionError: A fact is not legal; nothing was recorded.
            WrongExpectedVersionError: The stream is not at ``at_version``.
            LeaseLostError: The lease is not held.
            BusyError: The model changed during every attempt.
        """
        stream = self.stream(name)
        async with self._locks[stream]:
            for _ in range(ATTEMPTS):
                known = self.views.status.find(stream)
                version = known.version if known else 0
                lifecycle = known.lifecycle if known else INITIAL
                if at_version not in (None, version):
                    raise WrongExpectedVersionError(
                        stream, expected=str(at_version), actual=version
                    )
                try:
                    facts = decision(self.status(name))
                    types = [type(fact).__name__ for fact in facts]
                    self._machine.move(name, lifecycle, types)
                except HerdbookError:
                    if await self._is_current(name, version):
                        raise
                    continue
                if not facts:
                    if await self._is_current(name, version):
                        return ()
                    continue
                try:
                    recorded = await self._append(
                        stream, facts, version, cause, actor, occurred_at, fence
                    )
                except WrongExpectedVersionError:
                    if await self._is_current(name, version):
                        raise
                    continue
                await self._live.apply(recorded)
                return recorded
        raise changes_too_often(name, ATTEMPTS)

    async def _is_current(self, name: str, version: int) -> bool:
        """Catch up with the log; return whether a model is still at a version."""
        await self.catch_up()
        return self.version(name) == version

    async def record_node(
        self, *facts: Fact, cause: Cause, fence: Fence | None = None
    ) -> None:
        """Append facts about the node, at its version in the views.

        Args:
            facts: The facts, in order.
            cause: Why they are recorded.
            fence: The lease that this instance must hold; None for none.

        Raises:
            LeaseLostError: It does not hold it.
            WrongExpectedVersionError: The node has changed meanwhile.
        """
        stream = node_stream(self.node)
        version = self.node_status().version
        recorded = await self._append(stream, facts, version, cause, None, fence=fence)
        await self._live.apply(recorded)

    async def _append(
        self,
        stream: StreamName,
        facts: Sequence[Fact],
        version: int,
        cause: Cause,
        actor: str | None,
        occurred_at: datetime | None = None,
        fence: Fence | None = None,
    ) -> tuple[RecordedEvent, ...]:
        at = occurred_at or self._clock.now()
        events = [
            NewEvent(
                fact=fact,
                occurred_at=at,
                actor=actor or self.actor(),
                cause=cause,
                correlation_id=current_correlation(),
            )
            for fact in facts
        ]
        started = self._clock.monotonic()
        recorded = await self.store.append(stream, events, version, fence=fence)
        seconds = self._clock.monotonic() - started
        self._observer.appended(events=len(events), seconds=seconds)
        return recorded

    async def catch_up(self) -> None:
        """Apply events that others, or cancelled callers, have appended."""
        await self._live.catch_up()


def changes_too_often(name: str, attempts: int) -> BusyError:
    """Return the error of a command whose model changed during every attempt."""
    return BusyError(
        name,
        f"changed {attempts} times during the command",
        "Try again",
    )
