"""The verb ``archive``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from herdbook.cli.app import HISTORY, verb
from herdbook.cli.errors import DONE, from_extra
from herdbook.cli.invocation import Invocation, actor
from herdbook.cli.lookup import check_log
from herdbook.cli.render.counting import counting
from herdbook.core import CallerError, Storage, SystemClock
from herdbook.core.archives import archiving
from herdbook.events.archive_file import BLOCK
from herdbook.presentation import shapes
from herdbook.projections.sentences import bytes_text, counted


@verb("archive", HISTORY)
async def archive(
    invocation: Invocation,
    *,
    before: Annotated[
        str,
        typer.Option(
            metavar="WHEN",
            help="Archive events before WHEN, such as 2026-01-01, 90d or #5000.",
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Directory for the file; default: the directory of the log.",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sign the archive with this private key."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be archived.")
    ] = False,
) -> int:
    """Move old events of the log to a compressed file.

    The file is verified before anything is removed from the log. Keep the file:
    Herdbook reads it when you ask about that time. Other Herdbook processes can keep
    using the log. If the command is interrupted, run it again to complete it.
    """
    log = invocation.log
    if not isinstance(log, Path):
        raise CallerError(
            str(log),
            "is a database, and only a log in a SQLite file can have archives",
            "To copy its old events: herdbook export FILE --until WHEN",
        )
    await check_log(log)
    clock = SystemClock()
    wanted = invocation.now.parse(before)
    async with Storage.open(log, clock, reading=dry_run) as storage:
        completed = 0 if dry_run else await archiving.finish(storage)
        made = await archiving.plan(storage, wanted, log, to)
        if made.events and not dry_run:
            with (
                counting(invocation.screen, "Archiving") as show,
                from_extra("the signature package", "proof"),
            ):
                made = await archiving.archive(
                    storage,
                    made,
                    clock,
                    node=invocation.node,
                    actor=actor(),
                    key=key,
                    progress=show,
                )
    _show(invocation, made, completed)
    return DONE


def _show(invocation: Invocation, made: archiving.Archived, completed: int) -> None:
    is_made = bool(made.sha256)
    if invocation.json:
        invocation.screen.write_json(
            shapes.Archived(
                path=str(made.file),
                first=made.first,
                last=made.last,
                events=made.events,
                size_bytes=made.size_bytes,
                sha256=made.sha256,
                made=is_made,
                completed=completed,
                kept_size=made.kept_size,
            )
        )
        return
    if completed:
        deleted = f"{counted(completed, 'event')} deleted"
        invocation.screen.write(f"Completed the interrupted archiving: {deleted}")
    if not made.events:
        invocation.screen.write(
            f"Nothing to archive: {counted(made.available, 'event')} before that "
            f"point; an archive needs at least {BLOCK:,}"
        )
        return
    what = f"{counted(made.events, 'event')} from #{made.first} to #{made.last}"
    if not is_made:
        invocation.screen.write(f"would write {made.file}: {what}")
        return
    size = bytes_text(made.size_bytes)
    invocation.screen.write(f"{made.file}: {what}, {size}, verified")
    if made.kept_size:
        invocation.screen.write(
            f"The log file was not shrunk: {made.kept_size}. New events reuse the "
            "free space."
        )
