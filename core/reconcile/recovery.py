"""Recovery after a crash: record the operations of dead instances as interrupted.

An operation belongs to the instance that started it; those of living instances are
left alone. The next refresh finds the outcome of the interrupted operation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from herdbook.core.actor import RECONCILER
from herdbook.core.repository import ModelRepository
from herdbook.events.errors import IllegalTransitionError, WrongExpectedVersionError
from herdbook.events.facts import (
    Fact,
    LoadInterrupted,
    PullInterrupted,
    ReloadInterrupted,
    UpdateInterrupted,
)
from herdbook.events.instances import Instances
from herdbook.events.lifecycle import LOADS, Activity
from herdbook.events.recorded import Cause
from herdbook.projections.status import Work


async def interrupt_dead(
    repository: ModelRepository,
    instances: Instances,
    *,
    at_work: Callable[[str], bool] | None = None,
) -> dict[str, tuple[Work, ...]]:
    """Record the operations of dead instances as interrupted.

    Args:
        repository: The models in the log.
        instances: Knows which instances are alive.
        at_work: Returns whether this instance has an operation on a model. One that
            has ended, but whose end could not be recorded, counts as dead too.

    Returns:
        The interrupted work, by the model's name.
    """
    interrupted: dict[str, tuple[Work, ...]] = {}
    working = [
        copy.copy(one)  # the version at which it is decided
        for one in repository.records()
        if one.work is not None or one.update is not None
    ]
    for status in working:
        dead = tuple(
            [
                work
                for work in (status.work, status.update)
                if work is not None
                and not (
                    at_work(status.name)
                    if at_work is not None and work.instance == instances.own
                    else await instances.alive(work.instance)
                )
            ]
        )
        if not dead:
            continue
        interrupted[status.name] = dead
        facts = [interrupted_fact(work) for work in dead]
        try:
            await repository.record(
                status.name,
                facts,
                cause=Cause.RECOVERY,
                at_version=status.version,
                actor=RECONCILER,
            )
        except (WrongExpectedVersionError, IllegalTransitionError):
            continue  # another instance recorded it first
    return interrupted


def interrupted_fact(work: Work) -> Fact:
    """Return the fact that the instance of an operation has ended or was stopped."""
    if work.activity in LOADS:
        reload = work.activity is Activity.RELOAD
        return (ReloadInterrupted if reload else LoadInterrupted)(
            instance=work.instance
        )
    update = work.activity is Activity.UPDATE
    interrupted = UpdateInterrupted if update else PullInterrupted
    return interrupted(
        instance=work.instance,
        completed_bytes=work.completed_bytes,
        total_bytes=work.total_bytes,
    )
