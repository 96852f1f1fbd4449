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
from typing import Final

import msgspec

from herdbook.core.actor import operation
from herdbook.core.errors import (
    BusyServerError,
    CapabilityMissingError,
    HerdbookError,
    LoadFailedError,
    LoadFailure,
    ModelDamagedError,
    ModelNotFoundError,
    NodeTimeoutError,
    NodeUnreachableError,
    kind_of,
    message_of,
)
from herdbook.core.logging import Logger
from herdbook.core.ollama.entries import Listing
from herdbook.core.ollama.wire import RunnerEntry
from herdbook.core.operations.context import OperationContext
from herdbook.core.operations.operations import Ending, Operation
from herdbook.core.operations.other_instances import busy_with
from herdbook.core.reconcile.drift import runner_for, same_runner
from herdbook.core.reconcile.unreadable_entries import may_hide_runner
from herdbook.events.facts import (
    Fact,
    KeepAliveRenewed,
    LoadCancelled,
    LoadFailed,
    LoadInterrupted,
    LoadStarted,
    ModelDeleted,
    ModelLoaded,
    ModelUnloaded,
    Runner,
    RunnerChanged,
    Setting,
    UnloadReason,
)
from herdbook.events.lifecycle import Activity, ModelState
from herdbook.events.recorded import Cause
from herdbook.events.shared.cancellation import finish
from herdbook.projections.status import ModelStatus

_log = Logger("herdbook.loads")


SETTLING_READS: Final = 5
SETTLING_S: Final = 0.01
"""Reads of the expiry of a loaded runner until it is settled, and the wait between."""


class UnloadResult(StrEnum):
    """Result of an unload.

    ``DEFERRED``: a request still uses the model; the server unloads it after that.
    """

    UNLOADED = "unloaded"
    DEFERRED = "deferred"
    NOT_LOADED = "not_loaded"


class LoadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of a load.

    Attributes:
        options: Options for the server, such as ``num_ctx``.
        keep_alive: How long the model stays loaded; None uses the server's default.
        cause: Cause of the recorded events.
    """

    options: Mapping[str, Setting] = {}
    keep_alive: str | int | float | None = None
    cause: Cause = Cause.COMMAND


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
                Failures of the server are recorded as ``LoadFailed``.
        """
        async with (
            self._context.recording_end(
                work, stopped=lambda: self._stopped(work), failed=self._failed
            ),
            self._turn(work.name),
        ):
            reloads = await self._record_start(work.name, request)
            try:
                async with self._context.cancellable_elsewhere(work):
                    await self._load(work.name, request, reloads=reloads)
            except Exception as error:
                fact = self._failed(error)
                if reloads and isinstance(fact, LoadFailed):
                    await self._record_lost_runner(work.name, request, fact)
                raise

    def _failed(self, error: Exception) -> LoadFailed | LoadInterrupted:
        """Return the fact for an error. A lost node is not a failure of the model."""
        if isinstance(error, NodeUnreachableError | NodeTimeoutError):
            return LoadInterrupted(instance=self._instance)
        return LoadFailed(kind=kind_of(error), message=message_of(error))

    async def _record_start(self, name: str, request: LoadRequest) -> bool:
        """Record the start of a load, unless the model is loaded.

        Returns:
            Whether it is loaded, so that other options will reload it.

        Raises:
            ModelNotFoundError: The server no longer has the model.
            BusyError: Another instance uses it.
        """

        def decide(status: ModelStatus | None) -> Sequence[Fact]:
            if status is None or not status.present:
                raise ModelNotFoundError(name, where=f"node {self._repository.node}")
            if status.work is not None:
                raise busy_with(name, status.work)
            loaded = status.state is ModelState.LOADED
            return () if loaded else (self._load_started(request),)

        started = await self._repository.decide(name, decide, cause=request.cause)
        return not started

    async def _load(self, name: str, request: LoadRequest, *, reloads: bool) -> None:
        started = self._clock.monotonic()
        # Other options replace its runner, which other models may share.
        async with self._changes.changing(*(self._sharing(name) if reloads else ())):
            await self._confirm_load(name, request, started)

    def _load_started(self, request: LoadRequest) -> LoadStarted:
        return LoadStarted(
            instance=self._instance,
            options=dict(request.options),
            keep_alive=request.keep_alive,
        )

    async def _confirm_load(
        self, name: str, request: LoadRequest, started: float
    ) -> None:
        await self._request_load(name, request)
        runner = await self._wait_for_runner(name)
        if runner is None:
            # Another load may have evicted it before it was seen. That does not mean
            # that this model cannot be loaded, so try once more.
            _log.info("load_repeated", model=name)
            await self._request_load(name, request)
            runner = await self._wait_for_runner(name)
        if runner is None:
            raise LoadFailedError(
                name,
                failure=LoadFailure.OTHER,
                raw="the server reported success, but lists no runner for it",
            )
        duration_s = self._clock.monotonic() - started
        runner = await self._settled(name, runner)
        await finish(self._record_loaded(name, runner, duration_s, request))

    async def _settled(self, name: str, runner: Runner) -> Runner:
        """Return the runner once its expiry is that of the load.

        The server sets it shortly after its answer. An older one would make a refresh
        take this load for a use by another program.
        """
        status = self._status(name)
        before = status.runner.expires_at if status.runner else None
        for _ in range(SETTLING_READS):
            again = await self._runner(name)
            if again is None:
                break
            settled = again.expires_at == runner.expires_at != before
            runner = again
            if settled:
                break
            await self._clock.sleep(SETTLING_S)
        return runner

    async def _request_load(self, name: str, request: LoadRequest) -> None:
        """Request the load; retry with backoff while the server's queue is full."""
        wait_s = self._settings.busy_wait_s
        for _ in range(self._settings.busy_retries):
            try:
                return await self._request_once(name, request)
            except BusyServerError:
                _log.info("server_busy", model=name, wait_s=wait_s)
            await self._clock.sleep(wait_s)
            wait_s *= 2
        return await self._request_once(name, request)

    async def _request_once(self, name: str, request: LoadRequest) -> None:
        """Request the load once; retry as an embedding model if the server says so."""
        embedding = self._status(name).can("embedding")
        for kind in (embedding, True):
            try:
                async with self._clock.timeout(self._settings.silence_timeout_s):
                    return await self._client.load(
                        name,
                        options=request.options,
                        keep_alive=request.keep_alive,
                        embedding=kind,
                    )
            except TimeoutError:
                seconds = self._settings.silence_timeout_s
                raise LoadFailedError(
                    name,
                    failure=LoadFailure.OTHER,
                    raw=f"the server did not answer within {seconds:g} s",
                ) from None
            except CapabilityMissingError:
                if kind:
                    raise
            except ModelNotFoundError as error:
                # The server also says so if only the model's weights are missing.
                if await self._is_listed(name):
                    raise ModelDamagedError(name, raw=error.raw) from error
                raise
        return None

    async def _is_listed(self, name: str) -> bool:
        listed = await self._client.tags()
        return any(entry.name == name for entry in listed.entries)

    async def _wait_for_runner(self, name: str) -> Runner | None:
        """Return the runner of a loaded model; None if it does not appear in time."""
        deadline = self._clock.monotonic() + self._settings.load_timeout_s
        while True:
            runner = await self._runner(name)
            if runner is not None or self._clock.monotonic() >= deadline:
                return runner
            await self._clock.sleep(self._settings.poll_every_s)

    async def _runner(self, name: str) -> Runner | None:
        return self._runner_in(name, await self._client.ps())

    def _runner_in(self, name: str, there: Listing[RunnerEntry]) -> Runner | None:
        status, weights_of = (
            self._status(name),
            self._repository.views.status.weights_of,
        )
        runners = [entry.runner for entry in there.entries]
        return runner_for(status, status.weights, runners, weights_of)

    async def _is_gone(self, name: str) -> bool:
        """Return whether a model has no runner, not even an unreadable one."""
        there = await self._client.ps()
        weights_of = self._repository.views.status.weights_of
        return self._runner_in(name, there) is None and not may_hide_runner(
            there.unreadable, self._status(name), weights_of
        )

    async def _record_loaded(
        self, name: str, runner: Runner, duration_s: float, request: LoadRequest
    ) -> None:
        def decide(status: ModelStatus | None) -> Sequence[Fact]:
            if status is None or not status.present:
                return ()  # deleted meanwhile, which is recorded
            if status.state is not ModelState.LOADED:
                return (ModelLoaded(runner=runner, duration_s=round(duration_s, 3)),)
            if status.runner is None or not same_runner(status.runner, runner):
                return (RunnerChanged(runner=runner),)
            expires_at = runner.expires_at
            if expires_at is None or expires_at == status.runner.expires_at:
                return ()
            renewed = KeepAliveRenewed(
                expires_at=expires_at, keep_alive=request.keep_alive
            )
            return (renewed,)

        await self._repository.decide(name, decide, cause=request.cause)

    def _stopped(self, work: Operation) -> Fact:
        if work.ending is Ending.INTERRUPTED:
            return LoadInterrupted(instance=self._instance)
        return LoadCancelled()

    async def _record_lost_runner(
        self, name: str, request: LoadRequest, failed: LoadFailed
    ) -> None:
        """Record that a failed reload has unloaded the previous runner, if it has."""
        try:
            still_loaded = not await self._is_gone(name)
        except (
            HerdbookError
        ) as error:  # the load failure matters more; a refresh follows
            _log.warning("runner_not_seen", model=name, reason=str(error))
            return

        def decide(status: ModelStatus | None) -> Sequence[Fact]:
            if still_loaded or status is None or status.state is not ModelState.LOADED:
                return ()
            unloaded = ModelUnloaded(
                reason=UnloadReason.REQUESTED if status.runner else UnloadReason.UNKNOWN
            )
            return unloaded, self._load_started(request), failed

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
                runner = await self._runner(name)
                if runner is None:
                    return UnloadResult.NOT_LOADED
                await self._client.unload(name)
                if not await self._wait_until_gone(name):
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

    async def _wait_until_gone(self, name: str) -> bool:
        deadline = self._clock.monotonic() + self._settings.unload_timeout_s
        while not await self._is_gone(name):
            if self._clock.monotonic() >= deadline:
                return False
            await self._clock.sleep(self._settings.poll_every_s)
        return True

    async def _record_unloaded(self, name: str, versions: Mapping[str, int]) -> None:
        """Record the unload for each model that used the runner.

        Args:
            name: The model that was unloaded.
            versions: Models that share its weights, with the version of each stream
                before the unload. Later events of other instances may be a new load.
        """
        await self._repository.catch_up()
        for other, version in versions.items():
            if self._repository.version(other) != version and await self._runner(other):
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
