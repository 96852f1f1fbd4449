"""Operations of other Herdbook instances that use the same log."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from herdbook.core.clock import Clock
from herdbook.core.errors import BusyError, PullError
from herdbook.core.operations.pull_progress import PullProgress
from herdbook.core.reconcile.recovery import interrupt_dead
from herdbook.core.repository import ModelRepository
from herdbook.events.lifecycle import Activity
from herdbook.events.store import Instances
from herdbook.projections.status import Failure, Work


class OtherInstances:
    """Find and follow operations of other instances.

    Operations of instances that have died are recorded as interrupted.
    """

    def __init__(
        self,
        repository: ModelRepository,
        instances: Instances,
        *,
        clock: Clock,
        poll_every_s: float,
    ) -> None:
        self._repository = repository
        self._instances = instances
        self._clock = clock
        self._poll_every_s = poll_every_s

    async def work(self, name: str) -> Work | None:
        """Return the pull or update of a model that another live instance runs."""
        await self._repository.catch_up()
        for work in self._works(name):
            if work.activity is Activity.LOAD or work.instance == self._instances.own:
                continue
            if await self._instances.alive(work.instance):
                return work
            await interrupt_dead(self._repository, self._instances)
        return None

    async def follow(self, name: str, work: Work) -> AsyncGenerator[PullProgress, None]:
        """Yield the recorded progress of another instance's pull until it ends.

        Raises:
            PullError: The pull failed there.
        """
        reported = None
        while (now := await self.work(name)) and now.since == work.since:
            if now.completed_bytes is not None and now.completed_bytes != reported:
                reported = now.completed_bytes
                yield PullProgress.recorded(reported, now.total_bytes)
            await self._clock.sleep(self._poll_every_s)
        status = self._repository.status(name)
        failure = status.last_failure if status else None
        if failure is not None and failure.at >= work.since:
            raise _failed_there(name, failure)

    def refuse(self, name: str) -> None:
        """Refuse a command on a model that is in use.

        Raises:
            BusyError: An operation on the model is running.
        """
        for work in self._works(name):
            raise busy_with(name, work)

    def _works(self, name: str) -> list[Work]:
        status = self._repository.status(name)
        works = (status.work, status.update) if status else ()
        return [work for work in works if work is not None]


def busy_with(name: str, work: Work) -> BusyError:
    """Return the error for a command on a model with a running operation."""
    return BusyError(
        name,
        f"has a running {work.activity}, started by {work.actor}",
        "Wait until it ends, or cancel it where it was started",
    )


def _failed_there(name: str, failure: Failure) -> PullError:
    """Return the error of a pull that failed in another instance, as recorded there."""
    text = failure.message.removeprefix(f"{name} ")
    error = PullError(name, raw=text, says="{raw}")
    error.kind = failure.kind
    return error
