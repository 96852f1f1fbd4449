"""The verb ``copy``: move a log between a file and a database."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from herdbook.cli.app import HISTORY, verb
from herdbook.cli.completion import complete_file
from herdbook.cli.errors import DONE
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import check_log
from herdbook.cli.render.counting import added_text, counting
from herdbook.core.clock import SystemClock
from herdbook.core.log.location import log_location
from herdbook.presentation import shapes


@verb("copy", HISTORY)
async def copy(
    invocation: Invocation,
    *,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="LOG",
            help="Log to write: a file or postgresql://USER@HOST/DATABASE.",
            autocompletion=complete_file,
        ),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="LOG",
            help="Log to read; default: the log given by --db.",
            autocompletion=complete_file,
        ),
    ] = None,
) -> int:
    """Copy the log to another file or database.

    Use it to move a log between a file and a database. Other Herdbook processes can
    keep using the source. Repeat the command to continue after an interruption or to
    add newer events. A target with a different history is refused.
    """
    from herdbook.core.transfer.copy import copy as copy_log  # noqa: PLC0415 - only for this verb

    log = invocation.log if source is None else log_location(source)
    target = log_location(to)
    await check_log(log)
    with counting(invocation.screen, "Copying") as show:
        done = await copy_log(log, target, SystemClock(), progress=show)
    copied = shapes.Copied(
        source=str(log), target=str(target), **msgspec.structs.asdict(done)
    )
    if invocation.json:
        invocation.screen.write_json(copied)
    else:
        invocation.screen.write(added_text(copied.target, "copied", copied))
    return DONE
