"""All recurring work of one log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from herdbook.core.clock import Clock
from herdbook.core.concurrency.supervisor import TaskStatus
from herdbook.core.errors import CallerError
from herdbook.core.log.location import MEMORY, LogLocation, log_location
from herdbook.core.upkeep.anchors import AnchorSchedule, scheduled_anchors
from herdbook.core.upkeep.backups import BackupSchedule, ScheduledBackups
from herdbook.core.upkeep.recurring import Recurring, UpkeepStatus


class UpkeepSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is done for a log at intervals.

    Attributes:
        backups: The backups; None for none.
        anchors: The anchors; None for none.
    """

    backups: BackupSchedule | None = None
    anchors: AnchorSchedule | None = None


class Upkeep:
    """The recurring work of one log.

    Args:
        log: The log.
        settings: What is done.
        clock: The clock.

    Raises:
        CallerError: A setting is not valid, or the log is not in a file.
    """

    def __init__(
        self, log: str | LogLocation, settings: UpkeepSettings, *, clock: Clock
    ) -> None:
        self._work: list[Recurring] = []
        if settings == UpkeepSettings():
            return
        if str(log) == MEMORY:
            raise CallerError(
                "a log in memory", "cannot have backups or anchors", "Use a file"
            )
        location = log_location(log)
        if settings.backups and not isinstance(location, Path):
            raise CallerError(
                str(location),
                "is backed up by its server",
                "Use pg_dump, or schedule: herdbook copy --from LOG --to FILE",
            )
        if settings.backups and isinstance(location, Path):
            made = ScheduledBackups(location, settings.backups, clock=clock)
            self._work.append(made.recurring)
        if settings.anchors:
            self._work += scheduled_anchors(location, settings.anchors, clock=clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do the work when it is due while the block runs."""
        async with AsyncExitStack() as stack:
            for each in self._work:
                await stack.enter_async_context(each.running())
            yield

    def tasks(self) -> list[TaskStatus]:
        """Return which work succeeds, and which fails."""
        return [each.task for each in self._work]

    def statuses(self) -> list[UpkeepStatus]:
        """Return when each work was done, and when it is due."""
        return [each.status for each in self._work]
