"""After a crash: what a dead instance was at work on is recorded as interrupted.

An activity belongs to the instance that started it, and only those of dead
instances are touched. What became of the work, the next look at the server tells.
"""

from __future__ import annotations

from collections.abc import Callable

from herdbook.core.actor import RECONCILER
from herdbook.core.repository import ModelRepository
from herdbook.events.errors import IllegalTransitionError, WrongExpectedVersionError
from herdbook.events.facts import (
    Fact,
    LoadInterrupted,
    PullInterrupted,
    UpdateInterrupted,
)
from herdbook.events.lifecycle import Activity
from herdbook.events.recorded import Cause
from herdbook.events.store import Instances
from herdbook.projections.status import Work


async def interrupt_dead(
    register: ModelRepository,
    instances: Instances,
    *,
    at_work: Callable[[str], bool] | None = None,
) -> dict[str, tuple[Work, ...]]:
    """Record the activities of dead instances as interrupted.

    Args:
        register: What is recorded.
        instances: Who is alive.
        at_work: Whether this instance is at work on a model. One of its own whose
            end could not be recorded, since the log took nothing, is as dead.

    Returns:
        What they were at work on, by the model's name.
    """
    concerned: dict[str, tuple[Work, ...]] = {}
    for status in register.statuses():
        dead = tuple(
            work
            for work in (status.work, status.update)
            if work is not None
            and not (
                at_work(status.name)
                if at_work is not None and work.instance == instances.own
                else instances.alive(work.instance)
            )
        )
        if not dead:
            continue
        concerned[status.name] = dead
        facts = [_interrupted(work) for work in dead]
        try:
            await register.record(
                status.name,
                facts,
                cause=Cause.RECOVERY,
                at_version=status.version,
                actor=RECONCILER,
            )
        except (WrongExpectedVersionError, IllegalTransitionError):
            continue  # another instance recovers at the same time
    return concerned


def _interrupted(work: Work) -> Fact:
    if work.activity is Activity.LOAD:
        return LoadInterrupted(instance=work.instance)
    update = work.activity is Activity.UPDATE
    interrupted = UpdateInterrupted if update else PullInterrupted
    return interrupted(
        instance=work.instance,
        completed_bytes=work.completed_bytes,
        total_bytes=work.total_bytes,
    )
