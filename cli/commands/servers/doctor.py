"""The verb ``doctor``: check log, server and models, with a remedy per problem."""

from __future__ import annotations

from collections.abc import Sequence

from herdbook.cli.app import INSPECT, verb
from herdbook.cli.errors import DONE, FAILED, NoHomeError
from herdbook.cli.invocation import READ_TIMEOUT_S, Invocation, actor
from herdbook.cli.output import Column, Piece, Row, line
from herdbook.core.diagnosis import Diagnosis, Level
from herdbook.presentation.wording import NOTHING, check_text, problems_text
from herdbook.projections.sentences import counted

_STYLES = {
    Level.OK: "green",
    Level.NOTICE: "cyan",
    Level.WARNING: "yellow",
    Level.PROBLEM: "bold red",
}
_COLUMNS = (Column("LEVEL"), Column("CHECK"), Column("RESULT"))


@verb("doctor", INSPECT)
async def doctor(invocation: Invocation) -> int:
    """Check the log, server and models; suggest fixes.

    Works even if the server does not answer or the log cannot be opened. The exit code
    is 1 if there is a problem.
    """
    # Imported late: only this verb needs all the checks.
    from herdbook.core.checks.log import failed  # noqa: PLC0415
    from herdbook.core.doctor import DoctorOptions, examine  # noqa: PLC0415

    no_log: list[Diagnosis] = []
    log = None
    try:
        log = invocation.log
    except NoHomeError as error:
        no_log.append(failed("log", error))
    options = DoctorOptions(
        log=log,
        ollama=invocation.ollama,
        node=invocation.node,
        actor=actor(),
        catalogue=invocation.catalogue,
        refresh_timeout_s=READ_TIMEOUT_S,
    )
    with invocation.screen.waiting("checking", quiet=invocation.json):
        found = (*no_log, *await examine(options))
    if invocation.json:
        invocation.screen.write_json(found)
    else:
        _write(invocation, found)
    return FAILED if any(each.level is Level.PROBLEM for each in found) else DONE


def _write(invocation: Invocation, found: Sequence[Diagnosis]) -> None:
    several = any(each.node for each in found)
    rows = [
        Row(
            [
                Piece(each.level.value, _STYLES[each.level]),
                *([Piece(each.node or NOTHING)] if several else []),
                Piece(check_text(each.check)),
                Piece(each.what),
            ],
            below=[line("  ", Piece(each.remedy, "dim"))] if each.remedy else [],
        )
        for each in found
    ]
    first, *others = _COLUMNS
    columns = [first, Column("NODE"), *others] if several else _COLUMNS
    invocation.screen.write_table(columns, rows, headers=several)
    checks = counted(len(found), "check")
    invocation.screen.write(f"{checks}: {problems_text(found)}")
