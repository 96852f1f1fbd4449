"""Record uses in the log, without ever delaying or failing a request.

Uses of one model by one client with one outcome that end within a second become one
event, so that a flood of small requests cannot flood the log. Uses that cannot be
recorded are counted, and the count is recorded once the log works again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

from herdbook.core import HerdbookError, ModelState
from herdbook.core.logging import Logger
from herdbook.core.operations.uses import Uses
from herdbook.core.reconcile.use_watch import Relayed
from herdbook.events.errors import StoreError
from herdbook.events.facts import UseOutcome
from herdbook.events.shared.cancellation import finish
from herdbook.gateway.access.quotas import TokenCounter
from herdbook.gateway.protocol.endpoints import Effect
from herdbook.gateway.recording.grouped_uses import GroupKey, MissingUses, UseGroup
from herdbook.gateway.recording.uses import Use, UseTracker
from herdbook.projections.status import ModelStatus

_log = Logger("herdbook.gateway")

COLLECT_S: Final = 1.0
"""Seconds for which uses are collected before they are recorded."""

_LOADING_S: Final = 0.1
"""A server that reports less for loading found the model in memory."""

_BYTES_A_TOKEN: Final = 4
"""Bytes of a request that count as one token, where the server reports none: about
those of English text."""

_USUAL_CONTEXT: Final = 4_096
"""Tokens of the context of a runner that is not known: Ollama's default."""


class UseRecorder:
    """Collects uses, and records them once a second.

    Args:
        uses: The uses of the models of the server.
        running: The requests about models that are being relayed.
        token_counter: Takes the tokens of uses.
    """

    def __init__(
        self, uses: Uses, running: Collection[UseTracker], token_counter: TokenCounter
    ) -> None:
        self._uses = uses
        self._token_counter = token_counter
        self._running = running
        self._groups: dict[GroupKey, UseGroup] = {}
        self._closed: list[tuple[GroupKey, UseGroup]] = []
        self._recording = asyncio.Lock()
        self._changes: dict[str, str | None] = {}
        self._missing = MissingUses()
        self._works = True
        self._wake = asyncio.Event()
        self._stopped = asyncio.Event()

    @property
    def works(self) -> bool:
        """Whether the last attempt to record succeeded."""
        return self._works

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopped.is_set()

    @property
    def missing(self) -> int:
        """Number of uses that are missing in the log so far."""
        return self._missing.count

    def unrecorded(self) -> dict[str, Relayed]:
        """Return the models with uses or changes that are not in the log yet.

        Of several requests for a model, one that changes it counts, else the oldest.
        """
        found: dict[str, Relayed] = {}
        for name, actor in self._changes.items():
            if actor is not None:
                self._add_relayed(found, name, Relayed(actor, changes=True))
        for key in (*(key for key, _ in self._closed), *self._groups):
            self._add_relayed(found, key.model, Relayed(key.caller.actor))
        for tracker in sorted(self._running, key=lambda one: one.started):
            changes = tracker.endpoint.effect is Effect.CHANGE
            relayed = Relayed(tracker.caller.actor, changes)
            self._add_relayed(found, tracker.model, relayed)
        for name in self._changes:
            self._add_relayed(found, name, Relayed(None))
        return found

    def _add_relayed(
        self, found: dict[str, Relayed], name: str, relayed: Relayed
    ) -> None:
        status = self._uses.status(name) if name else None
        if status is not None:
            known = found.get(status.name)
            if known is None or (relayed.changes and not known.changes):
                found[status.name] = relayed

    def add(self, use: Use) -> None:
        """Receive a request that has ended."""
        estimated = self._estimated(use)
        self._token_counter.spend(use.caller.name, sum(use.tokens) + estimated)
        if not use.model:
            return
        answered = use.first_token_s is not None
        if use.endpoint.effect is Effect.CHANGE or use.counts.only:
            if answered or use.outcome is UseOutcome.COMPLETED:
                self._changes[use.model] = use.caller.actor
        else:
            key = GroupKey(
                use.model,
                use.caller,
                use.endpoint.path,
                use.outcome,
                use.failure,
                use.role,
                answered,
            )
            group = self._groups.get(key)
            if group is None:
                group = UseGroup(use, loaded_by_it=self._loaded_by(use))
                self._groups[key] = group
            group.add(use, estimated)
        self._wake.set()

    async def run(self) -> None:
        """Record what was collected, once a second, until ``stop``."""
        while not self._stopped.is_set():
            await self._wake.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), COLLECT_S)
            self._wake.clear()
            await self.flush()
            if self._missing.count or self._changes:
                self._wake.set()

    def stop(self) -> None:
        """Let ``run`` record what is left, and return."""
        self._stopped.set()
        self._wake.set()

    async def flush(self) -> None:
        """Record what was collected so far."""
        changes, self._changes = self._changes, {}
        self._close_groups()
        # Models in memory come before the refresh: a later request may have unloaded or
        # deleted them, and what it did would be recorded before the use.
        try:
            await self._record_closed(self._is_in_memory, changes)
            await self._refresh(changes)
            await self._record_closed(lambda _: True, changes)
        except StoreError:
            return  # the uses are counted as missing
        await self._record_missing()

    async def record_ended(self, name: str | None = None) -> int:
        """Record the requests that have ended, before what ended after them.

        Args:
            name: Canonical name of the model whose requests are recorded; None for
                those of all models.

        Returns:
            How many events were recorded.
        """
        self._close_groups()
        return await finish(self._record_ended(name))

    async def _record_ended(self, name: str | None) -> int:
        try:
            return await self._record_closed(
                lambda status: name in (None, status.name), self._changes
            )
        except StoreError:
            return 0  # the uses are counted as missing
        finally:
            if self._missing.count or self._changes:
                self._wake.set()

    def _close_groups(self) -> None:
        """Collect further uses apart from those that have ended so far."""
        groups, self._groups = self._groups, {}
        for group in groups.values():
            group.close()
        self._closed += groups.items()

    def _is_in_memory(self, status: ModelStatus) -> bool:
        return status.state is ModelState.LOADED

    async def _record_closed(
        self,
        selected: Callable[[ModelStatus], bool],
        changes: Mapping[str, str | None],
    ) -> int:
        """Record groups; return how many events that were.

        Those of invalid names are left out.

        Args:
            selected: Returns whether the groups of a model are recorded.
            changes: Models that clients changed since the last record.

        Raises:
            StoreError: The log cannot be written. All groups that were closed count as
                not recorded.
        """
        events = 0
        async with self._recording:
            for one in list(self._closed):
                key, group = one
                status = self._uses.status(key.model)
                if status is not None and not selected(status):
                    continue
                try:
                    if status is not None:
                        changed_by = changes.get(key.model)
                        events += await self._record(
                            status, key, group, changed_by=changed_by
                        )
                except StoreError as error:
                    left, self._closed = self._closed, []
                    self._fail([group for _, group in left], error)
                    raise
                self._closed.remove(one)
        return events

    def _estimated(self, use: Use) -> int:
        """Return the estimated tokens of what the server did not report.

        A prompt has at most as many tokens as the context: Ollama cuts it off there.
        """
        if not use.unreported.prompt_bytes:
            return use.unreported.pieces
        status = self._uses.status(use.model)
        runner = None if status is None else status.runner
        context = runner.context_length if runner is not None else None
        prompt = use.unreported.prompt_bytes // _BYTES_A_TOKEN
        return use.unreported.pieces + min(prompt, context or _USUAL_CONTEXT)

    def _loaded_by(self, use: Use) -> bool | None:
        """Return whether a use loaded its model; None if that is not certain.

        It is certain where the answer reports the load and the log agrees. Answers in
        the forms of OpenAI and Anthropic report no load, and the log alone may be late.
        """
        status = self._uses.status(use.model)
        load_s = use.counts.load_s
        if status is None or not status.present or load_s is None:
            return None
        was_loaded = status.state is ModelState.LOADED
        return None if (load_s < _LOADING_S) is not was_loaded else not was_loaded

    async def _refresh(self, changes: Mapping[str, str | None]) -> None:
        """Refresh if clients changed models, or used some that are not loaded."""
        actors = {}
        due = bool(changes)
        for model, actor in changes.items():
            status = self._uses.status(model)
            if status is not None and actor is not None:
                actors[status.name] = actor
        for key, _ in self._closed:
            status = self._uses.status(key.model)
            if status is not None and not self._is_in_memory(status):
                due = True
                if key.answered:
                    actors[status.name] = key.caller.actor
        if not due:
            return
        try:
            await self._uses.refresh(actors)
        except HerdbookError as error:
            _log.warning("refresh_failed", reason=str(error))

    async def _record(
        self,
        status: ModelStatus,
        key: GroupKey,
        group: UseGroup,
        *,
        changed_by: str | None,
    ) -> bool:
        """Record a group; return whether there is an event of it.

        Args:
            status: The status of the model before.
            key: What its uses have in common.
            group: The uses.
            changed_by: Who changed the model since the last record.

        Raises:
            StoreError: The log cannot be written.
        """
        name = status.name
        try:
            recorded = await self._uses.record(
                name, group.fact(key), actor=key.caller.actor
            )
        except StoreError:
            raise
        except HerdbookError as error:  # illegal in the state, or others were faster
            self._missing.add([group], str(error))
            return False
        self._works = True
        if recorded:
            self._token_counter.recorded(key.caller.name, group.tokens, recorded)
        if not recorded:
            _log.info("use_of_missing_model", model=name, requests=group.count)
            if key.answered:  # it was there, and is already deleted
                self._missing.add([group], f"{name} is no longer on the server")
        elif key.answered and not self._is_in_memory(status):
            # The use shows that the model was in memory. Check whether it still is.
            self._changes.setdefault(name, changed_by)
        return bool(recorded)

    def _fail(self, groups: list[UseGroup], error: StoreError) -> None:
        self._works = False
        self._missing.add(groups, str(error))
        _log.warning(
            "uses_not_recorded", requests=self._missing.count, reason=str(error)
        )

    async def _record_missing(self) -> None:
        if not self._missing.count:
            return
        missing, self._missing = self._missing, MissingUses()
        try:
            await self._uses.record_missing(missing.fact())
        except StoreError as error:
            self._works = False
            self._missing = missing
            _log.warning("uses_not_recorded", requests=missing.count, reason=str(error))
        else:
            self._works = True


@asynccontextmanager
async def recording(
    uses: Uses,
    *,
    running: Collection[UseTracker],
    token_counter: TokenCounter,
    failed: Callable[[], None],
) -> AsyncIterator[UseRecorder]:
    """Record uses while the block runs; those that are left are recorded at its end.

    Args:
        uses: The uses of the models of the server.
        running: The requests about models that are being relayed.
        token_counter: Takes the tokens of uses.
        failed: Called if recording stops by itself, which only a bug causes.
    """
    recorder = UseRecorder(uses, running, token_counter)
    async with uses.relaying(recorder):
        task = asyncio.ensure_future(recorder.run())
        task.add_done_callback(lambda _: None if recorder.stopped else failed())
        try:
            yield recorder
        finally:
            recorder.stop()
            await finish(task)
