"""Options that select events, shared by ``history`` and ``log``."""

from __future__ import annotations

from typing import Annotated

import typer

from herdbook.cli.completion import complete_type
from herdbook.cli.errors import UsageError
from herdbook.core import Cause, HistoryFilter
from herdbook.presentation.event_types import event_type_remedy, parse_event_type
from herdbook.presentation.times import FORMS, Now

EXAMPLES = f"Examples: {', '.join(FORMS)}."

Since = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help=f"Only events recorded since WHEN. {EXAMPLES}"),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="Only events recorded until WHEN."),
]
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        help="Only events of this type. Repeatable.",
        autocompletion=complete_type,
    ),
]
Causes = Annotated[
    list[Cause] | None,
    typer.Option("--cause", help="Only events with this cause. Repeatable."),
]
Actors = Annotated[
    list[str] | None,
    typer.Option(
        "--actor",
        metavar="TEXT",
        help="Only events by actors whose name starts with TEXT. Repeatable.",
    ),
]


def chosen_events(
    now: Now,
    *,
    types: list[str] | None,
    causes: list[Cause] | None,
    actors: list[str] | None,
    since: str | None,
    until: str | None,
    limit: int | None = None,
) -> HistoryFilter:
    """Return the filter of the options.

    Raises:
        UsageError: There is no such event type.
        InvalidTimeError: A time cannot be read.
    """
    return HistoryFilter(
        types=parse_types(types),
        causes=frozenset(causes) if causes else None,
        actors=tuple(actors) if actors else None,
        since=None if since is None else now.parse(since),
        until=None if until is None else now.parse(until),
        limit=limit,
    )


def parse_types(names: list[str] | None) -> frozenset[str] | None:
    """Return the event types of an option; None if it was not given.

    Raises:
        UsageError: There is no such type.
    """
    found: set[str] = set()
    for name in names or []:
        types = parse_event_type(name)
        if not types:
            raise UsageError(
                repr(name), "is not an event type", event_type_remedy(name)
            )
        found.update(types)
    return frozenset(found) or None
