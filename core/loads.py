"""Loading into memory, unloading, deleting: asked for, then seen at the runners.

The server's 200 is no proof: a load shows among the runners, an unload leaves
them, and only what was seen is recorded as done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from herdbook.core.acting import operation
from herdbook.core.drift import runner_for, same_runner
from herdbook.core.errors import (
    BusyServerError,
    CapabilityMissingError,
    HerdbookError,
    IllegalTransitionError,
    LoadFailedError,
    LoadFailure,
    ModelNotFoundError,
    NodeTimeoutError,
    NodeUnreachableError,
    kind_of,
)
from herdbook.core.logs import Logger
from herdbook.core.means import Means
from herdbook.core.operations import Ending, Operation, finish
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
from herdbook.events.lifecycle import ModelState
from herdbook.events.recorded import Cause
from herdbook.projections.status import ModelStatus

_log = Logger("herdbook.loads")


class Unloading(StrEnum):
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

    def __init__(self, means: Means) -> None:
        self._register = means.register
        self._client = means.client
        self._reconciler = means.reconciler
        self._instance = means.instance
        self._clock = means.clock
        self._settings = means.settings

    async def load(self, work: Operation, request: LoadRequest) -> None:
        """Load a present model; its operation records how that ends.

        Raises:
            HerdbookError: The server could not; recorded as ``LoadFailed``.
        """
        with operation(model=work.name):
            try:
                await self._load(work.name, request)
            except asyncio.CancelledError:
                stopped = self._stopped(work)
                await finish(self._record_end(work.name, stopped, by=work.ended_by))
                raise
            except (NodeUnreachableError, NodeTimeoutError):
                # The node is lost; that is no error of the model.
                interrupted = LoadInterrupted(instance=self._instance)
                await finish(self._record_end(work.name, interrupted))
                raise
            except HerdbookError as error:
                failed = LoadFailed(kind=kind_of(error), message=str(error))
                await finish(self._record_end(work.name, failed))
                await self._see_what_is_left(work.name, request, failed)
                raise

    async def _load(self, name: str, request: LoadRequest) -> None:
        started = self._clock.monotonic()
        loaded = self._status(name).state is ModelState.LOADED
        if not loaded:
            asked = self._asked(request)
            await self._register.record(name, [asked], cause=request.cause)
        # With other options its runner leaves, and another comes.
        with self._reconciler.leaving(*(self._sharing(name) if loaded else ())):
            await self._see_it_loaded(name, request, started)

    def _asked(self, request: LoadRequest) -> LoadStarted:
        return LoadStarted(
            instance=self._instance,
            options=dict(request.options),
            keep_alive=request.keep_alive,
        )

    async def _see_it_loaded(
        self, name: str, request: LoadRequest, started: float
    ) -> None:
        await self._ask_to_load(name, request)
        runner = await self._appeared(name)
        took = self._clock.monotonic() - started
        await finish(self._record_loaded(name, runner, took, request.cause))

    async def _ask_to_load(self, name: str, request: LoadRequest) -> None:
        """Ask until the server has room in its queue, waiting longer each time."""
        wait_s = self._settings.busy_wait_s
        for _ in range(self._settings.busy_retries):
            try:
                return await self._ask_once(name, request)
            except BusyServerError:
                _log.info("server_busy", model=name, wait_s=wait_s)
            await self._clock.sleep(wait_s)
            wait_s *= 2
        return await self._ask_once(name, request)

    async def _ask_once(self, name: str, request: LoadRequest) -> None:
        """Ask as what the model is; one taken for the wrong kind is asked again."""
        embedding = self._status(name).can("embedding")
        for kind in (embedding, True):
            try:
                async with self._clock.timeout(self._settings.silent_within_s):
                    return await self._client.load(
                        name,
                        options=request.options,
                        keep_alive=request.keep_alive,
                        embedding=kind,
                    )
            except TimeoutError:
                seconds = self._settings.silent_within_s
                raise LoadFailedError(
                    name,
                    failure=LoadFailure.OTHER,
                    raw=f"the server did not answer within {seconds:g} s",
                ) from None
            except CapabilityMissingError:
                if kind:
                    raise
        return None

    async def _appeared(self, name: str) -> Runner:
        """Return the runner of a model that the server says is loaded."""
        deadline = self._clock.monotonic() + self._settings.runner_within_s
        while True:
            runner = await self._runner(name)
            if runner is not None:
                return runner
            if self._clock.monotonic() >= deadline:
                raise LoadFailedError(
                    name,
                    failure=LoadFailure.OTHER,
                    raw="the server says it is, but no runner of it is in memory",
                )
            await self._clock.sleep(self._settings.poll_every_s)

    async def _runner(self, name: str) -> Runner | None:
        status = self._status(name)
        runners = [entry.runner for entry in await self._client.ps()]
        return runner_for(
            status,
            status.weights,
            runners,
            self._register.views.status.weights_of,
        )

    async def _record_loaded(
        self, name: str, runner: Runner, took: float, cause: Cause
    ) -> None:
        await self._register.catch_up()
        status = self._status(name)
        if status.state is not ModelState.LOADED:
            fact: Fact = ModelLoaded(runner=runner, duration_s=round(took, 3))
        elif status.runner is None or not same_runner(status.runner, runner):
            fact = RunnerChanged(runner=runner)
        else:
            return
        await self._register.record(name, [fact], cause=cause)

    def _stopped(self, work: Operation) -> Fact:
        if work.ending is Ending.INTERRUPTED:
            return LoadInterrupted(instance=self._instance)
        return LoadCancelled()

    async def _record_end(
        self, name: str, fact: Fact, *, by: str | None = None
    ) -> None:
        """Record how our load ended early, if it is still under way in the log."""
        await self._register.catch_up()
        status = self._status(name)
        if status.work is not None and status.work.instance == self._instance:
            await self._register.record(name, [fact], cause=Cause.COMMAND, actor=by)

    async def _see_what_is_left(
        self, name: str, request: LoadRequest, failed: LoadFailed
    ) -> None:
        """Record that a runner made way for one that never came, if it did."""
        loaded = self._status(name).state is ModelState.LOADED
        if loaded and await self._runner(name) is None:
            gone = ModelUnloaded(reason=UnloadReason.REQUESTED)
            facts = [gone, self._asked(request), failed]
            await finish(self._record(name, facts, request.cause))

    async def _record(self, name: str, facts: Sequence[Fact], cause: Cause) -> None:
        await self._register.record(name, facts, cause=cause)

    async def unload(self, name: str) -> Unloading:
        """Unload a model, and every other name of its weights with it.

        Returns:
            ``DEFERRED`` if a request still runs: the server unloads it after that.

        Raises:
            OllamaError: The server could not be asked.
        """
        sharing = self._sharing(name)
        with operation(model=name), self._reconciler.leaving(*sharing):
            runner = await self._runner(name)
            if runner is None:
                return Unloading.NOT_LOADED
            await self._client.unload(name)
            if not await self._disappeared(name):
                self._reconciler.asked_to_leave(runner.digest)
                return Unloading.DEFERRED
            await finish(self._record_unloaded(name, sharing))
        return Unloading.UNLOADED

    def _sharing(self, name: str) -> list[str]:
        """Return the names of its weights, its own among them."""
        weights = self._status(name).weights
        return [
            status.name
            for status in self._register.statuses()
            if status.name == name or (weights and status.weights == weights)
        ]

    async def _disappeared(self, name: str) -> bool:
        deadline = self._clock.monotonic() + self._settings.unload_within_s
        while await self._runner(name) is not None:
            if self._clock.monotonic() >= deadline:
                return False
            await self._clock.sleep(self._settings.poll_every_s)
        return True

    async def _record_unloaded(self, name: str, sharing: list[str]) -> None:
        await self._register.catch_up()
        fact = ModelUnloaded(reason=UnloadReason.REQUESTED)
        for other in sharing:
            if self._status(other).state is ModelState.LOADED:
                cause = Cause.COMMAND if other == name else Cause.SHARED
                await self._register.record(other, [fact], cause=cause)

    async def delete(self, name: str) -> None:
        """Delete a model; unload it first, unless others still need its runner.

        The server cannot unload what it no longer knows: its memory would be
        held by nobody until keep-alive ends.

        Raises:
            OllamaError: The server could not.
        """
        status = self._status(name)
        if not status.present:  # a pull failed: only the log knows of it
            await self._record_deleted(name, ModelDeleted())
            return
        with operation(model=name), self._reconciler.leaving(name):
            if self._sharing(name) == [name] and not status.remote_host:
                await self.unload(name)
            await self._client.delete(name)
            deleted = ModelDeleted(digest=status.digest, size_bytes=status.size_bytes)
            await finish(self._record_deleted(name, deleted))

    async def _record_deleted(self, name: str, deleted: ModelDeleted) -> None:
        await self._register.catch_up()
        if self._status(name).state is ModelState.NOT_PRESENT:
            return
        try:
            await self._register.record(name, [deleted], cause=Cause.COMMAND)
        except IllegalTransitionError:
            # Another instance saw in that moment that it is gone, and recorded that.
            if self._status(name).state is not ModelState.NOT_PRESENT:
                raise

    def _status(self, name: str) -> ModelStatus:
        status = self._register.status(name)
        if status is None:
            raise ModelNotFoundError(name, where="the log")
        return status
