"""Verbs for the past: ``history`` and ``as-of``."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from typing import Annotated

import typer

from herdbook.cli.app import HISTORY, verb
from herdbook.cli.commands.log.filters import (
    EXAMPLES,
    Actors,
    Causes,
    Since,
    Types,
    Until,
    chosen_events,
)
from herdbook.cli.commands.log.log import events_between
from herdbook.cli.completion import complete_role
from herdbook.cli.errors import NothingFoundError
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import known_status, node_for
from herdbook.cli.options import AnyModel, NoRefresh
from herdbook.cli.output import Column, Piece, Row, Screen
from herdbook.cli.render import models_table, ranking
from herdbook.cli.render.missing import write_missing
from herdbook.core import (
    Fleet,
    HistoryEntry,
    ModelManager,
    ModelRole,
    ReadModel,
)
from herdbook.events.streams import model_of, node_of
from herdbook.presentation import shapes
from herdbook.presentation.times import Now
from herdbook.presentation.wording import who_text

_COLUMNS = (
    Column("#", right=True),
    Column("WHEN"),
    Column("MODEL", gives_way=1),
    Column("NODE", gives_way=1),
    Column("EVENT"),
    Column("WHO", gives_way=2),
)


@verb("history", HISTORY)
async def history(  # noqa: PLR0913 - the options of a verb
    invocation: Invocation,
    model: AnyModel = None,
    *,
    limit: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Show at most N events, newest first."),
    ] = 50,
    since: Since = None,
    until: Until = None,
    types: Types = None,
    causes: Causes = None,
    actors: Actors = None,
    no_refresh: NoRefresh = False,
) -> None:
    """Show the events of one or all models, newest first."""
    chosen = chosen_events(
        invocation.now,
        types=types,
        causes=causes,
        actors=actors,
        since=since,
        until=until,
        limit=limit,
    )
    async with invocation.reading(refresh=not no_refresh, log_only=True) as fleet:
        if model is not None:
            manager = await node_for(invocation, fleet, model)
            known_status(await manager.now(), model)
            found = await manager.available_history(model, chosen)
        else:
            found = await fleet.home.available_history(
                None, chosen, node=invocation.node
            )
        entries = found.entries[::-1]
        if invocation.json:
            invocation.screen.write_json(entries)
        else:
            show_entries(
                invocation.screen,
                entries,
                invocation.now,
                named=model is None,
                nodes=model is None and fleet.is_several,
            )
        write_missing(found.missing)


def show_entries(
    screen: Screen,
    entries: list[HistoryEntry],
    now: Now,
    *,
    named: bool,
    nodes: bool = False,
) -> None:
    """Write entries as a table.

    Args:
        screen: The output.
        entries: The entries, in the order to show them.
        now: The current time.
        named: Whether to show the model of each entry.
        nodes: Whether to show the node of each entry.
    """
    if not entries:
        screen.write("No events.")
    rows = [
        Row(
            [
                Piece(f"#{entry.position}", "dim"),
                Piece(now.clock(entry.recorded_at)),
                Piece((entry.model or entry.stream) if named else ""),
                Piece(node_of_stream(entry.stream) if nodes else ""),
                Piece(entry.sentence),
                Piece(who_text(entry), "dim"),
            ]
        )
        for entry in entries
    ]
    screen.write_table(_COLUMNS, rows, headers=False)


def node_of_stream(stream: str) -> str:
    """Return the node that a stream belongs to; empty if it belongs to none."""
    model = model_of(stream)
    return model.node if model else node_of(stream) or ""


@verb("as-of", HISTORY)
async def as_of(
    invocation: Invocation,
    when: Annotated[
        list[str], typer.Argument(metavar="WHEN", help=f"Time or position. {EXAMPLES}")
    ],
    *,
    role: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE",
            help="Show only the recommendation for this role.",
            autocompletion=complete_role,
        ),
    ] = None,
) -> None:
    """Show the models as they were at a time or a position."""
    asked = invocation.now.parse(" ".join(when))
    async with invocation.reading(refresh=False, log_only=True) as fleet:
        nodes = await read_models_at(fleet, asked)
        if invocation.json:
            invocation.screen.write_json(await _as_of_shape(nodes, role))
            return
        await _show_models(invocation, fleet, nodes, role)


async def read_models_at(fleet: Fleet, asked: int | datetime) -> list[ReadModel]:
    """Return the models of each node at a position or a time.

    Raises:
        NothingFoundError: The position does not exist yet.
    """
    end = (await fleet.home.now()).position
    if isinstance(asked, int) and asked > end:
        raise NothingFoundError(
            f"#{asked}",
            f"does not exist yet; the last event is #{end}",
            "Show the last events: herdbook log",
        )
    return await fleet.as_of(asked)


async def _as_of_shape(
    nodes: list[ReadModel], role: str | None
) -> shapes.AsOf | shapes.AsOfNodes:
    roles = [each.value for each in ModelRole] if role is None else [role]
    if len(nodes) == 1:
        return await shapes.as_of(nodes[0], roles)
    return await shapes.as_of_nodes(nodes, roles)


async def _show_models(
    invocation: Invocation, fleet: Fleet, nodes: list[ReadModel], role: str | None
) -> None:
    screen, now, several = invocation.screen, invocation.now, len(nodes) > 1
    position = nodes[0].position
    at = nodes[0].asked or await _recorded_at(fleet.home, position)
    # Before the title: the role may not exist.
    answer = None if role is None else shapes.recommendation(nodes, role)
    title = f"As of {now.clock(at)}" if at else "Before the first event"
    place = f" (#{position})" if position else ""
    screen.write(Piece(f"{title}{place}:", "bold yellow"))
    then = now if at is None else Now(at, now.zone)
    if answer is not None:
        ranking.show(screen, answer, fleet.registry, then, nodes=several)
        return
    table = models_table.ModelsTable(nodes, fleet.registry, then)
    statuses = table.chosen()
    screen.write_table(table.columns, table.rows(statuses), headers=bool(statuses))
    screen.write_lines(models_table.footers(nodes, statuses, then))
    if statuses:
        screen.write("")
        answers = [shapes.recommendation(nodes, each) for each in ModelRole]
        ranking.show_overview(screen, answers, then, nodes=several)


async def _recorded_at(manager: ModelManager, position: int) -> datetime | None:
    if position == 0:
        return None
    async with aclosing(events_between(manager, position - 1, position)) as events:
        async for event in events:
            return event.recorded_at
    return None
