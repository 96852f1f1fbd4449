"""Verbs that tell what is now: ls, show, recommend, suggest."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from herdbook.cli.app import LOOK, verb
from herdbook.cli.errors import DONE, NOT_FOUND, UsageError
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import known_status
from herdbook.cli.options import AnyRole, Model, NoRefresh, Role
from herdbook.cli.render import model as card
from herdbook.cli.render import models as herd
from herdbook.cli.render import ranking
from herdbook.core import ModelRole, ReadModel
from herdbook.presentation import shapes

_UNITS = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "gib": 2**30, "mib": 2**20}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+)", re.IGNORECASE)


@verb("ls", LOOK)
async def ls(
    invocation: Invocation,
    *,
    every: Annotated[
        bool, typer.Option("--all", "-a", help="Also models that are gone.")
    ] = False,
    no_refresh: NoRefresh = False,
) -> None:
    """List the models, and what goes on."""
    async with invocation.reading(look=not no_refresh) as manager:
        moment = await manager.now()
        screen = invocation.screen
        table = herd.ModelsTable(
            moment, manager.registry, invocation.now, bars=screen.interactive
        )
        statuses = table.chosen(gone=every)
        if invocation.json:
            screen.write_json([shapes.model(status, moment) for status in statuses])
            return
        if statuses:
            screen.write_table(herd.COLUMNS, table.rows(statuses))
        else:
            screen.write(_advice(invocation, moment, asked=not no_refresh))
        remark = ", not asked now" if no_refresh else ""
        foot = herd.footer(moment, statuses, invocation.now, remark=remark)
        screen.write_lines([foot])


def _advice(invocation: Invocation, moment: ReadModel, *, asked: bool) -> str:
    """Return what to do where there are no models."""
    if moment.node_status().reached or not asked:
        return "No models here. To find one: herdbook suggest general"
    return (
        f"No server answers at {invocation.url}. "
        "Start it with 'ollama serve', or set OLLAMA_HOST to where it is."
    )


@verb("show", LOOK)
async def show(
    invocation: Invocation, model: Model, *, no_refresh: NoRefresh = False
) -> None:
    """Show one model: facts with sources, settings, use."""
    async with invocation.reading(look=not no_refresh) as manager:
        moment = await manager.now()
        status = known_status(moment, model)
        if invocation.json:
            invocation.screen.write_json(shapes.model(status, moment))
            return
        entries = await manager.history(status.name)
        shown = card.Card(status, moment, entries, invocation.now)
        invocation.screen.write_lines(shown.lines())


@verb("recommend", LOOK)
async def recommend(
    invocation: Invocation, role: AnyRole = None, *, no_refresh: NoRefresh = False
) -> int:
    """Tell which model to use for a role, and why.

    Also who was passed over. Without a role: the first choice of each. Exit code 3
    if no model fits.
    """
    async with invocation.reading(look=not no_refresh) as manager:
        moment = await manager.now()
        screen = invocation.screen
        if role is None:
            answers = [moment.explain(each) for each in ModelRole]
            if invocation.json:
                screen.write_json(answers)
            else:
                ranking.show_overview(screen, answers, invocation.now)
            return DONE
        answer = moment.explain(role)
        if invocation.json:
            screen.write_json(answer)
        else:
            ranking.show(screen, answer, manager.registry, invocation.now)
        return DONE if answer.chosen else NOT_FOUND


@verb("suggest", LOOK)
async def suggest(
    invocation: Invocation,
    role: Role,
    *,
    memory: Annotated[
        str | None,
        typer.Option(help="Memory that a model may need, such as 16GB."),
    ] = None,
    no_refresh: NoRefresh = False,
) -> None:
    """Suggest models that are worth pulling for a role."""
    limit = None if memory is None else read_size(memory)
    async with invocation.reading(look=not no_refresh) as manager:
        found = await manager.suggest(role, memory_bytes=limit)
        if invocation.json:
            invocation.screen.write_json([shapes.suggested(each) for each in found])
        else:
            ranking.show_suggestions(invocation.screen, found, role)


def read_size(text: str) -> int:
    """Return the bytes that a size means: ``16GB``, ``8 GiB``.

    Raises:
        UsageError: It is no size.
    """
    found = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise UsageError(f"{text[:80]!r}", "is no size", "Write it as 16GB")
    return round(float(found[1]) * unit)
