"""Operations of other Herdbook instances that use the same log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Final

from herdbook.core.clock import Clock
from herdbook.core.errors import BusyError, OperationEndedError, PullError
from herdbook.core.operations.operations import resume_remedy
from herdbook.core.operations.pull_progress import PullProgress
from herdbook.core.reconcile.recovery import interrupt_dead
from herdbook.core.repository import ModelRepository
from herdbook.events.facts import (
    CancelRequested,
    Fact,
    LoadCancelled,
    LoadFailed,
    LoadInterrupted,
    ModelLoaded,
    ModelUpdated,
    PullCancelled,
    PullCompleted,
    PullFailed,
    PullInterrupted,
    ReloadCancelled,
    ReloadCompleted,
    ReloadFailed,
    ReloadInterrupted,
    ReloadUnchanged,
    UpdateCancelled,
    UpdateFailed,
    UpdateInterrupted,
    UpdateUnchanged,
)
from herdbook.events.instances import Instances
from herdbook.events.lifecycle import LOADS, Activity
from herdbook.events.recorded import Cause
from herdbook.projections.status import Failure, Work

CANCEL_WITHIN_S: Final = 10.0
"""Time that the instance with an operation has to cancel it, seconds."""

_CANCELLATIONS: Final = frozenset(
    {PullCancelled, UpdateCancelled, LoadCancelled, ReloadCancelled}
)
INTERRUPTIONS: Final = frozenset(
    {PullInterrupted, UpdateInterrupted, LoadInterrupted, ReloadInterrupted}
)
"""Events of operations whose instance ended or was stopped."""

_ENDS: Final[Mapping[Activity, frozenset[type[Fact]]]] = {
    Activity.PULL: frozenset(
        {PullCompleted, PullFailed, PullCancelled, PullInterrupted}
    ),
    Activity.UPDATE: frozenset(
        {
            ModelUpdated,
            UpdateUnchanged,
            UpdateFailed,
            UpdateCancelled,
            UpdateInterrupted,
        }
    ),
    Activity.LOAD: frozenset({ModelLoaded, LoadFailed, LoadCancelled, LoadInterrupted}),
    Activity.RELOAD: frozenset(
        {
            ReloadCompleted,
            ReloadUnchanged,
            ReloadFailed,
            ReloadCancelled,
            ReloadInterrupted,
            LoadFailed,  # the previous runner was lost
        }
    ),
}


class OtherInstances:
    """Find, follow and cancel operations of other instances.

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
        for work in self._activities(name):
            if work.activity in LOADS or work.instance == self._instances.own:
                continue
            if await self._instances.alive(work.instance):
                return work
            await interrupt_dead(self._repository, self._instances)
        return None

    async def follow(self, name: str, work: Work) -> AsyncGenerator[PullProgress, None]:
        """Yield the recorded progress of another instance's pull until it ends.

        Raises:
            PullError: The pull failed there.
            OperationEndedError: It was cancelled there on request.
        """
        reported, version = None, self._repository.version(name)
        while (now := await self.work(name)) and now.since == work.since:
            if now.completed_bytes is not None and now.completed_bytes != reported:
                reported = now.completed_bytes
                yield PullProgress.recorded(reported, now.total_bytes)
            await self._clock.sleep(self._poll_every_s)
        status = self._repository.status(name)
        failure = status.last_failure if status else None
        if failure is not None and failure.at >= work.since:
            raise _failed_there(name, failure)
        if await self._was_cancelled_on_request(name, work, version):
            raise OperationEndedError(
                name, f"{work.activity} was cancelled", resume_remedy(work.activity)
            )

    async def cancel(self, name: str, activities: Collection[Activity]) -> bool:
        """Request that another instance cancels its work on a model; wait for the end.

        The request is an event, which the instance that runs the work follows.

        Args:
            name: The model.
            activities: The kinds of work to cancel.

        Returns:
            Whether a pull, update or load was cancelled. False if there was none, or it
            ended otherwise before it could be cancelled.

        Raises:
            OperationEndedError: The instance that ran it is dead; the work is recorded
                as interrupted.
            BusyError: The instance is alive, but has not cancelled it in time.
        """
        await self._repository.catch_up()
        works = [one for one in self._activities(name) if one.activity in activities]
        ended = [await self._cancel(name, work) for work in works]
        return any(ended)

    async def _cancel(self, name: str, work: Work) -> bool:
        def decide(_: object) -> Sequence[Fact]:
            if (now := self._same(name, work)) is None or now.cancelled_by is not None:
                return ()
            return (
                CancelRequested(activity=work.activity.value, instance=work.instance),
            )

        version = self._repository.version(name)
        await self._repository.decide(name, decide, cause=Cause.COMMAND)
        deadline = self._clock.monotonic() + CANCEL_WITHIN_S
        while self._same(name, work) is not None:
            if not await self._instances.alive(work.instance):
                await interrupt_dead(self._repository, self._instances)
            elif self._clock.monotonic() >= deadline:
                raise _does_not_cancel(name, work)
            else:
                await self._clock.sleep(self._poll_every_s)
            await self._repository.catch_up()
        end = await self._end_of(name, work, version)
        if end in INTERRUPTIONS:
            raise OperationEndedError(
                name,
                f"{work.activity} was interrupted: the process that ran it has ended",
                resume_remedy(work.activity),
            )
        return end in _CANCELLATIONS

    def _same(self, name: str, work: Work) -> Work | None:
        """Return work as the views have it now; None if it has ended."""
        for now in self._activities(name):
            if (now.activity, now.instance, now.since) == (
                work.activity,
                work.instance,
                work.since,
            ):
                return now
        return None

    async def _end_of(self, name: str, work: Work, version: int) -> type[Fact] | None:
        """Return the type of the event after a version that ended work."""
        stream = self._repository.stream(name)
        events = self._repository.store.read_stream(stream, after_version=version)
        async for event in events:
            if type(event.data) in _ENDS[work.activity]:
                return type(event.data)
        return None  # the model vanished

    async def _was_cancelled_on_request(
        self, name: str, work: Work, version: int
    ) -> bool:
        """Return whether followed work was cancelled because somebody requested that.

        If only those left who followed it there, those who follow it here continue it.
        """
        requested = work.cancelled_by is not None
        stream = self._repository.stream(name)
        events = self._repository.store.read_stream(stream, after_version=version)
        async for event in events:
            requested = requested or isinstance(event.data, CancelRequested)
            if type(event.data) in _ENDS[work.activity]:
                return requested and type(event.data) in _CANCELLATIONS
        return False  # the model vanished

    def refuse(self, name: str) -> None:
        """Refuse a command on a model that is in use.

        Raises:
            BusyError: An operation on the model is running.
        """
        for work in self._activities(name):
            raise busy_with(name, work)

    def _activities(self, name: str) -> list[Work]:
        status = self._repository.status(name)
        works = (status.work, status.update) if status else ()
        return [work for work in works if work is not None]


def busy_with(name: str, work: Work) -> BusyError:
    """Return the error for a command on a model with a running operation."""
    return BusyError(
        name,
        f"has a running {work.activity}, started by {work.actor}",
        "Wait until it ends, or cancel it",
    )


def _does_not_cancel(name: str, work: Work) -> BusyError:
    return BusyError(
        name,
        f"has a running {work.activity} whose process did not respond within "
        f"{CANCEL_WITHIN_S:g} s",
        "The request is recorded and takes effect once the process responds. "
        "Otherwise, end that process",
    )


def _failed_there(name: str, failure: Failure) -> PullError:
    """Return the error of a pull that failed in another instance, as recorded there."""
    text = failure.message.removeprefix(f"{name} ")
    error = PullError(name, raw=text, problem="{raw}")
    error.kind = failure.kind
    return error
