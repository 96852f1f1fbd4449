"""The verbs ``backup`` and ``restore``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from herdbook.cli.app import HISTORY, verb
from herdbook.cli.errors import DONE
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import check_log
from herdbook.core.log.location import LogLocation
from herdbook.presentation import shapes
from herdbook.projections.sentences import bytes_text, counted

if TYPE_CHECKING:
    from herdbook.core.transfer.backup import Backup, Restored


@verb("backup", HISTORY)
async def backup(
    invocation: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")],
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace an existing file.")
    ] = False,
) -> int:
    """Write a verified copy of the log to a file.

    Other Herdbook processes can keep using the log. The file appears only once it is
    complete and verified. Do not use cp for a log in use: cp can miss recent events.
    """
    await check_log(invocation.log)
    made = await _back_up(invocation.log, file, replace=replace)
    if invocation.json:
        invocation.screen.write_json(
            shapes.BackedUp(
                path=str(made.path),
                position=made.position,
                hash=made.hash,
                size_bytes=made.size_bytes,
                findings=made.findings,
                archives=made.archives,
            )
        )
        return DONE
    size = bytes_text(made.size_bytes)
    text = f"{made.path}: {counted(made.position, 'event')}, {size}, verified"
    invocation.screen.write(f"{text}{_findings(len(made.findings))}")
    if made.archives:
        files = ", ".join(made.archives)
        invocation.screen.write(
            f"The backup does not include the archives. Copy them too: {files}"
        )
    return DONE


@verb("restore", HISTORY)
async def restore(
    invocation: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Backup to restore.")],
    *,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Replace an existing log; its files move to a directory next to it.",
        ),
    ] = False,
) -> int:
    """Verify a backup and replace the log with it.

    The backup itself is not changed. An existing log is replaced only with --replace;
    its files are moved to a directory next to it. A log in a database is never
    replaced: it must be empty, or contain only the first events of the backup.
    """
    done = await _restore(file, invocation.log, replace=replace)
    if invocation.json:
        invocation.screen.write_json(
            shapes.Restored(
                path=str(done.path),
                position=done.position,
                hash=done.hash,
                replaced=str(done.replaced) if done.replaced else None,
                findings=done.findings,
                missing=done.missing,
            )
        )
        return DONE
    text = f"{done.path}: {counted(done.position, 'event')}, verified"
    invocation.screen.write(f"{text}{_findings(len(done.findings))}")
    if done.replaced:
        invocation.screen.write(f"The replaced files are in {done.replaced}")
    if done.missing:
        invocation.screen.write(
            f"Archived events cannot be shown: {done.missing}. Put it next to the log"
        )
    return DONE


# Imported late: only these verbs need the modules.


async def _back_up(log: LogLocation, file: Path, *, replace: bool) -> Backup:
    if isinstance(log, Path):
        from herdbook.core.transfer.backup import back_up  # noqa: PLC0415

        return await back_up(log, file, replace=replace)
    from herdbook.core.transfer.database_backup import back_up_database  # noqa: PLC0415

    return await back_up_database(log, file, replace=replace)


async def _restore(file: Path, log: LogLocation, *, replace: bool) -> Restored:
    if isinstance(log, Path):
        from herdbook.core.transfer.backup import restore  # noqa: PLC0415

        return await restore(file, log, replace=replace)
    from herdbook.core.transfer.database_backup import (  # noqa: PLC0415
        restore_to_database,
    )

    return await restore_to_database(file, log, replace=replace)


def _findings(count: int) -> str:
    if not count:
        return ""
    return f"; {counted(count, 'finding')}: run herdbook verify"
