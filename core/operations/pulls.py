"""Pull a model, or update a present one, and record its start, progress and end.

Only the line ``success`` counts as success. A stalled pull is cancelled and started
again before the server restarts it itself, which would discard partial data. A pull
right after a cancelled one may end with ``context canceled``; it is retried once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from herdbook.core.errors import (
    BadAnswerError,
    PullCancelledError,
    StalledError,
    kind_of,
    message_of,
)
from herdbook.core.logging import Logger
from herdbook.core.operations.context import OperationContext
from herdbook.core.operations.operations import Ending, Operation
from herdbook.core.operations.pull_progress import PullProgress, PullTracker
from herdbook.core.reconcile.observation import listed
from herdbook.core.reconcile.server_state import ListedModel
from herdbook.events.facts import (
    Fact,
    ModelUpdated,
    PullCancelled,
    PullCompleted,
    PullFailed,
    PullInterrupted,
    PullProgressed,
    PullStarted,
    UpdateCancelled,
    UpdateFailed,
    UpdateInterrupted,
    UpdateProgressed,
    UpdateStarted,
    UpdateUnchanged,
)
from herdbook.events.lifecycle import Activity
from herdbook.events.recorded import Cause
from herdbook.events.shared.cancellation import finish

if TYPE_CHECKING:
    from herdbook.core.ollama.client import PullLine

_log = Logger("herdbook.pulls")


class _Progress:
    """Progress of one pull: the newest, and what was recorded."""

    def __init__(self, tracker: PullTracker, started: float) -> None:
        self.tracker = tracker
        self.latest: PullProgress | None = None
        self.recorded_share = 0.0
        self.begin(started)

    def begin(self, now: float) -> None:
        """Measure from a time on, after waiting for a slot."""
        self.started = self.recorded_at = self.moved_at = now

    def update(self, line: PullLine, now: float) -> PullProgress:
        """Apply a line of the stream and return the new progress."""
        self.tracker.apply(line, now)
        progress = self.tracker.progress(now)
        if self.latest is None or _visible_state(progress) != _visible_state(
            self.latest
        ):
            self.moved_at = now
        self.latest = progress
        return progress

    @property
    def completed_bytes(self) -> int | None:
        return self.latest.completed_bytes if self.latest else None

    @property
    def total_bytes(self) -> int | None:
        return self.latest.total_bytes if self.latest else None

    @property
    def fetched_bytes(self) -> int | None:
        return self.latest.fetched_bytes if self.latest else None

    @property
    def share(self) -> float:
        if self.latest is None or not self.latest.total_bytes:
            return 0.0
        return self.latest.completed_bytes / self.latest.total_bytes


class Puller:
    """Pull and update models of one node, with a limit on concurrent pulls."""

    def __init__(self, context: OperationContext) -> None:
        self._context = context
        self._repository = context.repository
        self._client = context.client
        self._reconciler = context.reconciler
        self._instance = context.instance
        self._clock = context.clock
        self._settings = context.settings
        self._slots = asyncio.Semaphore(context.settings.max_concurrent_pulls)

    async def pull(self, work: Operation, *, insecure: bool) -> None:
        """Pull a model, or update it if it is present, and record how that ends.

        Raises:
            HerdbookError: The pull failed; recorded as failed.
        """
        progress = _Progress(PullTracker(), self._clock.monotonic())
        async with self._context.recording_end(
            work,
            stopped=lambda _: self._stopped(work, progress),
            failed=lambda _, error: _failed(work, progress, error),
        ):
            await self._pull(work, progress, insecure=insecure)

    async def _pull(
        self, work: Operation, progress: _Progress, *, insecure: bool
    ) -> None:
        """Record the start, wait for a slot, and pull.

        Recorded while it waits, a pull is seen, joined and cancelled everywhere, and
        resumed after a crash.
        """
        started = UpdateStarted if work.activity is Activity.UPDATE else PullStarted
        fact = started(instance=self._instance, insecure=insecure)
        await self._repository.record(work.name, [fact], cause=Cause.COMMAND)
        async with self._context.cancellable_elsewhere(work):
            work.waiting = True
            async with self._slots:
                work.waiting = False
                progress.begin(self._clock.monotonic())
                await self._fetch(work, progress, insecure=insecure)
                await self._complete(work, progress)

    async def _fetch(
        self, work: Operation, progress: _Progress, *, insecure: bool
    ) -> None:
        """Pull until success; retry after stalls and after one stale cancel."""
        stalls, stale_cancels, completed = 0, 0, -1
        while True:
            try:
                return await self._attempt(work, progress, insecure=insecure)
            except StalledError:
                now_completed = progress.completed_bytes or 0
                stalls = 1 if now_completed > completed else stalls + 1
                completed = now_completed
                if stalls > self._settings.max_stalls:
                    raise
                _log.warning("pull_stalled", model=work.name, stalls=stalls)
            except PullCancelledError:
                stale_cancels += 1
                if stale_cancels > 1:
                    raise
            progress.tracker.restart()

    async def _attempt(
        self, work: Operation, progress: _Progress, *, insecure: bool
    ) -> None:
        lines = self._client.pull(work.name, insecure=insecure)
        progress.moved_at = self._clock.monotonic()
        async with aclosing(lines):
            while (line := await self._next(lines, work, progress)) is not None:
                now = self._clock.monotonic()
                work.publish(progress.update(line, now))
                self._check_moving(work, progress, now)
                await self._record_progress(work, progress, now)

    def _check_moving(self, work: Operation, progress: _Progress, now: float) -> None:
        """Check that the stream still makes progress.

        Raises:
            StalledError: It repeats the same state for too long.
        """
        after_s = self._settings.stall_after_s
        if progress.tracker.stalled(now, after_s=after_s):
            raise StalledError(work.name, seconds=after_s)
        after_s = self._settings.silence_timeout_s
        if now - progress.moved_at >= after_s:
            raise StalledError(work.name, seconds=after_s)

    async def _next(
        self, lines: AsyncIterator[PullLine], work: Operation, progress: _Progress
    ) -> PullLine | None:
        timeout_s = (
            self._settings.stall_after_s
            if progress.tracker.expects_data
            else self._settings.silence_timeout_s
        )
        try:
            async with self._clock.timeout(timeout_s):
                return await anext(lines, None)
        except TimeoutError:
            raise StalledError(work.name, seconds=timeout_s) from None

    async def _record_progress(
        self, work: Operation, progress: _Progress, now: float
    ) -> None:
        if (
            progress.latest is None
            or now - progress.recorded_at < self._settings.progress_every_s
            or progress.share - progress.recorded_share
            < self._settings.progress_every_share
        ):
            return
        progress.recorded_at, progress.recorded_share = now, progress.share
        kind = UpdateProgressed if work.activity is Activity.UPDATE else PullProgressed
        fact = kind(
            completed_bytes=progress.latest.completed_bytes,
            total_bytes=progress.total_bytes,
            fetched_bytes=progress.fetched_bytes,
        )
        await self._context.record_if_running(work, lambda _: fact)

    async def _complete(self, work: Operation, progress: _Progress) -> None:
        """Find the model on the server and record the completed pull.

        Only the append is shielded from cancellation, so that a cancel does not wait
        for a server that hangs. The next refresh finds the model.
        """
        pulled = await self._pulled(work.name)
        detected = await self._reconciler.detect(pulled)

        def decide(_: object) -> list[Fact]:
            if not self._context.is_running_here(work):
                return []
            fact = self._completed(work, progress, pulled)
            if detected is None or isinstance(fact, UpdateUnchanged):
                return [fact]
            return [fact, detected]

        recorded = await finish(
            self._repository.decide(work.name, decide, cause=Cause.COMMAND)
        )
        if not recorded:  # the model vanished meanwhile, which ended the pull
            await self._reconciler.refresh()

    async def _pulled(self, name: str) -> ListedModel:
        """Return the list entry of the pulled model.

        Raises:
            BadAnswerError: The server does not list it, or its entry is unreadable.
        """
        there = await self._client.tags()
        for entry in there.entries:
            if entry.name.casefold() == name.casefold():
                return listed(entry)
        for unreadable in there.unreadable:
            if (
                unreadable.model is not None
                and unreadable.model.casefold() == name.casefold()
            ):
                raw = f"its entry for {name}: {unreadable.reason}"
                raise BadAnswerError(self._client.base_url, raw=raw)
        raise BadAnswerError(
            name,
            problem="is not on the server, although the pull succeeded",
            advice="Another client may have deleted it. Pull it again",
        )

    def _completed(
        self, work: Operation, progress: _Progress, pulled: ListedModel
    ) -> PullCompleted | ModelUpdated | UpdateUnchanged:
        duration_s = round(self._clock.monotonic() - progress.started, 3)
        if work.activity is not Activity.UPDATE:
            return PullCompleted(
                digest=pulled.digest,
                size_bytes=pulled.size_bytes,
                fetched_bytes=progress.fetched_bytes,
                duration_s=duration_s,
                remote_host=pulled.remote_host,
            )
        status = self._repository.status(work.name)
        if status is not None and status.digest == pulled.digest:
            return UpdateUnchanged(digest=pulled.digest, duration_s=duration_s)
        return ModelUpdated(
            digest=pulled.digest,
            previous_digest=status.digest if status else None,
            size_bytes=pulled.size_bytes,
            fetched_bytes=progress.fetched_bytes,
            duration_s=duration_s,
            remote_host=pulled.remote_host,
        )

    def _stopped(self, work: Operation, progress: _Progress) -> Fact:
        update = work.activity is Activity.UPDATE
        so_far = {
            "completed_bytes": progress.completed_bytes,
            "total_bytes": progress.total_bytes,
        }
        if work.ending is Ending.INTERRUPTED:
            interrupted = UpdateInterrupted if update else PullInterrupted
            return interrupted(instance=self._instance, **so_far)
        cancelled = UpdateCancelled if update else PullCancelled
        return cancelled(**so_far)


def _failed(work: Operation, progress: _Progress, error: Exception) -> Fact:
    kind = UpdateFailed if work.activity is Activity.UPDATE else PullFailed
    return kind(
        kind=kind_of(error),
        message=message_of(error),
        completed_bytes=progress.completed_bytes,
        total_bytes=progress.total_bytes,
    )


def _visible_state(progress: PullProgress) -> tuple[object, ...]:
    """Return the part of the progress that a stalled stream repeats."""
    return (
        progress.status,
        progress.digest,
        progress.fetched_bytes,
        progress.total_bytes,
    )
