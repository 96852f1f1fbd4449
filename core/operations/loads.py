"""Load, unload and delete models, and confirm the effect before recording it.

Status 200 of the server is not enough: a loaded model must appear in the server's list
of runners, and an unloaded one must disappear from it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum

from herdbook.core.actor import operation
from herdbook.core.errors import (
    HerdbookError,
    ModelNotFoundError,
    NodeTimeoutError,
    NodeUnreachableError,
    kind_of,
    message_of,
)
from herdbook.core.logging import Logger
from herdbook.core.operations.context import OperationContext
from herdbook.core.operations.operations import Ending, Operation
from herdbook.core.operations.other_instances import busy_with
from herdbook.core.operations.runners import LoadRequest, Runners
from herdbook.core.reconcile.drift import same_runner
from herdbook.core.reconcile.recovery import interrupted_fact
from herdbook.events.facts import (
    Fact,
    FactSource,
    KeepAliveRenewed,
    LoadCancelled,
    LoadFailed,
    LoadStarted,
    ModelDeleted,
    ModelLoaded,
    ModelUnloaded,
    ReloadCancelled,
    ReloadCompleted,
    ReloadFailed,
    ReloadStarted,
    ReloadUnchanged,
    Runner,
    RunnerChanged,
    UnloadReason,
)
from herdbook.events.lifecycle import Activity, ModelState
from herdbook.events.recorded import Cause
from herdbook.events.shared.cancellation import end, finish
from herdbook.projections.status import ModelStatus, Work

_log = Logger("herdbook.loads")


class UnloadResult(StrEnum):
    """Result of an unload.

    ``DEFERRED``: a request still uses the model; the server unloads it after that.
    """

    UNLOADED = "unloaded"
    DEFERRED = "deferred"
    NOT_LOADED = "not_loaded"


class Loader:
    """Load, unload and delete the models of one node."""

    def __init__(self, context: OperationContext) -> None:
        self._context = context
        self._repository = context.repository
        self._client = context.client
        self._reconciler = context.reconciler
        self._changes = context.changes
        self._instance = context.instance
        self._clock = context.clock
        self._settings = context.settings
        self._runners = Runners(context)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def _turn(self, name: str, *others: str) -> AsyncIterator[None]:
        """Wait for running commands on a model, here and in other instances.

        Models that share weights share a runner, so they take turns as well.

        Raises:
            BusyError: Another instance still uses the model after the time that an
                unload may take.
        """
        within_s = self._settings.unload_timeout_s
        async with (
            self._turns[self._status(name).weights or name],
            self._changes.turn(name, *others, within_s=within_s),
        ):
            await self._repository.catch_up()
            yield

    async def load(self, work: Operation, request: LoadRequest) -> None:
        """Load a present model and record how that ends.

        Raises:
            HerdbookError: The model cannot be loaded, or another instance uses it.
                Failures of the server are recorded as ``LoadFailed`` or
                ``ReloadFailed``.
        """
        work.waiting = True
        async with (
            self._context.recording_end(
                work,
                stopped=lambda recorded: self._stopped(work, recorded),
                failed=self._failed,
            ),
            self._turn(work.name),
        ):
            work.waiting = False
            is_loaded = await self._record_start(work, request)
            async with self._context.cancellable_elsewhere(work):
                if is_loaded:
                    await self._reload(work, request)
                else:
                    await self._load(work, request)

    def _failed(self, recorded: Work, error: Exception) -> Fact:
        """Return the fact for an error. A lost node is not a failure of the model."""
        if _is_node_lost(error):
            return interrupted_fact(recorded)
        reload = recorded.activity is Activity.RELOAD
        failed = ReloadFailed if reload else LoadFailed
        return failed(kind=kind_of(error), message=message_of(error))

    async def _record_start(self, work: Operation, request: LoadRequest) -> bool:
        """Record the start of a load, or of a reload if the options show it.

        Returns:
            Whether the model is loaded.

        Raises:
            ModelNotFoundError: The server no longer has the model.
            BusyError: Another instance uses it.
        """
        name = work.name

        def decide(status: ModelStatus | None) -> Sequence[Fact]:
            if status is None or not status.present:
                raise ModelNotFoundError(name, where=f"node {self._repository.node}")
            if status.work is not None:
                raise busy_with(name, status.work)
            if status.state is not ModelState.LOADED:
                return (self._started(LoadStarted, request),)
            needed = _needs_other_context(status, request)
            return (self._started(ReloadStarted, request),) if needed else ()

        recorded = await self._repository.decide(name, decide, cause=request.cause)
        if recorded and isinstance(recorded[0].data, LoadStarted):
            return False
        if recorded:
            work.activity = Activity.RELOAD
        return True

    async def _load(self, work: Operation, request: LoadRequest) -> None:
        started = self._clock.monotonic()
        runner = await self._runners.load(work.name, request)
        duration_s = self._clock.monotonic() - started
        runner = await self._runners.settled(work.name, runner)
        await finish(self._record_loaded(work, runner, duration_s, request))

    async def _reload(self, work: Operation, request: LoadRequest) -> None:
        """Load a loaded model: its runner is replaced if the options require it."""
        started = self._clock.monotonic()
        # Models of the same weights share the runner.
        async with self._changes.changing(*self._sharing(work.name)):
            try:
                async with self._recorded_if_slow(work, request):
                    runner = await self._runners.load(work.name, request)
                duration_s = self._clock.monotonic() - started
                runner = await self._runners.settled(work.name, runner)
            except Exception as error:
                if not _is_node_lost(error):
                    await self._record_failed_reload(work, request, error)
                raise
            await finish(self._record_loaded(work, runner, duration_s, request))

    @asynccontextmanager
    async def _recorded_if_slow(
        self, work: Operation, request: LoadRequest
    ) -> AsyncIterator[None]:
        """Record the start of a reload if the block takes longer than usual.

        A load that changes nothing is frequent and takes milliseconds.
        """
        if work.activity is Activity.RELOAD:
            yield
            return
        recording = asyncio.create_task(
            self._record_slow_reload(work, request),
            name=f"herdbook slow reload {work.name}",
        )
        try:
            yield
        finally:
            await end(recording)

    async def _record_slow_reload(self, work: Operation, request: LoadRequest) -> None:
        await self._clock.sleep(self._settings.reload_recorded_after_s)
        await finish(self._record_reload_started(work, request))

    async def _record_reload_started(
        self, work: Operation, request: LoadRequest
    ) -> None:
        def decide(status: ModelStatus | None) -> Sequence[Fact]:
            free = status is not None and status.work is None
            loaded = status is not None and status.state is ModelState.LOADED
            return (self._started(ReloadStarted, request),) if free and loaded else ()

        try:
            recorded = await self._repository.decide(
                work.name, decide, cause=request.cause
            )
        except HerdbookError as error:  # the reload itself continues
            _log.warning("reload_not_recorded", model=work.name, reason=str(error))
            return
        if recorded:
            work.activity = Activity.RELOAD

    def _started(
        self, kind: type[LoadStarted | ReloadStarted], request: LoadRequest
    ) -> Fact:
        return kind(
            instance=self._instance,
            options=dict(request.options),
            keep_alive=request.keep_alive,
        )

    async def _record_loaded(
        self, work: Operation, runner: Runner, duration_s: float, request: LoadRequest
    ) -> None:
        took_s = round(duration_s, 3)

        def decide(status: ModelStatus | None) -> Sequence[Fact]:
            if status is None or not status.present:
                return ()  # deleted meanwhile, which is recorded
            if status.state is not ModelState.LOADED:
                return (ModelLoaded(runner=runner, duration_s=took_s),)
            before = status.runner
            changed = before is None or not same_runner(before, runner)
            expires_at = runner.expires_at
            reloaded = ReloadCompleted(runner=runner, duration_s=took_s)
            if self._context.is_running_here(work):
                unchanged = ReloadUnchanged(expires_at=expires_at, duration_s=took_s)
                return (reloaded,) if changed else (unchanged,)
            if before is None:  # used, but not seen since
                return (RunnerChanged(runner=runner),)
            if changed:
                return self._started(ReloadStarted, request), reloaded
            if expires_at is None or expires_at == before.expires_at:
                return ()
            renewed = KeepAliveRenewed(
                expires_at=expires_at, keep_alive=request.keep_alive
            )
            return (renewed,)

        await self._repository.decide(work.name, decide, cause=request.cause)

    def _stopped(self, work: Operation, recorded: Work) -> Fact:
        if work.ending is Ending.INTERRUPTED:
            return interrupted_fact(recorded)
        reload = recorded.activity is Activity.RELOAD
        return ReloadCancelled() if reload else LoadCancelled()

    async def _record_failed_reload(
        self, work: Operation, request: LoadRequest, error: Exception
    ) -> None:
        """Record a failed reload, and whether the previous runner was lost."""
        name, kind, message = work.name, kind_of(error), message_of(error)
        try:
            lost = await self._runners.is_gone(name)
        except HerdbookError as unseen:  # a refresh follows
            _log.warning("runner_not_seen", model=name, reason=str(unseen))
            lost = False

        def decide(status: ModelStatus | None) -> Sequence[Fact]:
            if status is None or status.state is not ModelState.LOADED:
                return ()
            if lost:
                seen = status.runner is not None
                reason = UnloadReason.REQUESTED if seen else UnloadReason.UNKNOWN
                return (
                    ModelUnloaded(reason=reason),
                    self._started(LoadStarted, request),
                    LoadFailed(kind=kind, message=message),
                )
            failed = ReloadFailed(kind=kind, message=message)
            if self._context.is_running_here(work):
                return (failed,)
            return self._started(ReloadStarted, request), failed

        await finish(self._repository.decide(name, decide, cause=request.cause))

    async def unload(self, name: str) -> UnloadResult:
        """Unload a model, and with it all models that share its weights.

        Raises:
            OllamaError: The server cannot be reached or refuses.
        """
        async with self._turn(name, *self._sharing(name)):
            return await self._unload(name)

    async def _unload(self, name: str) -> UnloadResult:
        sharing = self._sharing(name)
        with operation(model=name):
            async with self._changes.changing(*sharing):
                versions = {other: self._repository.version(other) for other in sharing}
                runner = await self._runners.of(name)
                if runner is None:
                    return UnloadResult.NOT_LOADED
                await self._client.unload(name)
                if not await self._runners.wait_until_gone(name):
                    self._reconciler.note_unload_requests(runner.digest)
                    return UnloadResult.DEFERRED
                await finish(self._record_unloaded(name, versions))
        return UnloadResult.UNLOADED

    def _sharing(self, name: str) -> list[str]:
        """Return the models with the same weights, including this one."""
        own = self._status(name)
        return [
            status.name
            for status in self._repository.statuses()
            if status.name == name or status.shares_weights_with(own)
        ]

    async def _record_unloaded(self, name: str, versions: Mapping[str, int]) -> None:
        """Record the unload for each model that used the runner.

        Args:
            name: The model that was unloaded.
            versions: Models that share its weights, with the version of each stream
                before the unload. Later events of other instances may be a new load.
        """
        await self._repository.catch_up()
        for other, version in versions.items():
            if self._repository.version(other) != version and await self._runners.of(
                other
            ):
                continue
            await self._reconciler.uses.record_ended(other)

            def decide(status: ModelStatus | None) -> Sequence[Fact]:
                loaded = status is not None and status.state is ModelState.LOADED
                unloaded = ModelUnloaded(reason=UnloadReason.REQUESTED)
                return (unloaded,) if loaded else ()

            cause = Cause.COMMAND if other == name else Cause.SHARED
            await self._repository.decide(other, decide, cause=cause)

    async def delete(self, name: str) -> None:
        """Delete a model; unload it first, unless other models share its runner.

        The server cannot unload a model that it no longer has: its memory would stay
        in use until keep-alive expires.

        Raises:
            ModelNotFoundError: The server no longer has the model.
            OllamaError: The server cannot delete it.
        """
        async with self._turn(name):
            await self._delete(name)

    async def _delete(self, name: str) -> None:
        status = self._status(name)
        if not status.present:  # a pull failed: only the log knows of it
            await self._record_deleted(name, ModelDeleted())
            return
        with operation(model=name):
            if self._sharing(name) == [name] and not status.remote_host:
                await self._unload(name)
            await self._client.delete(name)
            deleted = ModelDeleted(digest=status.digest, size_bytes=status.size_bytes)
            await finish(self._record_deleted(name, deleted))

    async def _record_deleted(self, name: str, deleted: ModelDeleted) -> None:
        """Record a deletion, unless another instance has recorded that it is gone."""

        def decide(status: ModelStatus | None) -> Sequence[Fact]:
            gone = status is None or status.state is ModelState.NOT_PRESENT
            # Another instance pulls it again, and has recorded that it was gone.
            pulled = status is not None and status.activity is Activity.PULL
            return () if gone or pulled else (deleted,)

        await self._reconciler.uses.record_ended(name)
        await self._repository.decide(name, decide, cause=Cause.COMMAND)

    def _status(self, name: str) -> ModelStatus:
        status = self._repository.status(name)
        if status is None:
            raise ModelNotFoundError(name, where="the log")
        return status


def _is_node_lost(error: Exception) -> bool:
    return isinstance(error, NodeUnreachableError | NodeTimeoutError)


def _needs_other_context(status: ModelStatus, request: LoadRequest) -> bool:
    """Return whether a load needs another context than the runner of the model has.

    The server reduces a context that is larger than the trained one.
    """
    tokens = request.options.get("num_ctx", status.context_default)
    current = status.context_in_effect
    if not isinstance(tokens, int) or not current:
        return False
    trained = status.context_trained
    known = trained and status.context_source is not FactSource.DEFAULT
    return (min(tokens, trained) if known and trained else tokens) != current
