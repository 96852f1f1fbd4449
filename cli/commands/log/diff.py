"""The verb ``diff``: what changed between two times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from herdbook.cli.app import HISTORY, verb
from herdbook.cli.commands.log.filters import EXAMPLES
from herdbook.cli.commands.log.history import read_models_at
from herdbook.cli.invocation import Invocation
from herdbook.cli.options import NoRefresh
from herdbook.cli.output import Column, Piece, Row
from herdbook.core import ReadModel
from herdbook.core.history.diff import difference
from herdbook.presentation.differences import rows_of
from herdbook.presentation.times import Now

_CHANGES = (Column("MODEL"), Column("FIELD"), Column("BEFORE"), Column("AFTER"))
_When = Annotated[
    str,
    typer.Argument(metavar="FROM", help=f"Time or position. {EXAMPLES}"),
]
_Until = Annotated[
    str | None,
    typer.Argument(metavar="[TO]", help="Second time or position; default: now."),
]


@verb("diff", HISTORY)
async def diff(
    invocation: Invocation,
    since: _When,
    until: _Until = None,
    *,
    no_refresh: NoRefresh = False,
) -> None:
    """Show what changed between two times.

    Compares models, roles and the server.
    """
    first = invocation.now.parse(since)
    second = None if until is None else invocation.now.parse(until)
    refresh = second is None and not no_refresh
    async with invocation.reading(refresh=refresh, log_only=True) as fleet:
        before = await read_models_at(fleet, first)
        after = await (fleet.now() if second is None else read_models_at(fleet, second))
        found = {
            one.node: await difference(one, other)
            for one, other in _pairs(before, after)
        }
        one, other = before[0], after[0]
    if invocation.json:
        alone = next(iter(found.values())) if len(found) == 1 else None
        invocation.screen.write_json(alone or {"nodes": found})
        return
    now = invocation.now
    invocation.screen.write(f"From {_at(one, now)} to {_at(other, now)}:")
    named = len(found) > 1
    rows = [
        Row([*([Piece(node)] if named else []), *(Piece(text) for text in cells[:4])])
        for node, changes in found.items()
        for cells in rows_of(changes)
    ]
    if rows:
        columns = [Column("NODE"), *_CHANGES] if named else _CHANGES
        invocation.screen.write_table(columns, rows)
    else:
        invocation.screen.write("No changes.")


def _pairs(
    before: Sequence[ReadModel], after: Sequence[ReadModel]
) -> Iterator[tuple[ReadModel, ReadModel]]:
    """Yield the read models of each node that is among those before or after."""
    was, now = ({one.node: one for one in each} for each in (before, after))
    for node in sorted(was.keys() | now.keys()):
        yield was.get(node) or before[0].of(node), now.get(node) or after[0].of(node)


def _at(models: ReadModel, now: Now) -> str:
    if not models.position:
        return (
            "the start of the log" if models.asked is None else now.clock(models.asked)
        )
    if models.asked is None:
        return f"#{models.position}"
    return f"{now.clock(models.asked)} (#{models.position})"
