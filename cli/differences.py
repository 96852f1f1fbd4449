"""Verbs that compare and explain: diff, why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from herdbook.cli.invocation import Invocation
from herdbook.cli.known import known_status
from herdbook.cli.options import Model, NoRefresh
from herdbook.cli.past import moment_at
from herdbook.cli.screen import Column, Piece, Row
from herdbook.cli.states import state_piece
from herdbook.cli.verbs import PAST, verb
from herdbook.core import Moment
from herdbook.core.difference import (
    Change,
    Difference,
    ModelDifference,
    Presence,
    difference,
)
from herdbook.core.lineage import Ancestor, Lineage, Link
from herdbook.events.facts import Setting
from herdbook.presentation import shapes, wording
from herdbook.presentation.times import FORMS, Now
from herdbook.presentation.wording import NOTHING
from herdbook.projections.sentences import bytes_text, setting_text

_CHANGES = (Column("WHOSE"), Column("WHAT"), Column("WAS"), Column("NOW"))
_ANCESTORS = (
    Column("#", right=True),
    Column("WHEN"),
    Column("LINK", gives_way=1),
    Column("MODEL"),
    Column("WHAT"),
    Column("WHO", gives_way=2),
)
_LINKS = {
    Link.STATE: "led to the state",
    Link.ARRIVAL: "made it what it is",
    Link.MEMORY: "in memory",
    Link.OPERATION: "same operation",
    Link.SETTING: "in force",
    Link.OTHER: "of another model",
    Link.NODE: "of the server",
}
_SHORT = frozenset({"digest", "weights"})
_When = Annotated[
    str, typer.Argument(metavar="FROM", help=f"One moment. Forms: {', '.join(FORMS)}.")
]
_Until = Annotated[
    str | None, typer.Argument(metavar="[TO]", help="The other; without it, now.")
]


@verb("diff", PAST)
async def diff(
    invocation: Invocation,
    since: _When,
    until: _Until = None,
    *,
    no_refresh: NoRefresh = False,
) -> None:
    """Tell what differs between two moments: models, roles, the server."""
    first = invocation.now.read(since)
    second = None if until is None else invocation.now.read(until)
    look = second is None and not no_refresh
    async with invocation.reading(look=look) as manager:
        one = await moment_at(manager, first)
        other = await (manager.now() if second is None else moment_at(manager, second))
    found = difference(one, other)
    if invocation.json:
        invocation.screen.write_json(found)
        return
    now = invocation.now
    invocation.screen.write(f"From {_at(one, now)} to {_at(other, now)}:")
    rows = [*_rows(found)]
    if rows:
        invocation.screen.write_table(_CHANGES, rows)
    else:
        invocation.screen.write("Nothing differs.")


def _at(moment: Moment, now: Now) -> str:
    if moment.asked is None:
        return f"#{moment.position}"
    return f"{now.clock(moment.asked)} (#{moment.position})"


def _rows(found: Difference) -> Iterator[Row]:
    for change in found.node:
        yield _row("server", change.fact, _text(change.was), _text(change.now))
    for model in found.models:
        yield from _of_model(model)
    for role in found.roles:
        name = role.role.value.replace("_", " ")
        yield _row(f"for {name}", "first choice", role.was or "", role.now or "")


def _of_model(model: ModelDifference) -> Iterator[Row]:
    """Yield what changed; of a model that came or went, what it is or was."""
    if model.presence is not Presence.STAYED:
        changes = {change.fact: change for change in model.changes}
        was, now = (_summary(changes, "was"), _summary(changes, "now"))
        yield _row(model.name, model.presence.value, was, now)
        return
    for change in model.changes:
        was, now = _value(change.fact, change.was), _value(change.fact, change.now)
        yield _row(model.name, change.fact, was, now)


def _summary(changes: dict[str, Change], side: str) -> str:
    """Return size and digest of a model on one side of a difference."""
    told = (changes[fact] for fact in ("size_bytes", "digest") if fact in changes)
    values = ((change.fact, getattr(change, side)) for change in told)
    return ", ".join(_value(fact, value) for fact, value in values if value is not None)


def _row(whose: str, what: str, was: str, now: str) -> Row:
    return Row(
        [Piece(whose), Piece(what), Piece(was or NOTHING), Piece(now or NOTHING)]
    )


def _value(fact: str, value: Setting) -> str:
    if isinstance(value, str) and fact in _SHORT:
        return value[:12]
    if isinstance(value, int) and fact.endswith("_bytes"):
        return bytes_text(value)
    return _text(value)


def _text(value: Setting) -> str:
    return NOTHING if value is None else setting_text(value)


@verb("why", PAST)
async def why(
    invocation: Invocation, model: Model, *, no_refresh: NoRefresh = False
) -> None:
    """Tell what led to a model's present state, event by event."""
    async with invocation.reading(look=not no_refresh) as manager:
        moment = await manager.now()
        known_status(moment, model)
        found = await manager.why(model)
    if invocation.json:
        invocation.screen.write_json(shapes.why(found, moment))
        return
    invocation.screen.write(*_headline(found, invocation.now))
    rows = [_ancestor(each, found, invocation.now) for each in found.ancestors]
    invocation.screen.write_table(_ANCESTORS, rows, headers=False)


def _headline(found: Lineage, now: Now) -> list[str | Piece]:
    status = found.status
    since = f" since {now.clock(status.since)}" if status.since else ""
    return [
        Piece(status.name, "bold"),
        " is ",
        state_piece(status),
        f"{since}; what led to that, the oldest first:",
    ]


def _ancestor(each: Ancestor, found: Lineage, now: Now) -> Row:
    entry = each.entry
    other = entry.model if entry.model != found.status.name else ""
    return Row(
        [
            Piece(f"#{entry.position}", "dim"),
            Piece(now.clock(entry.recorded_at)),
            Piece(_LINKS[each.link], "dim"),
            Piece(other or ""),
            Piece(entry.sentence, "bold" if each.link is Link.STATE else ""),
            Piece(wording.who_text(entry), "dim"),
        ]
    )
