"""The verbs ``load`` and ``unload``."""

from __future__ import annotations

from typing import Annotated

import typer

from herdbook.cli.app import CHANGE, verb
from herdbook.cli.batch import Target, check_names, for_each, targets
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import find_present
from herdbook.cli.options import DryRun, Models
from herdbook.cli.render import costs
from herdbook.core import (
    HistoryFilter,
    ModelManager,
    ModelStatus,
    UnloadCost,
    UnloadResult,
)
from herdbook.core.models.configuration import parse
from herdbook.events.facts import Setting
from herdbook.presentation import shapes

_LOADS = frozenset({"ModelLoaded", "ReloadCompleted", "RunnerChanged"})


@verb("load", CHANGE)
async def load(
    invocation: Invocation,
    models: Models,
    *,
    num_ctx: Annotated[
        str | None,
        typer.Option(
            metavar="TOKENS", help="Context length for this load, such as 8192 or 8k."
        ),
    ] = None,
    keep_alive: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="How long to stay loaded: 10m, 1h30m, seconds, or -1 for no limit.",
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
            await write_status(invocation, manager, status, text, in_lines=many)

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


@verb("unload", CHANGE)
async def unload(invocation: Invocation, models: Models) -> int:
    """Unload models and any others that share their weights."""
    await check_names(invocation, models)
    async with invocation.acting() as fleet:
        chosen = await targets(invocation, fleet, models)

        async def unload_one(model: Target) -> None:
            await find_present(model.manager, model.name, may_pull=False)
            cost = await model.manager.cost_of_unload(model.name)
            text = f"unloading {model.label}"
            with invocation.screen.waiting(text, quiet=invocation.json):
                result = await model.manager.unload(model.name)
            if invocation.json:
                unloaded = shapes.Unloaded(
                    name=cost.name,
                    result=result.value,
                    node=shapes.of_several(model.node),
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


async def write_status(
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
