"""Verbs that compare and explain: ``diff`` and ``why``."""

from __future__ import annotations

from typing import Annotated

import typer

from herdbook.cli.app import HISTORY, verb
from herdbook.cli.commands.log.history import read_model_at
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import known_status
from herdbook.cli.options import Model, NoRefresh
from herdbook.cli.output import Column, Piece, Row
from herdbook.cli.render.states import state_piece
from herdbook.core import ReadModel
from herdbook.core.history.diff import difference
from herdbook.core.history.explain import Explanation, ExplanationEvent, Link
from herdbook.presentation import shapes, wording
from herdbook.presentation.differences import rows_of
from herdbook.presentation.times import FORMS, Now
from herdbook.presentation.wording import LINKS

_CHANGES = (Column("MODEL"), Column("FIELD"), Column("BEFORE"), Column("AFTER"))
_ANCESTORS = (
    Column("#", right=True),
    Column("WHEN"),
    Column("LINK", gives_way=1),
    Column("MODEL"),
    Column("EVENT"),
    Column("WHO", gives_way=2),
)
_When = Annotated[
    str,
    typer.Argument(
        metavar="FROM", help=f"Time or position. Examples: {', '.join(FORMS)}."
    ),
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
    """Show what changed between two times: models, roles, the server."""
    first = invocation.now.parse(since)
    second = None if until is None else invocation.now.parse(until)
    refresh = second is None and not no_refresh
    async with invocation.reading(refresh=refresh) as manager:
        one = await read_model_at(manager, first)
        other = await (
            manager.now() if second is None else read_model_at(manager, second)
        )
    found = await difference(one, other)
    if invocation.json:
        invocation.screen.write_json(found)
        return
    now = invocation.now
    invocation.screen.write(f"From {_at(one, now)} to {_at(other, now)}:")
    rows = [Row([Piece(text) for text in cells[:4]]) for cells in rows_of(found)]
    if rows:
        invocation.screen.write_table(_CHANGES, rows)
    else:
        invocation.screen.write("No changes.")


def _at(models: ReadModel, now: Now) -> str:
    if models.asked is None:
        return f"#{models.position}"
    return f"{now.clock(models.asked)} (#{models.position})"


@verb("why", HISTORY)
async def why(
    invocation: Invocation, model: Model, *, no_refresh: NoRefresh = False
) -> None:
    """Explain the current state of a model, event by event."""
    async with invocation.reading(refresh=not no_refresh) as manager:
        models = await manager.now()
        known_status(models, model)
        found = await manager.why(model)
    if invocation.json:
        invocation.screen.write_json(shapes.why(found, models))
        return
    invocation.screen.write(*_headline(found, invocation.now))
    rows = [_ancestor(each, found, invocation.now) for each in found.ancestors]
    invocation.screen.write_table(_ANCESTORS, rows, headers=False)


def _headline(found: Explanation, now: Now) -> list[str | Piece]:
    status = found.status
    since = f" since {now.clock(status.since)}" if status.since else ""
    return [
        Piece(status.name, "bold"),
        " is ",
        state_piece(status),
        f"{since}. Events that explain it, oldest first:",
    ]


def _ancestor(each: ExplanationEvent, found: Explanation, now: Now) -> Row:
    entry = each.entry
    other = entry.model if entry.model != found.status.name else ""
    return Row(
        [
            Piece(f"#{entry.position}", "dim"),
            Piece(now.clock(entry.recorded_at)),
            Piece(LINKS[each.link], "dim"),
            Piece(other or ""),
            Piece(entry.sentence, "bold" if each.link is Link.STATE else ""),
            Piece(wording.who_text(entry), "dim"),
        ]
    )
