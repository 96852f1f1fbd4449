"""Verbs that change a model: ``load``, ``unload``, ``rm``, ``use`` and ``config``."""

from __future__ import annotations

from typing import Annotated

import typer

from herdbook.cli.app import CHANGE, verb
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


@verb("load", CHANGE)
async def load(
    invocation: Invocation,
    model: Model,
    *,
    num_ctx: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="Context length for this load."),
    ] = None,
    keep_alive: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Time to stay loaded: 10m, 1h30m, seconds, or -1 for no limit.",
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Load a model into memory, with its settings."""
    options: dict[str, Setting] = {}
    if num_ctx is not None:
        check("num_ctx", num_ctx)
        options["num_ctx"] = num_ctx
    async with invocation.acting() as manager:
        costs.write(invocation, await manager.cost_of_load(model), alone=dry_run)
        if dry_run:
            return
        with invocation.screen.waiting(f"loading {model}", quiet=invocation.json):
            status = await manager.load(
                model, options=options, keep_alive=_keep_alive(keep_alive)
            )
        await _write_status(
            invocation, manager, status, await _loaded_text(manager, status)
        )


def _keep_alive(text: str | None) -> str | float | None:
    """Read a keep-alive in the same way as the setting."""
    if text is None:
        return None
    _, value = parse(f"keep_alive={text}")
    assert isinstance(value, str | int | float)
    return value


async def _loaded_text(manager: ModelManager, status: ModelStatus) -> str:
    chosen = HistoryFilter(types=_LOADS, limit=1)
    entries = await manager.history(status.name, chosen)
    return f"{status.name} {entries[-1].sentence if entries else 'loaded'}"


async def _write_status(
    invocation: Invocation, manager: ModelManager, status: ModelStatus, text: str
) -> None:
    """Write the result for a model: a sentence, or its status in JSON."""
    if invocation.json:
        invocation.screen.write_json(shapes.model(status, await manager.now()))
    else:
        invocation.screen.write(text)


@verb("unload", CHANGE)
async def unload(invocation: Invocation, model: Model) -> None:
    """Unload a model, and all models with the same weights."""
    async with invocation.acting() as manager:
        cost = await manager.cost_of_unload(model)
        with invocation.screen.waiting(f"unloading {model}", quiet=invocation.json):
            result = await manager.unload(model)
        if invocation.json:
            unloaded = shapes.Unloaded(name=cost.name, result=result.value)
            invocation.screen.write_json(unloaded)
        else:
            invocation.screen.write(_unloaded_text(cost, result))


def _unloaded_text(cost: UnloadCost, result: UnloadResult) -> str:
    if result is UnloadResult.NOT_LOADED:
        return f"{cost.name} was not loaded"
    if result is UnloadResult.DEFERRED:
        return f"{cost.name} is in use; the server unloads it after the current request"
    also = f", with {', '.join(cost.also)} (same weights)" if cost.also else ""
    return f"{cost.name} unloaded{also}"


@verb("rm", CHANGE)
async def rm(
    invocation: Invocation,
    model: Model,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")
    ] = False,
) -> int:
    """Delete a model from the server.

    Asks for confirmation on a terminal, but not in a pipe or a script.
    """
    async with invocation.acting() as manager:
        status = await manager.get_status(model)
        if not status.present:
            raise ModelNotFoundError(status.name, where=status.node)
        cost = await manager.cost_of_delete(status.name)
        freed = costs.freed_text(cost)
        question = f"Delete {status.name}? This {freed}"
        if invocation.attended and not yes and not invocation.agreed(question):
            invocation.screen.write("Nothing was deleted.")
            return FAILED
        await manager.delete(status.name)
        if invocation.json:
            removed = shapes.Removed(
                name=status.name,
                freed_bytes=cost.frees.size_bytes or 0,
                shared_with=cost.shared_with,
            )
            invocation.screen.write_json(removed)
        else:
            invocation.screen.write(f"{status.name} deleted; this {freed}")
        return DONE


@verb("use", CHANGE)
async def use(
    invocation: Invocation,
    model: Model,
    *,
    purpose: Annotated[
        str, typer.Option("--for", metavar="PURPOSE", help="Purpose, as free text.")
    ] = "",
) -> None:
    """Record that a model was used, which raises it in recommendations."""
    async with invocation.reading() as manager:
        status = await manager.mark_used(model, purpose=purpose)
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
    unset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Remove a setting. Repeatable."),
    ] = None,
    note: Annotated[
        str, typer.Option(metavar="TEXT", help="Reason, shown in the history.")
    ] = "",
) -> None:
    """Show or change the settings of a model.

    Settings: num_ctx, temperature, keep_alive, pinned, notes, options.<name> and
    capability.<name>.
    """
    wanted = dict(parse(setting) for setting in settings or [])
    async with invocation.reading(refresh=False) as manager:
        if wanted or unset:
            await manager.configure(model, wanted, unset=unset or [], note=note)
        await _write_settings(invocation, manager, model)


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
