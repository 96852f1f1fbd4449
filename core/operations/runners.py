"""Ask the server to load a model, and find the runner that serves it.

Status 200 of the server is not enough: a loaded model must appear in the server's list
of runners, and an unloaded one must disappear from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from herdbook.core.errors import (
    BusyServerError,
    CapabilityMissingError,
    LoadFailedError,
    LoadFailure,
    ModelDamagedError,
    ModelNotFoundError,
)
from herdbook.core.logging import Logger
from herdbook.core.ollama.entries import Listing
from herdbook.core.ollama.wire import RunnerEntry
from herdbook.core.operations.context import OperationContext
from herdbook.core.reconcile.drift import runner_for
from herdbook.core.reconcile.unreadable_entries import may_hide_runner
from herdbook.events.facts import Runner, Setting
from herdbook.events.recorded import Cause
from herdbook.projections.status import ModelStatus

_log = Logger("herdbook.loads")

SETTLING_READS: Final = 5
SETTLING_S: Final = 0.01
"""Reads of the expiry of a loaded runner until it is settled, and the wait between."""


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


class Runners:
    """The runners of one node."""

    def __init__(self, context: OperationContext) -> None:
        self._repository = context.repository
        self._client = context.client
        self._clock = context.clock
        self._settings = context.settings

    async def load(self, name: str, request: LoadRequest) -> Runner:
        """Request a load and return the runner that the server lists for it.

        Raises:
            HerdbookError: The server refuses or fails, or lists no runner in time.
        """
        await self._request_load(name, request)
        runner = await self._wait_for(name)
        if runner is None:
            # Another load may have evicted it before it was seen. That does not mean
            # that this model cannot be loaded, so try once more.
            _log.info("load_repeated", model=name)
            await self._request_load(name, request)
            runner = await self._wait_for(name)
        if runner is None:
            raise LoadFailedError(
                name,
                failure=LoadFailure.OTHER,
                raw="the server reported success, but lists no runner for it",
            )
        return runner

    async def settled(self, name: str, runner: Runner) -> Runner:
        """Return the runner once its expiry is that of the load.

        The server sets it shortly after its answer. An older one would make a refresh
        take this load for a use by another program.
        """
        status = self._status(name)
        before = status.runner.expires_at if status.runner else None
        for _ in range(SETTLING_READS):
            again = await self.of(name)
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

    async def _wait_for(self, name: str) -> Runner | None:
        """Return the runner of a loaded model; None if it does not appear in time."""
        deadline = self._clock.monotonic() + self._settings.load_timeout_s
        while True:
            runner = await self.of(name)
            if runner is not None or self._clock.monotonic() >= deadline:
                return runner
            await self._clock.sleep(self._settings.poll_every_s)

    async def of(self, name: str) -> Runner | None:
        """Return the runner of a model; None if the server lists none."""
        return self._runner_in(name, await self._client.ps())

    def _runner_in(self, name: str, there: Listing[RunnerEntry]) -> Runner | None:
        status, weights_of = (
            self._status(name),
            self._repository.views.status.weights_of,
        )
        runners = [entry.runner for entry in there.entries]
        return runner_for(status, status.weights, runners, weights_of)

    async def is_gone(self, name: str) -> bool:
        """Return whether a model has no runner, not even an unreadable one."""
        there = await self._client.ps()
        weights_of = self._repository.views.status.weights_of
        return self._runner_in(name, there) is None and not may_hide_runner(
            there.unreadable, self._status(name), weights_of
        )

    async def wait_until_gone(self, name: str) -> bool:
        """Return whether a model has no runner any more, after the time for unloads."""
        deadline = self._clock.monotonic() + self._settings.unload_timeout_s
        while not await self.is_gone(name):
            if self._clock.monotonic() >= deadline:
                return False
            await self._clock.sleep(self._settings.poll_every_s)
        return True

    def _status(self, name: str) -> ModelStatus:
        status = self._repository.status(name)
        if status is None:
            raise ModelNotFoundError(name, where="the log")
        return status
