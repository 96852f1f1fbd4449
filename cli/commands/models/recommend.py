"""The verbs ``recommend`` and ``suggest``: which model to use, and which to pull."""

from __future__ import annotations

from typing import Annotated

import typer

from herdbook.cli.app import INSPECT, verb
from herdbook.cli.errors import DONE, NOT_FOUND
from herdbook.cli.invocation import Invocation
from herdbook.cli.options import AnyRole, NoRefresh, Role, size_option
from herdbook.cli.render import ranking
from herdbook.core import ModelRole
from herdbook.core.fleet import queries
from herdbook.presentation import shapes


@verb("recommend", INSPECT)
async def recommend(
    invocation: Invocation, role: AnyRole = None, *, no_refresh: NoRefresh = False
) -> int:
    """Recommend a model for a role, with reasons.

    Also lists the models that do not fit. Without a role, shows the first choice for
    each role. The exit code is 3 if no model fits.
    """
    async with invocation.reading(refresh=not no_refresh) as fleet:
        screen, several = invocation.screen, fleet.is_several
        if role is None:
            answers = [await queries.explain(fleet, each) for each in ModelRole]
            if invocation.json:
                screen.write_json(answers)
            else:
                ranking.show_overview(screen, answers, invocation.now, nodes=several)
            return DONE
        answer = await queries.explain(fleet, role)
        if invocation.json:
            screen.write_json(answer)
        else:
            registry = fleet.registry
            ranking.show(screen, answer, registry, invocation.now, nodes=several)
        return DONE if answer.chosen else NOT_FOUND


@verb("suggest", INSPECT)
async def suggest(
    invocation: Invocation,
    role: Role,
    *,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Only models that need at most SIZE, such as 16GB."
        ),
    ] = None,
    no_refresh: NoRefresh = False,
) -> None:
    """Suggest models to pull for a role."""
    limit = None if memory is None else size_option(memory)
    async with invocation.reading(refresh=not no_refresh) as fleet:
        found = await queries.suggest(fleet, role, memory_bytes=limit)
        if invocation.json:
            invocation.screen.write_json([shapes.suggested(each) for each in found])
        else:
            ranking.show_suggestions(invocation.screen, found, role)
