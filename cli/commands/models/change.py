"""Verbs that change models: ``load``, ``unload``, ``use`` and ``config``."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated

import typer

from herdbook.cli.app import CHANGE, verb
from herdbook.cli.batch import Target, check_names, for_each, targets
from herdbook.cli.completion import complete_role
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import find_present, known_status, node_for
from herdbook.cli.options import DryRun, Model, Models
from herdbook.cli.output import Column, Piece, Row
from herdbook.cli.render import costs
from herdbook.core import (
    Fleet,
    HistoryFilter,
    ModelManager,
    ModelNotFoundError,
    ModelRole,
    ModelState,
    ModelStatus,
    OllamaError,
    UnloadCost,
    UnloadResult,
)
from herdbook.core.models.configuration import OPTION, parse
from herdbook.events.facts import Setting
from herdbook.presentation import shapes
from herdbook.projections.sentences import setting_text

_LOADS = frozenset({"ModelLoaded", "RunnerChanged"})
_OF_A_LOAD = frozenset({"num_ctx", "temperature", "keep_alive"})
"""Settings that a load uses, besides the options; others apply at once."""


@verb("load", CHANGE)
async def load(
    invocation: Invocation,
    models: Models,
    *,
    num_ctx: Annotated[
        str | None,
        typer.Option(metavar="TOKENS", help="Context length for this load: 8192, 8k."),
    ] = None,
    keep_alive: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Time to stay loaded: 10m, 1h30m, seconds, or -1 for no limit.",
        ),
    ] = None,
    dry_run: DryRun = False,
) -> int:
    """Load models into memory, with their settings."""
    options: dict[str, Setting] = {}
    if num_ctx is not None:
        options.update([parse(f"num_ctx={num_ctx}")])
    kept_alive = _keep_alive(keep_alive)
    await check_names(invocation, models)
    async with invocation.acting() as fleet:
        chosen = await targets(invocation, fleet, models)
        many = len(chosen) > 1

        async def load_one(model: Target) -> None:
            manager, name = model.manager, model.name
            await find_present(manager, name)
            cost = await manager.cost_of_load(name)
            costs.write(invocation, cost, alone=dry_run, in_lines=many)
            if dry_run:
                return
            text = f"loading {model.label}"
            with invocation.screen.waiting(text, quiet=invocation.json):
                status = await manager.load(
                    name, options=options, keep_alive=kept_alive
                )
            text = await _loaded_text(model)
            await _write_status(invocation, manager, status, text, in_lines=many)

        return await for_each(invocation, chosen, load_one)


def _keep_alive(text: str | None) -> str | float | None:
    """Read a keep-alive in the same way as the setting."""
    if text is None:
        return None
    _, value = parse(f"keep_alive={text}")
    assert isinstance(value, str | int | float)
    return value


async def _loaded_text(model: Target) -> str:
    chosen = HistoryFilter(types=_LOADS, limit=1)
    entries = (await model.manager.available_history(model.name, chosen)).entries
    return f"{model.label} {entries[-1].sentence if entries else 'loaded'}"


async def _write_status(
    invocation: Invocation,
    manager: ModelManager,
    status: ModelStatus,
    text: str,
    *,
    in_lines: bool = False,
) -> None:
    """Write the result for a model: a sentence, or its status in JSON."""
    if invocation.json:
        result = shapes.model(status, await manager.now())
        invocation.screen.write_json(result, in_lines=in_lines)
    else:
        invocation.screen.write(text)


@verb("unload", CHANGE)
async def unload(invocation: Invocation, models: Models) -> int:
    """Unload models, and all that share their weights."""
    await check_names(invocation, models)
    async with invocation.acting() as fleet:
        chosen = await targets(invocation, fleet, models)

        async def unload_one(model: Target) -> None:
            await find_present(model.manager, model.name)
            cost = await model.manager.cost_of_unload(model.name)
            text = f"unloading {model.label}"
            with invocation.screen.waiting(text, quiet=invocation.json):
                result = await model.manager.unload(model.name)
            if invocation.json:
                unloaded = shapes.Unloaded(
                    name=cost.name, result=result.value, node=shapes.known(model.node)
                )
                invocation.screen.write_json(unloaded, in_lines=len(chosen) > 1)
            else:
                invocation.screen.write(_unloaded_text(model.label, cost, result))

        return await for_each(invocation, chosen, unload_one)


def _unloaded_text(model: str, cost: UnloadCost, result: UnloadResult) -> str:
    if result is UnloadResult.NOT_LOADED:
        return f"{model} was not loaded"
    if result is UnloadResult.DEFERRED:
        return f"{model} is in use; the server unloads it after the current request"
    also = f", with {', '.join(cost.also)} (same weights)" if cost.also else ""
    return f"{model} unloaded{also}"


@verb("use", CHANGE)
async def use(
    invocation: Invocation,
    model: Model,
    *,
    purpose: Annotated[
        str, typer.Option("--for", metavar="PURPOSE", help="Purpose, as free text.")
    ] = "",
    role: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE",
            help=f"Role that it was used for: {', '.join(ModelRole)}.",
            autocompletion=complete_role,
        ),
    ] = None,
) -> None:
    """Record that a model was used.

    Recently used models are recommended first.
    """
    async with invocation.reading() as fleet:
        manager = await node_for(invocation, fleet, model)
        await find_present(manager, model)
        status = await manager.mark_used(model, purpose=purpose, role=role)
        why = f": {purpose}" if purpose else ""
        await _write_status(invocation, manager, status, f"{status.name} used{why}")


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
        str, typer.Option(metavar="TEXT", help="Reason, shown in the history.")
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
        if not invocation.json and (effect := _effect_text(before, after)):
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
            f"now: herdbook unload {name}, then herdbook load {name}"
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
            f"{status.name} has no settings: the defaults of model and server apply."
        )
        return
    rows = [
        Row([Piece(name), Piece(setting_text(value))])
        for name, value in sorted(status.settings.items())
    ]
    screen.write_table((Column("SETTING"), Column("VALUE")), rows)
