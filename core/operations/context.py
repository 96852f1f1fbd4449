"""Dependencies of operations, and the recording of how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from herdbook.core.actor import operation
from herdbook.core.clock import Clock
from herdbook.core.concurrency.work_tracker import WorkTracker
from herdbook.core.logging import Logger
from herdbook.core.operations.operations import Operation
from herdbook.core.reconcile.reconciler import Reconciler
from herdbook.core.repository import ModelRepository
from herdbook.core.settings import ManagerSettings
from herdbook.events.errors import StoreError
from herdbook.events.facts import Fact
from herdbook.events.lifecycle import Activity
from herdbook.events.recorded import Cause
from herdbook.events.shared.cancellation import end, finish
from herdbook.projections.status import ModelStatus, Work

if TYPE_CHECKING:
    from herdbook.core.ollama.client import OllamaClient


_log = Logger("herdbook.operations")


class OperationContext(NamedTuple):
    """Dependencies that pulls and loads share.

    Attributes:
        repository: The models, and where events are recorded.
        client: The server.
        reconciler: Refreshes from the server.
        changes: Models that commands are changing on the server.
        instance: Id of this Herdbook instance in the log.
        clock: The clock.
        settings: Timeouts, retries and intervals.
    """

    repository: ModelRepository
    client: OllamaClient
    reconciler: Reconciler
    changes: WorkTracker
    instance: str
    clock: Clock
    settings: ManagerSettings

    def is_running_here(self, work: Operation) -> bool:
        """Return whether the log still has an operation of this instance as running.

        A model that vanishes ends its pull in the log before the pull itself ends.
        """
        return self._recorded(work) is not None

    def _recorded(self, work: Operation) -> Work | None:
        """Return an operation of this instance as the log has it, while it runs."""
        return self._own_work(work, self.repository.status(work.name))

    def _own_work(self, work: Operation, status: ModelStatus | None) -> Work | None:
        if status is None:
            return None
        update = work.activity is Activity.UPDATE
        recorded = status.update if update else status.work
        own = recorded is not None and recorded.instance == self.instance
        return recorded if own else None

    async def record_if_running(
        self,
        work: Operation,
        fact_for: Callable[[Work], Fact],
        *,
        by: str | None = None,
    ) -> None:
        """Record a fact about an operation, unless the log has it as ended.

        Args:
            work: The operation.
            fact_for: Returns what to record, for the operation as the log has it.
            by: The actor; by default the current one.
        """

        def decide(status: ModelStatus | None) -> Sequence[Fact]:
            recorded = self._own_work(work, status)
            return () if recorded is None else (fact_for(recorded),)

        await self.repository.decide(work.name, decide, cause=Cause.COMMAND, actor=by)

    @asynccontextmanager
    async def cancellable_elsewhere(self, work: Operation) -> AsyncIterator[None]:
        """Cancel an operation when another instance requests it, while the block runs.

        The start of the operation is recorded before, if it is recorded at all.
        """
        following = asyncio.create_task(
            self._follow_requests(work),
            name=f"herdbook cancel requests {work.name}",
        )
        try:
            yield
        finally:
            await end(following)

    async def _follow_requests(self, work: Operation) -> None:
        """Cancel an operation once the log has a request for that.

        Polled on the manager's clock, as everything that waits for other instances is.
        """
        try:
            while True:
                await self.repository.catch_up()
                recorded = self._recorded(work)
                if recorded is not None and recorded.cancelled_by is not None:
                    work.cancel(by=recorded.cancelled_by)
                    return
                await self.clock.sleep(self.settings.log_poll_every_s)
        except StoreError as error:  # the operation itself continues
            _log.warning("requests_not_followed", model=work.name, reason=str(error))

    @asynccontextmanager
    async def recording_end(
        self,
        work: Operation,
        *,
        stopped: Callable[[Work], Fact],
        failed: Callable[[Work, Exception], Fact],
    ) -> AsyncIterator[None]:
        """Run the block as an operation; record its end if it does not succeed.

        Args:
            work: The operation.
            stopped: Returns the fact to record when it is cancelled or interrupted,
                for the operation as the log has it.
            failed: Returns the fact to record for an exception. Every exception counts,
                because a model must not stay busy without a running operation.
        """
        with operation(model=work.name):
            try:
                yield
            except asyncio.CancelledError:
                await finish(self.record_if_running(work, stopped, by=work.ended_by))
                raise
            except Exception as error:
                failure = error  # ``error`` ends with its block
                await finish(
                    self.record_if_running(work, lambda now: failed(now, failure))
                )
                raise
