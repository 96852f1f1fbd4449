"""The verb ``why``: explain the state of a model, event by event."""

from __future__ import annotations

from herdbook.cli.app import HISTORY, verb
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import known_status, node_for
from herdbook.cli.options import Model, NoRefresh
from herdbook.cli.output import Column, Piece, Row
from herdbook.cli.render.states import state_piece
from herdbook.core import ModelState
from herdbook.core.history.explain import Explanation, ExplanationEvent, Link
from herdbook.presentation import shapes, wording
from herdbook.presentation.times import Now
from herdbook.presentation.wording import LINKS

_ANCESTORS = (
    Column("#", right=True),
    Column("WHEN"),
    Column("LINK", gives_way=1),
    Column("MODEL"),
    Column("EVENT"),
    Column("WHO", gives_way=2),
)


@verb("why", HISTORY)
async def why(
    invocation: Invocation, model: Model, *, no_refresh: NoRefresh = False
) -> None:
    """Explain the current state of a model, event by event."""
    async with invocation.reading(refresh=not no_refresh, log_only=True) as fleet:
        manager = await node_for(invocation, fleet, model)
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
    since = f" (since {now.clock(status.since)})" if status.since else ""
    state = state_piece(status)
    what: list[str | Piece] = [" is ", state]
    if status.state is ModelState.ERROR:
        what = [" ", Piece("has failed", state.style)]
    return [
        Piece(status.name, "bold"),
        *what,
        f"{since}. The events that explain this, oldest first:",
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
