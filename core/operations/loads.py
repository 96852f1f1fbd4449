"""Loading into memory, unloading, deleting: asked for, then seen at the runners.

The server's 200 is no proof: a load shows among the runners, an unload leaves
them, and only what was seen is recorded as done.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum

import msgspec

from herdbook.core.actor import operation
from herdbook.core.concurrency.cancellation import finish
from herdbook.core.errors import (
    BusyServerError,
    CapabilityMissingError,
    HerdbookError,
    LoadFailedError,
    LoadFailure,
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
from herdbook.core.reconcile.hiding import may_hide_runner
from herdbook.events.facts import (
    Fact,
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
from herdbook.projections.status import ModelStatus

_log = Logger("herdbook.loads")


class UnloadResult(StrEnum):
    """How an unload went."""

    UNLOADED = "unloaded"
    DEFERRED = "deferred"
    NOT_LOADED = "not_loaded"


class LoadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is to be loaded with.

    Attributes:
        options: Options of the server, ``num_ctx`` among them.
        keep_alive: How long it is to stay; None leaves it to the server.
        cause: Why it is loaded.
    """

    options: Mapping[str, Setting] = {}
    keep_alive: str | int | float | None = None
    cause: Cause = Cause.COMMAND


class Loader:
    """Loads, unloads and deletes the models of one node."""

    def __init__(self, context: OperationContext) -> None:
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
        """Wait for the commands on a model that are under way, here and elsewhere.

        Names that share weights share a runner, so they take turns as well.

        Raises:
            BusyError: Another instance is at work on it for longer than an unload
                may take.
        """
        within_s = self._settings.unload_timeout_s
        async with (
            self._turns[self._status(name).weights or name],
            self._changes.turn(name, *others, within_s=within_s),
        ):
            await self._repository.catch_up()
            yield

    async def load(self, work: Operation, request: LoadRequest) -> None:
        """Load a present model; its operation records how that ends.

        Raises:
            HerdbookError: It cannot be loaded, or another instance is at work on it;
                what the server could not do is recorded as ``LoadFailed``.
        """
        reloads = False
        with operation(model=work.name):
            try:
                async with self._turn(work.name):
                    reloads = await self._begin(work.name, request)
                    await self._load(work.name, request, reloads=reloads)
            except asyncio.CancelledError:
                stopped = self._stopped(work)
                await finish(self._record_end(work.name, stopped, by=work.ended_by))
                raise
            except (NodeUnreachableError, NodeTimeoutError):
                # The node is lost; that is no error of the model.
                interrupted = LoadInterrupted(instance=self._instance)
                await finish(self._record_end(work.name, interrupted))
                raise
            except Exception as error:
                # Whatever it is: a model must not stay busy with no one at work.
                failed = LoadFailed(kind=kind_of(error), message=message_of(error))
                await finish(self._record_end(work.name, failed))
                if reloads:
                    await self._record_lost_runner(work.name, request, failed)
                raise

    async def _begin(self, name: str, request: LoadRequest) -> bool:
        """Record that a load starts, unless the model is loaded.

        Returns:
            Whether it is loaded, and so will be reloaded if the options differ.

        Raises:
            ModelNotFoundError: The server has it no more.
            BusyError: Another instance is at work on it.
        """

        def decide(status: ModelStatus | None) -> Sequence[Fact]:
            if status is None or not status.present:
                raise ModelNotFoundError(name, where=self._repository.node)
            if status.work is not None:
                raise busy_with(name, status.work)
            loaded = status.state is ModelState.LOADED
            return () if loaded else (self._load_started(request),)

        started = await self._repository.decide(name, decide, cause=request.cause)
        return not started

    async def _load(self, name: str, request: LoadRequest, *, reloads: bool) -> None:
        started = self._clock.monotonic()
        # With other options its runner leaves, and another comes.
        with self._changes.changing(*(self._sharing(name) if reloads else ())):
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
            # Another load took its place before it was seen: that is no failure of
            # this model, so the load is decided anew.
            _log.info("load_repeated", model=name)
            await self._request_load(name, request)
            runner = await self._wait_for_runner(name)
        if runner is None:
            raise LoadFailedError(
                name,
                failure=LoadFailure.OTHER,
                raw="the server says it is, but no runner of it is in memory",
            )
        took = self._clock.monotonic() - started
        await finish(self._record_loaded(name, runner, took, request.cause))

    async def _request_load(self, name: str, request: LoadRequest) -> None:
        """Ask until the server has room in its queue, waiting longer each time."""
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
        """Ask as what the model is; one taken for the wrong kind is asked again."""
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
        return None

    async def _wait_for_runner(self, name: str) -> Runner | None:
        """Return the runner of a model that the server says is loaded, if it shows."""
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
        """Return whether no runner of a model is in memory, as far as can be read."""
        there = await self._client.ps()
        weights_of = self._repository.views.status.weights_of
        return self._runner_in(name, there) is None and not may_hide_runner(
            there.unreadable, self._status(name), weights_of
        )

    async def _record_loaded(
        self, name: str, runner: Runner, took: float, cause: Cause
    ) -> None:
        def decide(status: ModelStatus | None) -> Sequence[Fact]:
            if status is None or not status.present:
                return ()  # deleted meanwhile, and that is recorded
            if status.state is not ModelState.LOADED:
                return (ModelLoaded(runner=runner, duration_s=round(took, 3)),)
            same = status.runner is not None and same_runner(status.runner, runner)
            return () if same else (RunnerChanged(runner=runner),)

        await self._repository.decide(name, decide, cause=cause)

    def _stopped(self, work: Operation) -> Fact:
        if work.ending is Ending.INTERRUPTED:
            return LoadInterrupted(instance=self._instance)
        return LoadCancelled()

    async def _record_end(
        self, name: str, fact: Fact, *, by: str | None = None
    ) -> None:
        """Record how our load ended early, if it is still under way in the log."""

        def decide(status: ModelStatus | None) -> Sequence[Fact]:
            work = status.work if status else None
            return (fact,) if work and work.instance == self._instance else ()

        await self._repository.decide(name, decide, cause=Cause.COMMAND, actor=by)

    async def _record_lost_runner(
        self, name: str, request: LoadRequest, failed: LoadFailed
    ) -> None:
        """Record that a runner made way for one that never came, if it did."""
        try:
            left = not await self._is_gone(name)
        except HerdbookError as error:  # the failure itself counts; a refresh follows
            _log.warning("runner_not_seen", model=name, reason=str(error))
            return

        def decide(status: ModelStatus | None) -> Sequence[Fact]:
            if left or status is None or status.state is not ModelState.LOADED:
                return ()
            gone = ModelUnloaded(
                reason=UnloadReason.REQUESTED if status.runner else UnloadReason.UNKNOWN
            )
            return gone, self._load_started(request), failed

        await finish(self._repository.decide(name, decide, cause=request.cause))

    async def unload(self, name: str) -> UnloadResult:
        """Unload a model, and every other name of its weights with it.

        Returns:
            ``DEFERRED`` if a request still runs: the server unloads it after that.

        Raises:
            OllamaError: The server could not be asked.
        """
        async with self._turn(name, *self._sharing(name)):
            return await self._unload(name)

    async def _unload(self, name: str) -> UnloadResult:
        sharing = self._sharing(name)
        with operation(model=name), self._changes.changing(*sharing):
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
        """Return the names of its weights, its own among them."""
        weights = self._status(name).weights
        return [
            status.name
            for status in self._repository.statuses()
            if status.name == name or (weights and status.weights == weights)
        ]

    async def _wait_until_gone(self, name: str) -> bool:
        deadline = self._clock.monotonic() + self._settings.unload_timeout_s
        while not await self._is_gone(name):
            if self._clock.monotonic() >= deadline:
                return False
            await self._clock.sleep(self._settings.poll_every_s)
        return True

    async def _record_unloaded(self, name: str, versions: Mapping[str, int]) -> None:
        """Record that a runner left, for each model that was loaded in it.

        Args:
            name: The model that was unloaded.
            versions: All names of its weights, each with the version that its stream
                had before. What another instance has recorded since may be a new load.
        """
        await self._repository.catch_up()
        for other, version in versions.items():
            if self._repository.version(other) != version and await self._runner(other):
                continue

            def decide(status: ModelStatus | None) -> Sequence[Fact]:
                loaded = status is not None and status.state is ModelState.LOADED
                unloaded = ModelUnloaded(reason=UnloadReason.REQUESTED)
                return (unloaded,) if loaded else ()

            cause = Cause.COMMAND if other == name else Cause.SHARED
            await self._repository.decide(other, decide, cause=cause)

    async def delete(self, name: str) -> None:
        """Delete a model; unload it first, unless others still need its runner.

        The server cannot unload what it no longer knows: its memory would be
        held by nobody until keep-alive ends.

        Raises:
            ModelNotFoundError: The server has it no more.
            OllamaError: The server could not.
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
        """Record a deletion, unless another instance recorded that it is gone."""

        def decide(status: ModelStatus | None) -> Sequence[Fact]:
            gone = status is None or status.state is ModelState.NOT_PRESENT
            # Pulled again by another instance: it is gone, as that pull knows.
            pulled = status is not None and status.activity is Activity.PULL
            return () if gone or pulled else (deleted,)

        await self._repository.decide(name, decide, cause=Cause.COMMAND)

    def _status(self, name: str) -> ModelStatus:
        status = self._repository.status(name)
        if status is None:
            raise ModelNotFoundError(name, where="the log")
        return status
