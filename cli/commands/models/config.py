"""The verb ``config``: show or change the settings of a model."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated

import typer

from herdbook.cli.app import CHANGE, verb
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import known_status, node_for
from herdbook.cli.options import Model
from herdbook.cli.output import Column, Piece, Row
from herdbook.core import (
    Fleet,
    HerdbookError,
    ModelManager,
    ModelNotFoundError,
    ModelState,
    ModelStatus,
    OllamaError,
)
from herdbook.core.models.configuration import OPTION, parse
from herdbook.presentation import shapes
from herdbook.projections.sentences import setting_text

_OF_A_LOAD = frozenset({"num_ctx", "temperature", "keep_alive"})
"""Settings that a load uses, besides the options; others apply at once."""


@verb("config", CHANGE)
async def config(
    invocation: Invocation,
    model: Model,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="Settings to change."),
    ] = None,
    *,
    num_ctx: Annotated[
        str | None, typer.Option(metavar="TOKENS", help="Same as num_ctx=TOKENS.")
    ] = None,
    temperature: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Same as temperature=NUMBER.")
    ] = None,
    keep_alive: Annotated[
        str | None, typer.Option(metavar="TIME", help="Same as keep_alive=TIME.")
    ] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Remove a setting. Repeatable."),
    ] = None,
    note: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Reason for the change, shown in the history."
        ),
    ] = "",
) -> None:
    """Show or change the settings of a model.

    Settings: num_ctx, temperature, keep_alive, pinned, override, notes,
    options.<name> and capability.<name>.
    """
    named = {"num_ctx": num_ctx, "temperature": temperature, "keep_alive": keep_alive}
    given = [f"{name}={value}" for name, value in named.items() if value is not None]
    wanted = dict(parse(setting) for setting in [*(settings or []), *given])
    async with invocation.reading(refresh=False) as fleet:
        try:
            manager = await node_for(invocation, fleet, model)
        except ModelNotFoundError:
            await _refresh_all(fleet)
            manager = await node_for(invocation, fleet, model)
        if (await manager.get_status(model)).version == 0:
            with suppress(OllamaError):  # then the log alone decides
                await manager.refresh()
        before = known_status(await manager.now(), model)
        if wanted or unset:
            await manager.configure(model, wanted, unset=unset or [], note=note)
        await _write_settings(invocation, manager, model)
        after = await manager.get_status(model)
        if not invocation.json and _effect_text(before, after):
            # Whether it is loaded now, not when somebody last refreshed.
            with suppress(HerdbookError):
                await manager.refresh()
            after = await manager.get_status(model)
            if effect := _effect_text(before, after):
                invocation.screen.write(effect)


def _effect_text(before: ModelStatus, after: ModelStatus) -> str:
    """Return when changed settings take effect, if not at once or at the next load."""
    name, status = after.name, after
    changed = {
        each
        for each in before.settings.keys() | after.settings.keys()
        if before.settings.get(each) != after.settings.get(each)
    }
    if not any(each in _OF_A_LOAD or each.startswith(OPTION) for each in changed):
        return ""
    if status.state is ModelState.LOADED:
        return (
            f"{name} is loaded: the change takes effect at the next load. To reload it "
            f"now: herdbook load {name}"
        )
    if not status.present:
        return (
            f"{name} is not on the server: the change takes effect when it is pulled. "
            f"To pull it: herdbook pull {name}"
        )
    return ""


async def _refresh_all(fleet: Fleet) -> None:
    """Refresh all nodes that answer; for the others, the log alone decides."""
    refreshes = (manager.refresh() for manager in fleet.managers())
    for result in await asyncio.gather(*refreshes, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, OllamaError):
            raise result


async def _write_settings(
    invocation: Invocation, manager: ModelManager, model: str
) -> None:
    status = await manager.get_status(model)
    given = await manager.options_for(model)
    screen = invocation.screen
    if invocation.json:
        shape = shapes.Config(
            name=status.name,
            settings=status.settings,
            options=given.options,
            keep_alive=given.keep_alive,
        )
        screen.write_json(shape)
        return
    if not status.settings:
        screen.write(
            f"{status.name} has no settings: the defaults of the model and the server "
            "apply."
        )
        return
    rows = [
        Row([Piece(name), Piece(setting_text(value))])
        for name, value in sorted(status.settings.items())
    ]
    screen.write_table((Column("SETTING"), Column("VALUE")), rows)
