"""The program that makes one backup: ``python -m herdbook.core.upkeep.backup_process``.

It takes the log and the file to write, and prints a ``Report`` as JSON. On SIGTERM it
removes what is not complete, and ends.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import msgspec

from herdbook.core.transfer.backup import back_up
from herdbook.events.errors import HerdbookError


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the program prints.

    Attributes:
        position: The position of the last event in the backup.
        error: Why there is no backup; empty if there is one.
        remedy: How to fix that; may be empty.
    """

    position: int = 0
    error: str = ""
    remedy: str = ""


async def _main(log: Path, target: Path) -> Report:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        made = await back_up(log, target, replace=True)
    except HerdbookError as error:
        return Report(error=f"{error.subject} {error.state}", remedy=error.remedy)
    return Report(position=made.position)


if __name__ == "__main__":
    report = asyncio.run(_main(*map(Path, sys.argv[1:3])))
    sys.stdout.buffer.write(msgspec.json.encode(report))
