"""Verbs for the past: ``history``, ``log`` and ``as-of``."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated

import msgspec
import typer

from herdbook.cli.app import HISTORY, verb
from herdbook.cli.completion import complete_role, complete_type
from herdbook.cli.errors import NothingFoundError, UsageError
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import known_status, node_for
from herdbook.cli.options import AnyModel, NoRefresh
from herdbook.cli.output import Column, Piece, Row, Screen
from herdbook.cli.render import models as models_table
from herdbook.cli.render import ranking
from herdbook.core import (
    Cause,
    Fleet,
    HistoryEntry,
    HistoryFilter,
    ModelManager,
    ModelRole,
    ReadModel,
    RecordedEvent,
)
from herdbook.events.recorded import time_text
from herdbook.events.streams import is_of_node, model_of, node_of
from herdbook.presentation import shapes
from herdbook.presentation.event_types import event_type_remedy, parse_event_type
from herdbook.presentation.times import FORMS, Now
from herdbook.presentation.wording import who_text

_FORMS = f"Examples: {', '.join(FORMS)}."
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
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help=f"Only events recorded since WHEN. {_FORMS}"),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Only events recorded until WHEN."),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Only events of this type. Repeatable.",
            autocompletion=complete_type,
        ),
    ] = None,
    causes: Annotated[
        list[Cause] | None,
        typer.Option("--cause", help="Only events with this cause. Repeatable."),
    ] = None,
    actors: Annotated[
        list[str] | None,
        typer.Option(
            "--actor",
            metavar="TEXT",
            help="Only actors whose name starts with TEXT. Repeatable.",
        ),
    ] = None,
    no_refresh: NoRefresh = False,
) -> None:
    """Show the events of a model, or of all models, newest first."""
    chosen = HistoryFilter(
        types=parse_types(types),
        causes=frozenset(causes) if causes else None,
        actors=tuple(actors) if actors else None,
        since=_time(since, invocation.now),
        until=_time(until, invocation.now),
        limit=limit,
    )
    async with invocation.reading(refresh=not no_refresh) as fleet:
        if model is not None:
            manager = await node_for(invocation, fleet, model)
            known_status(await manager.now(), model)
            entries = await manager.history(model, chosen)
        else:
            entries = await fleet.home.history(None, chosen, node=invocation.node)
        entries.reverse()
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


def parse_types(names: list[str] | None) -> frozenset[str] | None:
    """Return the event types of an option; None if it was not given.

    Raises:
        UsageError: There is no such type.
    """
    found = set()
    for name in names or []:
        type_ = parse_event_type(name)
        if type_ is None:
            raise UsageError(
                repr(name), "is not an event type", event_type_remedy(name)
            )
        found.add(type_)
    return frozenset(found) or None


def _time(text: str | None, now: Now) -> datetime | None:
    if text is None:
        return None
    when = now.parse(text)
    if isinstance(when, int):
        raise UsageError(
            repr(text), "is a position", "Use a time, such as yesterday 17:40"
        )
    return when


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


@verb("log", HISTORY)
async def log(
    invocation: Invocation,
    *,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Continue with new events until Ctrl-C."),
    ] = False,
    after: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Start after position N.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Show at most N events; without --after the newest 20.",
        ),
    ] = None,
    no_refresh: NoRefresh = False,
) -> None:
    """Print the recorded events, one per line, oldest first."""
    async with invocation.reading(refresh=not no_refresh) as fleet:
        manager, node = fleet.home, invocation.node
        end = (await manager.now()).position
        start = max(end - (limit or 20), 0) if after is None else after
        last = end if limit is None else min(start + limit, end)
        if node is not None:
            start, last = await _of_node(manager, node, after, limit, end)
        if invocation.json and not follow:
            events = [each async for each in events_between(manager, start, last, node)]
            invocation.screen.write_json(events)
            return
        if follow or last > start:
            last_shown = None if follow else last
            await _print_events(invocation, manager, start, last_shown, node)


async def _of_node(
    manager: ModelManager, node: str, after: int | None, limit: int | None, end: int
) -> tuple[int, int]:
    """Return the positions between which the wanted events of a node are."""
    if after is not None and limit is None:
        return after, end
    found: deque[int] = deque(maxlen=limit or 20)
    async with aclosing(events_between(manager, after or 0, end, node)) as events:
        async for event in events:
            if after is not None and len(found) == limit:
                break
            found.append(event.position)
    return (found[0] - 1, found[-1]) if found else (end, end)


async def events_between(
    manager: ModelManager, start: int, end: int | None, node: str | None = None
) -> AsyncGenerator[RecordedEvent, None]:
    """Yield the events after a position up to another; without one, also new events.

    With a node, only its events and those of its models.
    """
    if end is not None and end <= start:
        return
    async with aclosing(manager.events(after=start)) as events:
        async for event in events:
            if node is None or is_of_node(event.stream, node):
                yield event
            if event.position == end:
                return


async def _print_events(
    invocation: Invocation,
    manager: ModelManager,
    start: int,
    end: int | None,
    node: str | None,
) -> None:
    """Print events; Ctrl-C ends ``--follow`` without an error."""
    try:
        async with aclosing(events_between(manager, start, end, node)) as events:
            async for event in events:
                if invocation.json:
                    invocation.screen.write_json(event, in_lines=True)
                else:
                    _print_event(invocation.screen, event)
    except asyncio.CancelledError:
        if end is not None:
            raise


def _print_event(screen: Screen, event: RecordedEvent) -> None:
    screen.write(
        Piece(f"#{event.position} {time_text(event.recorded_at)} ", "dim"),
        Piece(event.type, "bold"),
        f" {event.stream} v{event.version} ",
        msgspec.json.encode(event.data).decode(),
        Piece(f" {event.cause} {event.actor}", "dim"),
    )
    screen.stream.flush()


@verb("as-of", HISTORY)
async def as_of(
    invocation: Invocation,
    when: Annotated[
        list[str], typer.Argument(metavar="WHEN", help=f"Time or position. {_FORMS}")
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
    async with invocation.reading(refresh=False) as fleet:
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
    title = f"As of {now.clock(at)}" if at else "Before the first event"
    screen.write(Piece(f"{title} (#{position}):", "bold yellow"))
    then = now if at is None else Now(at, now.zone)
    if role is not None:
        answer = shapes.recommendation(nodes, role)
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
