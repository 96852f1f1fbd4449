"""The verb ``log``: the events as they are recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated

import msgspec
import typer

from herdbook.cli.app import HISTORY, verb
from herdbook.cli.commands.log.filters import (
    Actors,
    Causes,
    Since,
    Types,
    Until,
    chosen_events,
)
from herdbook.cli.errors import UsageError
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import known_status, node_for
from herdbook.cli.options import AnyModel, NoRefresh
from herdbook.cli.output import Piece, Screen
from herdbook.cli.render.missing import write_missing
from herdbook.core import Fleet, HistoryFilter, ModelManager, RecordedEvent
from herdbook.events.recorded import time_text
from herdbook.events.streams import is_of_node, model_stream

_NEWEST = 20
"""Events that are shown if neither a start nor a number is given."""

_PAGE = 5_000
"""Events that are read before the first of them is shown."""


@verb("log", HISTORY)
async def log(  # noqa: PLR0913 - the options of a verb
    invocation: Invocation,
    model: AnyModel = None,
    *,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Keep printing new events until Ctrl-C."),
    ] = False,
    after: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Start after position N.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Show at most N events. Default: the newest 20; all with --after or "
            "--since.",
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    types: Types = None,
    causes: Causes = None,
    actors: Actors = None,
    no_refresh: NoRefresh = False,
) -> None:
    """Print the log, one event per line, oldest first."""
    if follow:
        has_start = after is not None or since is not None
        _check_follow(limited=has_start and limit is not None, until=until)
    chosen = chosen_events(
        invocation.now,
        types=types,
        causes=causes,
        actors=actors,
        since=since,
        until=until,
    )
    async with invocation.reading(refresh=not no_refresh, log_only=True) as fleet:
        manager = fleet.home
        stream = await _stream(invocation, fleet, model)
        wanted = partial(_wanted, chosen, stream, invocation.node)
        end = (await manager.now()).position
        if after is None and since is None:
            # Up to the end: those recorded meanwhile would be followed, too.
            newest = await _newest(
                manager, chosen, stream, wanted, limit=limit or _NEWEST, end=end
            )
            recorded = _each(newest)
        else:
            recorded = _oldest(
                manager, chosen, stream, wanted, start=after or 0, end=end, limit=limit
            )
        async with aclosing(recorded):
            if invocation.json and not follow:
                invocation.screen.write_json([event async for event in recorded])
                return
            async for event in recorded:
                _print(invocation, event)
        if follow:
            await _follow(invocation, manager, end, wanted)


def _check_follow(*, limited: bool, until: str | None) -> None:
    """Refuse options with which ``--follow`` would leave out events.

    Args:
        limited: Whether only the first events after a start are wanted.
        until: The time of the last event; None for none.

    Raises:
        UsageError: There is such an option.
    """
    if until is not None:
        raise UsageError(
            "--follow and --until", "cannot be used together", "Leave out one of them"
        )
    if limited:
        raise UsageError(
            "--follow and --limit",
            "cannot be used with --after or --since: events after the first N would "
            "be skipped",
            "Leave out --limit or --follow",
        )


async def _each(events: list[RecordedEvent]) -> AsyncGenerator[RecordedEvent, None]:
    for event in events:
        yield event


async def _stream(invocation: Invocation, fleet: Fleet, model: str | None) -> str:
    """Return the stream of a model; empty for all streams."""
    if model is None:
        return ""
    manager = await node_for(invocation, fleet, model)
    status = known_status(await manager.now(), model)
    return model_stream(status.node, status.name)


def _wanted(
    chosen: HistoryFilter, stream: str, node: str | None, event: RecordedEvent
) -> bool:
    return (
        stream in ("", event.stream)
        and (node is None or is_of_node(event.stream, node))
        and chosen.matches(event)
    )


async def _newest(
    manager: ModelManager,
    chosen: HistoryFilter,
    stream: str,
    wanted: Callable[[RecordedEvent], bool],
    *,
    limit: int,
    end: int,
) -> list[RecordedEvent]:
    """Return the newest wanted events up to a position, the oldest of them first."""
    found: list[RecordedEvent] = []
    before: int | None = end + 1
    while len(found) < limit:
        page = await manager.read_log(
            before=before,
            limit=limit,
            newest_first=True,
            stream_prefix=stream,
            chosen=chosen,
        )
        found += [event for event in page.events if wanted(event)]
        before = page.next
        if page.missing and len(found) < limit:
            write_missing(page.missing)
            break
        if before is None:
            break
    return found[:limit][::-1]


async def _oldest(
    manager: ModelManager,
    chosen: HistoryFilter,
    stream: str,
    wanted: Callable[[RecordedEvent], bool],
    *,
    start: int,
    end: int,
    limit: int | None,
) -> AsyncGenerator[RecordedEvent, None]:
    """Yield the wanted events from a position on, up to another."""
    left = limit
    after: int | None = start
    while after is not None:
        page = await manager.read_log(
            after=after,
            before=end + 1,
            limit=_PAGE,
            stream_prefix=stream,
            chosen=chosen,
        )
        for event in page.events:
            if wanted(event):
                yield event
                left = None if left is None else left - 1
            if left == 0:
                return
        after = page.next


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


async def _follow(
    invocation: Invocation,
    manager: ModelManager,
    start: int,
    wanted: Callable[[RecordedEvent], bool],
) -> None:
    """Print new events until Ctrl-C, which counts as success."""
    try:
        async with aclosing(events_between(manager, start, None)) as events:
            async for event in events:
                if wanted(event):
                    _print(invocation, event)
    except asyncio.CancelledError:
        return


def _print(invocation: Invocation, event: RecordedEvent) -> None:
    if invocation.json:
        invocation.screen.write_json(event, in_lines=True)
    else:
        _print_event(invocation.screen, event)


def _print_event(screen: Screen, event: RecordedEvent) -> None:
    screen.write(
        Piece(f"#{event.position} {time_text(event.recorded_at)} ", "dim"),
        Piece(event.type, "bold"),
        f" {event.stream} v{event.version} ",
        msgspec.json.encode(event.data).decode(),
        Piece(f" {event.cause} {event.actor}", "dim"),
    )
    screen.stream.flush()
