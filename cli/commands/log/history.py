"""Verbs for the past: ``history``, ``log`` and ``as-of``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated

import msgspec
import typer

from herdbook.cli.app import HISTORY, verb
from herdbook.cli.errors import NothingFoundError, UsageError
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import known_status
from herdbook.cli.options import AnyModel, NoRefresh, complete_role, complete_type
from herdbook.cli.output import Column, Piece, Row, Screen
from herdbook.cli.render import models as models_table
from herdbook.cli.render import ranking
from herdbook.core import (
    Cause,
    HistoryEntry,
    HistoryFilter,
    ModelManager,
    ModelRole,
    ReadModel,
    RecordedEvent,
)
from herdbook.events.recorded import time_text
from herdbook.presentation import shapes
from herdbook.presentation.event_types import event_type_remedy, parse_event_type
from herdbook.presentation.times import FORMS, Now
from herdbook.presentation.wording import who_text

_FORMS = f"Examples: {', '.join(FORMS)}."
_COLUMNS = (
    Column("#", right=True),
    Column("WHEN"),
    Column("MODEL", gives_way=1),
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
    async with invocation.reading(refresh=not no_refresh) as manager:
        if model is not None:
            known_status(await manager.now(), model)
        entries = (await manager.history(model, chosen))[::-1]
        if invocation.json:
            invocation.screen.write_json(entries)
        else:
            show_entries(
                invocation.screen, entries, invocation.now, named=model is None
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
    screen: Screen, entries: list[HistoryEntry], now: Now, *, named: bool
) -> None:
    """Write entries as a table.

    Args:
        screen: The output.
        entries: The entries, in the order to show them.
        now: The current time.
        named: Whether to show the model of each entry.
    """
    if not entries:
        screen.write("No events.")
    rows = [
        Row(
            [
                Piece(f"#{entry.position}", "dim"),
                Piece(now.clock(entry.recorded_at)),
                Piece((entry.model or entry.stream) if named else ""),
                Piece(entry.sentence),
                Piece(who_text(entry), "dim"),
            ]
        )
        for entry in entries
    ]
    screen.write_table(_COLUMNS, rows, headers=False)


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
    async with invocation.reading(refresh=not no_refresh) as manager:
        end = (await manager.now()).position
        start = max(end - (limit or 20), 0) if after is None else after
        last = end if limit is None else min(start + limit, end)
        if invocation.json and not follow:
            events = [event async for event in events_between(manager, start, last)]
            invocation.screen.write_json(events)
            return
        if follow or last > start:
            await _print_events(invocation, manager, start, None if follow else last)


async def events_between(
    manager: ModelManager, start: int, end: int | None
) -> AsyncGenerator[RecordedEvent, None]:
    """Yield the events after a position up to another; without one, also new events."""
    if end is not None and end <= start:
        return
    async with aclosing(manager.events(after=start)) as events:
        async for event in events:
            yield event
            if event.position == end:
                return


async def _print_events(
    invocation: Invocation, manager: ModelManager, start: int, end: int | None
) -> None:
    """Print events; Ctrl-C ends ``--follow`` without an error."""
    try:
        async with aclosing(events_between(manager, start, end)) as events:
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
    async with invocation.reading(refresh=False) as manager:
        models = await read_model_at(manager, asked)
        if invocation.json:
            invocation.screen.write_json(await _as_of_shape(models, role))
            return
        await _show_models(invocation, manager, models, role)


async def read_model_at(manager: ModelManager, asked: int | datetime) -> ReadModel:
    """Return the models at a position or a time.

    Raises:
        NothingFoundError: The position does not exist yet.
    """
    end = (await manager.now()).position
    if isinstance(asked, int) and asked > end:
        raise NothingFoundError(
            f"#{asked}",
            f"does not exist yet; the last event is #{end}",
            "Show the last events: herdbook log",
        )
    return await manager.as_of(asked)


async def _as_of_shape(models: ReadModel, role: str | None) -> shapes.AsOf:
    roles = [each.value for each in ModelRole] if role is None else [role]
    return await shapes.as_of(models, roles)


async def _show_models(
    invocation: Invocation, manager: ModelManager, models: ReadModel, role: str | None
) -> None:
    screen, now = invocation.screen, invocation.now
    at = models.asked or await _recorded_at(manager, models.position)
    title = f"As of {now.clock(at)}" if at else "Before the first event"
    screen.write(Piece(f"{title} (#{models.position}):", "bold yellow"))
    then = now if at is None else Now(at, now.zone)
    if role is not None:
        ranking.show(screen, models.explain(role), manager.registry, then)
        return
    table = models_table.ModelsTable(models, manager.registry, then)
    statuses = table.chosen()
    screen.write_table(
        models_table.COLUMNS, table.rows(statuses), headers=bool(statuses)
    )
    screen.write_lines([models_table.footer(models, statuses, then)])
    if statuses:
        screen.write("")
        answers = [models.explain(each) for each in ModelRole]
        ranking.show_overview(screen, answers, then)


async def _recorded_at(manager: ModelManager, position: int) -> datetime | None:
    if position == 0:
        return None
    async with aclosing(events_between(manager, position - 1, position)) as events:
        async for event in events:
            return event.recorded_at
    return None
