"""Arguments and options that several verbs share, with their completion."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from herdbook.cli.invocation import Invocation
from herdbook.core import HerdbookError, ModelRole
from herdbook.core.clock import SystemClock
from herdbook.core.log.location import LogLocation
from herdbook.core.log.storage import Storage, log_exists
from herdbook.events.facts import FACTS
from herdbook.events.streams import MODEL_PREFIX, model_of


def complete_model(incomplete: str) -> list[str]:
    """Return the names of models in the log that start with a text."""
    keys = map(model_of, _streams(MODEL_PREFIX))
    return sorted({key.name for key in keys if key and key.name.startswith(incomplete)})


def complete_stream(incomplete: str) -> list[str]:
    """Return the streams of the log that start with a text."""
    return sorted(_streams(incomplete))


def _streams(prefix: str) -> set[str]:
    try:
        return asyncio.run(_read_streams(Invocation().log, prefix))
    except HerdbookError:
        return set()  # an error would garble the shell's prompt


async def _read_streams(log: LogLocation, prefix: str) -> set[str]:
    if not await log_exists(log):
        return set()
    async with Storage.open(log, SystemClock()) as storage:
        events = storage.store.read_all(stream_prefix=prefix)
        return {event.stream async for event in events}


def complete_role(incomplete: str) -> list[str]:
    """Return the roles that start with a text."""
    return [role.value for role in ModelRole if role.value.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model name; the tag defaults to latest.",
        autocompletion=complete_model,
    ),
]
Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="Model names; the tag defaults to latest.",
        autocompletion=complete_model,
    ),
]
AnyModel = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="Model name; default: all models.",
        autocompletion=complete_model,
    ),
]
Role = Annotated[
    str,
    typer.Argument(
        metavar="ROLE",
        help=f"Role: {', '.join(ModelRole)}.",
        autocompletion=complete_role,
    ),
]
NoRefresh = Annotated[
    bool,
    typer.Option(
        "--no-refresh", help="Do not ask the server; show the state in the log."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Show the cost, and change nothing."),
]
Port = Annotated[
    int,
    typer.Option(min=0, max=65535, metavar="PORT", help="Port, or 0 for any free one."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--tokens", metavar="FILE", help="File with tokens; see herdbook token."
    ),
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="Accept requests for this host name. Repeatable.",
    ),
]
AnyRole = Annotated[
    str | None,
    typer.Argument(
        metavar="[ROLE]",
        help=f"Role: {', '.join(ModelRole)}; default: every role.",
        autocompletion=complete_role,
    ),
]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def complete_type(incomplete: str) -> list[str]:
    """Return the event types that start with a text."""
    return [f.__name__ for f in FACTS if f.__name__.startswith(incomplete)]
