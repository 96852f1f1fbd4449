"""Verbs that tell what was: history, log, as-of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated

import msgspec
import typer

from herdbook.cli.app import PAST, verb
from herdbook.cli.errors import NothingFoundError, UsageError
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import known_status
from herdbook.cli.options import AnyModel, NoRefresh, complete_role, complete_type
from herdbook.cli.output import Column, Piece, Row, Screen
from herdbook.cli.render import models as herd
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
from herdbook.events.facts import FACTS
from herdbook.events.recorded import time_text
from herdbook.presentation import shapes
from herdbook.presentation.times import FORMS, Now
from herdbook.presentation.wording import who_text

_FORMS = f"Forms: {', '.join(FORMS)}."
_COLUMNS = (
    Column("#", right=True),
    Column("WHEN"),
    Column("MODEL", gives_way=1),
    Column("WHAT"),
    Column("WHO", gives_way=2),
)


@verb("history", PAST)
async def history(  # noqa: PLR0913 - the options of a verb
    invocation: Invocation,
    model: AnyModel = None,
    *,
    limit: Annotated[int, typer.Option(min=1, help="Only the newest so many.")] = 50,
    since: Annotated[
        str | None, typer.Option(help=f"Recorded at or after. {_FORMS}")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Recorded at or before.")] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only these events.", autocompletion=complete_type),
    ] = None,
    causes: Annotated[
        list[Cause] | None, typer.Option("--cause", help="Only with these causes.")
    ] = None,
    actors: Annotated[
        list[str] | None, typer.Option("--actor", help="Only by those who begin so.")
    ] = None,
    no_refresh: NoRefresh = False,
) -> None:
    """Tell what happened to a model, or to all; newest first."""
    chosen = HistoryFilter(
        types=_types(types),
        causes=frozenset(causes) if causes else None,
        actors=tuple(actors) if actors else None,
        since=_moment(since, invocation.now),
        until=_moment(until, invocation.now),
        limit=limit,
    )
    async with invocation.reading(look=not no_refresh) as manager:
        if model is not None:
            known_status(await manager.now(), model)
        entries = (await manager.history(model, chosen))[::-1]
        if invocation.json:
            invocation.screen.write_json(entries)
        else:
            show_entries(
                invocation.screen, entries, invocation.now, named=model is None
            )


def _types(names: list[str] | None) -> frozenset[str] | None:
    known = {fact.__name__ for fact in FACTS}
    for name in names or []:
        if name not in known:
            raise UsageError(
                repr(name), "is no event", f"Events are {', '.join(sorted(known))}"
            )
    return frozenset(names) if names else None


def _moment(text: str | None, now: Now) -> datetime | None:
    if text is None:
        return None
    when = now.read(text)
    if isinstance(when, int):
        raise UsageError(repr(text), "is a position", "A time is wanted here")
    return when


def show_entries(
    screen: Screen, entries: list[HistoryEntry], now: Now, *, named: bool
) -> None:
    """Write entries as a table.

    Args:
        screen: Where to.
        entries: The entries, in the order to show them.
        now: The present.
        named: Whether to tell whose they are.
    """
    if not entries:
        screen.write("Nothing recorded.")
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


@verb("log", PAST)
async def log(
    invocation: Invocation,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is recorded.")
    ] = False,
    after: Annotated[
        int | None, typer.Option(min=0, help="Begin behind this position.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At most so many; without --after the newest [20], then what comes.",
        ),
    ] = None,
    no_refresh: NoRefresh = False,
) -> None:
    """Print the events themselves, one in a line.

    With --follow it goes on with what is recorded, until Ctrl-C.
    """
    async with invocation.reading(look=not no_refresh) as manager:
        end = (await manager.now()).position
        begin = max(end - (limit or 20), 0) if after is None else after
        last = end if limit is None else min(begin + limit, end)
        if invocation.json and not follow:
            events = [event async for event in events_between(manager, begin, last)]
            invocation.screen.write_json(events)
            return
        if follow or last > begin:
            await _print_events(invocation, manager, begin, None if follow else last)


async def events_between(
    manager: ModelManager, begin: int, end: int | None
) -> AsyncGenerator[RecordedEvent, None]:
    """Yield events from behind a position to another, or for ever."""
    if end is not None and end <= begin:
        return
    async with aclosing(manager.events(after=begin)) as events:
        async for event in events:
            yield event
            if event.position == end:
                return


async def _print_events(
    invocation: Invocation, manager: ModelManager, begin: int, end: int | None
) -> None:
    """Print events as they come; Ctrl-C ends what has no end by itself."""
    try:
        async with aclosing(events_between(manager, begin, end)) as events:
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


@verb("as-of", PAST)
async def as_of(
    invocation: Invocation,
    when: Annotated[
        list[str], typer.Argument(metavar="WHEN", help=f"Which moment. {_FORMS}")
    ],
    *,
    role: Annotated[
        str | None,
        typer.Option(
            help="Only which model was to be used for it.", autocompletion=complete_role
        ),
    ] = None,
) -> None:
    """Show everything as it was at a time or a position."""
    moment_asked = invocation.now.read(" ".join(when))
    async with invocation.reading(look=False) as manager:
        moment = await moment_at(manager, moment_asked)
        if invocation.json:
            invocation.screen.write_json(await _as_of_shape(moment, role))
            return
        await _show_moment(invocation, manager, moment, role)


async def moment_at(manager: ModelManager, asked: int | datetime) -> ReadModel:
    """Return what the log said at a position or a time.

    Raises:
        NothingFoundError: The position is behind its end.
    """
    end = (await manager.now()).position
    if isinstance(asked, int) and asked > end:
        raise NothingFoundError(
            f"#{asked}",
            f"is behind the end of the log, #{end}",
            "To see the end: herdbook log",
        )
    return await manager.as_of(asked)


async def _as_of_shape(moment: ReadModel, role: str | None) -> shapes.AsOf:
    roles = [each.value for each in ModelRole] if role is None else [role]
    return await shapes.as_of(moment, roles)


async def _show_moment(
    invocation: Invocation, manager: ModelManager, moment: ReadModel, role: str | None
) -> None:
    screen, now = invocation.screen, invocation.now
    at = moment.asked or await _recorded_at(manager, moment.position)
    told = f"As of {now.clock(at)}" if at else "Before the first event"
    screen.write(
        Piece(f"{told} (#{moment.position}), as the log has it:", "bold yellow")
    )
    then = now if at is None else Now(at, now.zone)
    if role is not None:
        ranking.show(screen, moment.explain(role), manager.registry, then)
        return
    table = herd.ModelsTable(moment, manager.registry, then)
    statuses = table.chosen()
    screen.write_table(herd.COLUMNS, table.rows(statuses), headers=bool(statuses))
    screen.write_lines([herd.footer(moment, statuses, then)])
    if statuses:
        screen.write("")
        answers = [moment.explain(each) for each in ModelRole]
        ranking.show_overview(screen, answers, then)


async def _recorded_at(manager: ModelManager, position: int) -> datetime | None:
    if position == 0:
        return None
    async with aclosing(events_between(manager, position - 1, position)) as events:
        async for event in events:
            return event.recorded_at
    return None
