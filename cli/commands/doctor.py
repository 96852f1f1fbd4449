"""The verb doctor: what is wrong with log, server and models, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from herdbook.cli.app import LOOK, verb
from herdbook.cli.errors import DONE, FAILED
from herdbook.cli.invocation import PATIENCE_TO_READ_S, Invocation, actor
from herdbook.cli.output import Column, Piece, Row, line
from herdbook.core.diagnosis import Diagnosis, Level
from herdbook.presentation.wording import counted

_STYLES = {
    Level.OK: "green",
    Level.NOTICE: "cyan",
    Level.WARNING: "yellow",
    Level.PROBLEM: "bold red",
}
_COLUMNS = (Column("LEVEL"), Column("CHECK"), Column("WHAT"))


@verb("doctor", LOOK)
async def doctor(invocation: Invocation) -> int:
    """Check log, server and models; say what to do about what is wrong.

    Works without a server and with a log that cannot be opened. Exit code 1 if there
    is a problem.
    """
    # Here and not above: nobody else needs all that it looks at.
    from herdbook.core.doctor import DoctorOptions, examine  # noqa: PLC0415

    options = DoctorOptions(
        log=invocation.log,
        ollama=invocation.ollama,
        node=invocation.node,
        actor=actor(),
        catalogue=invocation.catalogue,
        refresh_timeout_s=PATIENCE_TO_READ_S,
    )
    with invocation.screen.waiting("looking", quiet=invocation.json):
        found = await examine(options)
    if invocation.json:
        invocation.screen.write_json(found)
    else:
        _tell(invocation, found)
    return FAILED if any(each.level is Level.PROBLEM for each in found) else DONE


def _tell(invocation: Invocation, found: Sequence[Diagnosis]) -> None:
    rows = [
        Row(
            [
                Piece(each.level.value, _STYLES[each.level]),
                Piece(each.check.replace("_", " ")),
                Piece(each.what),
            ],
            below=[line("  ", Piece(each.remedy, "dim"))] if each.remedy else [],
        )
        for each in found
    ]
    invocation.screen.write_table(_COLUMNS, rows, headers=False)
    invocation.screen.write(_summary(found))


def _summary(found: Sequence[Diagnosis]) -> str:
    levels = Counter(each.level for each in found)
    told = [
        counted(levels[level], level.value)
        for level in (Level.PROBLEM, Level.WARNING, Level.NOTICE)
        if levels[level]
    ]
    return f"{counted(len(found), 'finding')}: {', '.join(told) or 'all is well'}"
