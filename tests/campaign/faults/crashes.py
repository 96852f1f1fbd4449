"""Faults of the computer: kills, failing disks, a clock that jumps."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from campaign.faults import hook
from campaign.faults.journal import Journal, read_journal
from campaign.faults.operations import Operation, append_to
from campaign.faults.truth import SilentError, check, history

from herdbook.cli import run
from herdbook.events.errors import HerdbookError
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.events.testing.base import event

ERRORS = {
    "EIO from one write": (hook.WRITES, errno.EIO, hook.ONCE),
    "EIO from one sync": (hook.SYNCS, errno.EIO, hook.ONCE),
    "EIO from one read": (hook.READS, errno.EIO, hook.ONCE),
    "full disk from one write on": (hook.WRITES, errno.ENOSPC, hook.FROM_THEN_ON),
    "one short write": (hook.WRITES, errno.ENOSPC, hook.SHORT),
}


def opens_and_verifies(work: Path) -> None:
    """Check that the next process opens the log and finds nothing wrong."""
    log = work / "herd.db"
    if log.exists() and log.stat().st_size and run(["--db", str(log), "verify"]):
        raise SilentError("verify has findings after the fault")


class Kill(NamedTuple):
    """Where a process is killed.

    Attributes:
        arm: Counts steps below a folder, and kills this process at one of them.
        needs_shim: Whether that needs a C compiler.
    """

    arm: Callable[[Path, int], None]
    needs_shim: bool


KILLS = {
    "kill at a step": Kill(lambda _, step: hook.KillAtStep(step).install(), False),
    "kill at a write or sync": Kill(
        lambda work, nth: hook.fail_call(
            work, hook.WRITES | hook.SYNCS, nth, errno.EIO, hook.KILL
        ),
        True,
    ),
    "kill within a write": Kill(
        lambda work, nth: hook.fail_call(
            work, hook.WRITES, nth, errno.EIO, hook.KILL_WITHIN
        ),
        True,
    ),
}


def killed(
    operation: Operation, kill: Kill, work: Path, prepared: Any, step: int
) -> int:
    """Kill an operation at a step; return 0 if it ended before."""
    journal = work.parent / "journal"
    child = os.fork()
    if not child:
        try:
            kill.arm(work, step)
            operation.act(work, Journal(journal))
        except BaseException:  # noqa: BLE001 - the parent sees the code
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WIFSIGNALED(status), "the operation failed"
    operation.check(work, prepared, *read_journal(journal))
    opens_and_verifies(work)
    return int(os.WIFSIGNALED(status))


def failing_disk(
    operation: Operation, kind: str, work: Path, prepared: Any, nth: int
) -> int:
    """Make a call to the disk fail; return 0 if the operation made fewer calls."""
    journal = work.parent / "journal"
    calls, error, mode = ERRORS[kind]
    result = Journal(journal)
    hook.fail_call(work, calls, nth, error, mode)
    try:
        operation.act(work, result)
    except BaseExceptionGroup as group:
        if group.split(HerdbookError)[1]:
            raise
    except HerdbookError:
        pass
    hits = hook.failed_calls()
    operation.check(work, prepared, *read_journal(journal))
    opens_and_verifies(work)
    return min(hits, 1)


async def _append_until_killed(path: Path, journal: Journal, writers: int) -> None:
    async def one(store: SQLiteEventStore, number: int) -> None:
        while True:
            stream = f"model/n/m{number}:latest"
            await append_to(store, stream, [event(), event()], journal)

    async with await SQLiteEventStore.open(path) as store, asyncio.TaskGroup() as group:
        for number in range(writers):
            group.create_task(one(store, number))


def killed_at_random(processes: int, work: Path, prepared: Any, chance: Random) -> int:
    """Kill processes that append to one log, one after another, at random times."""
    children = []
    for number in range(processes):
        child = os.fork()
        if not child:
            journal = Journal(work.parent / f"journal-{number}")
            asyncio.run(_append_until_killed(work / "herd.db", journal, 4))
        children.append(child)
    time.sleep(chance.uniform(0.02, 0.15))
    chance.shuffle(children)
    for child in children:
        time.sleep(chance.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "a process ended by itself"
    submitted, acknowledged = set[str](), set[str]()
    for file in work.parent.glob("journal-*"):
        more, result = read_journal(file)
        submitted |= more
        acknowledged |= result
    check(history(work / "herd.db"), prepared, submitted, acknowledged)
    opens_and_verifies(work)
    return processes


def jumping_clock(work: Path, prepared: Any, chance: Random) -> int:
    """Append while the clock jumps; return the number of jumps."""
    jumps = [
        timedelta(seconds=chance.choice([-1, 1]) * 10 ** chance.uniform(-6, 8))
        for _ in range(20)
    ]
    now = datetime(2026, 6, 1, tzinfo=UTC)
    journal = work.parent / "journal"
    result = Journal(journal)

    async def act() -> None:
        nonlocal now
        opened = await SQLiteEventStore.open(work / "herd.db", clock=lambda: now)
        async with opened as store:
            for jump in jumps:
                now += jump
                await append_to(store, "model/n/m0:latest", [event()], result)

    asyncio.run(act())
    check(history(work / "herd.db"), prepared, *read_journal(journal))
    opens_and_verifies(work)
    return len(jumps)
