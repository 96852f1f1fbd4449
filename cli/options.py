"""Arguments and options that several verbs have, and what completes them."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from herdbook.cli.invocation import Invocation
from herdbook.core import HerdbookError, ModelRole
from herdbook.core.clock import SystemClock
from herdbook.core.storage import Storage
from herdbook.events.facts import FACTS
from herdbook.events.streams import MODEL_PREFIX, model_of


def complete_model(incomplete: str) -> list[str]:
    """Return the models that the log has ever known and that begin so."""
    log = Invocation().log
    if not log.exists():
        return []
    try:
        names = asyncio.run(_names(str(log)))
    except HerdbookError:
        return []  # a shell that completes is no place for errors
    return [name for name in names if name.startswith(incomplete)]


async def _names(log: str) -> list[str]:
    async with Storage.open(log, SystemClock()) as storage:
        found = set()
        async for event in storage.store.read_all(stream_prefix=MODEL_PREFIX):
            key = model_of(event.stream)
            found.add(key.name if key else "")
        return sorted(found)


def complete_role(incomplete: str) -> list[str]:
    """Return the roles that begin so."""
    return [role.value for role in ModelRole if role.value.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Name of the model; llama3.1 is llama3.1:latest.",
        autocompletion=complete_model,
    ),
]
AnyModel = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="Name of the model; without it, all.",
        autocompletion=complete_model,
    ),
]
Role = Annotated[
    str,
    typer.Argument(
        metavar="ROLE",
        help=f"What for: {', '.join(ModelRole)}.",
        autocompletion=complete_role,
    ),
]
NoRefresh = Annotated[
    bool,
    typer.Option(
        "--no-refresh", help="Do not look at the server; show what the log has."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what it will cost, and do nothing."),
]
AnyRole = Annotated[
    str | None,
    typer.Argument(
        metavar="[ROLE]",
        help=f"What for: {', '.join(ModelRole)}; without it, each.",
        autocompletion=complete_role,
    ),
]


def complete_type(incomplete: str) -> list[str]:
    """Return the names of facts that begin so."""
    return [f.__name__ for f in FACTS if f.__name__.startswith(incomplete)]
