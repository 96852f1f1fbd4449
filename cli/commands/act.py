"""Verbs that change something: load, unload, rm, use, config."""

from __future__ import annotations

from typing import Annotated

import typer

from herdbook.cli.app import ACT, verb
from herdbook.cli.errors import DONE, FAILED
from herdbook.cli.invocation import Invocation
from herdbook.cli.options import DryRun, Model
from herdbook.cli.output import Column, Piece, Row
from herdbook.cli.render import costs
from herdbook.core import (
    HistoryFilter,
    ModelManager,
    ModelNotFoundError,
    ModelStatus,
    UnloadCost,
    UnloadResult,
)
from herdbook.core.models.configuration import check, parse
from herdbook.events.facts import Setting
from herdbook.presentation import shapes
from herdbook.projections.sentences import setting_text

_LOADS = frozenset({"ModelLoaded", "RunnerChanged"})


@verb("load", ACT)
async def load(
    invocation: Invocation,
    model: Model,
    *,
    num_ctx: Annotated[
        int | None, typer.Option(help="Context in tokens, for this load.")
    ] = None,
    keep_alive: Annotated[
        str | None,
        typer.Option(help="How long it stays: 10m, 1h30m, seconds, -1 for ever."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Load a model into memory, as it is configured; tell first what it costs."""
    options: dict[str, Setting] = {}
    if num_ctx is not None:
        check("num_ctx", num_ctx)
        options["num_ctx"] = num_ctx
    async with invocation.acting() as manager:
        costs.tell(invocation, await manager.cost_of_load(model), alone=dry_run)
        if dry_run:
            return
        with invocation.screen.waiting(f"loading {model}", quiet=invocation.json):
            status = await manager.load(
                model, options=options, keep_alive=_keep_alive(keep_alive)
            )
        await _tell(invocation, manager, status, await _loaded_text(manager, status))


def _keep_alive(text: str | None) -> str | float | None:
    """Return a keep-alive as the configuration reads it."""
    if text is None:
        return None
    _, value = parse(f"keep_alive={text}")
    assert isinstance(value, str | int | float)
    return value


async def _loaded_text(manager: ModelManager, status: ModelStatus) -> str:
    chosen = HistoryFilter(types=_LOADS, limit=1)
    entries = await manager.history(status.name, chosen)
    return f"{status.name} {entries[-1].sentence if entries else 'loaded'}"


async def _tell(
    invocation: Invocation, manager: ModelManager, status: ModelStatus, text: str
) -> None:
    """Tell what became of a model: in words, or all of it in JSON."""
    if invocation.json:
        invocation.screen.write_json(shapes.model(status, await manager.now()))
    else:
        invocation.screen.write(text)


@verb("unload", ACT)
async def unload(invocation: Invocation, model: Model) -> None:
    """Unload a model, and every other name of its weights."""
    async with invocation.acting() as manager:
        cost = await manager.cost_of_unload(model)
        with invocation.screen.waiting(f"unloading {model}", quiet=invocation.json):
            result = await manager.unload(model)
        if invocation.json:
            told = shapes.Unloaded(name=cost.name, result=result.value)
            invocation.screen.write_json(told)
        else:
            invocation.screen.write(_unloaded_text(cost, result))


def _unloaded_text(cost: UnloadCost, result: UnloadResult) -> str:
    if result is UnloadResult.NOT_LOADED:
        return f"{cost.name} was not loaded"
    if result is UnloadResult.DEFERRED:
        return f"{cost.name} is still in use; the server unloads it when that ends"
    also = f", and with it {', '.join(cost.also)} (same weights)" if cost.also else ""
    return f"{cost.name} unloaded{also}"


@verb("rm", ACT)
async def rm(
    invocation: Invocation,
    model: Model,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Delete a model from the server; say what that frees.

    On a terminal it asks first. In a pipe or a script it does not.
    """
    async with invocation.acting() as manager:
        status = await manager.get_status(model)
        if not status.present:
            raise ModelNotFoundError(status.name, where=status.node)
        cost = await manager.cost_of_delete(status.name)
        freed = costs.freed_text(cost)
        question = f"Delete {status.name}? That {freed}"
        if invocation.attended and not yes and not invocation.agreed(question):
            invocation.screen.write("Nothing was deleted.")
            return FAILED
        await manager.delete(status.name)
        if invocation.json:
            told = shapes.Removed(
                name=status.name,
                freed_bytes=cost.frees.size_bytes or 0,
                shared_with=cost.shared_with,
            )
            invocation.screen.write_json(told)
        else:
            invocation.screen.write(f"{status.name} deleted; that {freed}")
        return DONE


@verb("use", ACT)
async def use(
    invocation: Invocation,
    model: Model,
    *,
    purpose: Annotated[str, typer.Option("--for", help="What for, in words.")] = "",
) -> None:
    """Record that a model was used: recommendations follow it."""
    async with invocation.reading() as manager:
        status = await manager.mark_used(model, purpose=purpose)
        told = f": {purpose}" if purpose else ""
        await _tell(invocation, manager, status, f"{status.name} used{told}")


@verb("config", ACT)
async def config(
    invocation: Invocation,
    model: Model,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="Settings to change."),
    ] = None,
    *,
    unset: Annotated[
        list[str] | None, typer.Option(help="A setting to have no value any more.")
    ] = None,
    note: Annotated[str, typer.Option(help="Why, for the history.")] = "",
) -> None:
    """Show what a model is used with, or change it.

    Settings are num_ctx, temperature, keep_alive, pinned, notes, options.<name> and
    capability.<name>.
    """
    wanted = dict(parse(setting) for setting in settings or [])
    async with invocation.reading(look=False) as manager:
        if wanted or unset:
            await manager.configure(model, wanted, unset=unset or [], note=note)
        await _tell_settings(invocation, manager, model)


async def _tell_settings(
    invocation: Invocation, manager: ModelManager, model: str
) -> None:
    status = await manager.get_status(model)
    given = await manager.options_for(model)
    screen = invocation.screen
    if invocation.json:
        told = shapes.Config(
            name=status.name,
            settings=status.settings,
            options=given.options,
            keep_alive=given.keep_alive,
        )
        screen.write_json(told)
        return
    if not status.settings:
        screen.write(f"{status.name} has no settings of its own.")
        return
    rows = [
        Row([Piece(name), Piece(setting_text(value))])
        for name, value in sorted(status.settings.items())
    ]
    screen.write_table((Column("SETTING"), Column("VALUE")), rows)
