"""After a crash: what a dead instance was at work on is recorded as interrupted.

An activity belongs to the instance that started it, and only those of dead
instances are touched. What became of the work, the next look at the server tells.
"""

from __future__ import annotations

from collections.abc import Iterator

from herdbook.core.register import Register
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
from herdbook.projections.status import ModelStatus


async def interrupt_dead(register: Register, instances: Instances) -> frozenset[str]:
    """Record the activities of dead instances as interrupted.

    Returns:
        The names of the models that were concerned.
    """
    concerned = set()
    for status in register.statuses():
        facts = tuple(_interrupted(status, instances))
        if not facts:
            continue
        concerned.add(status.name)
        try:
            await register.record(
                status.name, facts, cause=Cause.RECOVERY, at_version=status.version
            )
        except (WrongExpectedVersionError, IllegalTransitionError):
            continue  # another instance recovers at the same time
    return frozenset(concerned)


def _interrupted(status: ModelStatus, instances: Instances) -> Iterator[Fact]:
    work, update = status.work, status.update
    if work is not None and not instances.alive(work.instance):
        if work.activity is Activity.LOAD:
            yield LoadInterrupted(instance=work.instance)
        else:
            yield PullInterrupted(
                instance=work.instance,
                completed_bytes=work.completed_bytes,
                total_bytes=work.total_bytes,
            )
    if update is not None and not instances.alive(update.instance):
        yield UpdateInterrupted(
            instance=update.instance,
            completed_bytes=update.completed_bytes,
            total_bytes=update.total_bytes,
        )
