"""The verb ``rm``: delete models."""

from __future__ import annotations

from collections.abc import Sequence

from herdbook.cli.app import CHANGE, verb
from herdbook.cli.batch import Target, check_names, for_each, targets
from herdbook.cli.errors import FAILED
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import find_present
from herdbook.cli.options import Models, Yes
from herdbook.cli.render import costs
from herdbook.core import ModelManager, ReadModel
from herdbook.presentation import shapes
from herdbook.projections.sentences import bytes_text, counted


@verb("rm", CHANGE)
async def rm(invocation: Invocation, models: Models, *, yes: Yes = False) -> int:
    """Delete models from the server.

    Asks for confirmation on a terminal, but not in a pipe or a script.
    """
    await check_names(invocation, models)
    async with invocation.acting() as fleet:
        chosen = await targets(invocation, fleet, models)
        if invocation.attended and not yes:
            question = await _question(chosen)
            if question and not invocation.agreed(question):
                invocation.screen.write("Nothing was deleted.")
                return FAILED

        async def delete(model: Target) -> None:
            status = await find_present(model.manager, model.name, may_pull=False)
            cost = await model.manager.cost_of_delete(status.name)
            await model.manager.delete(status.name)
            if not status.present and not invocation.json:
                text = f"{status.name} was not on the server; dismissed its failure"
                invocation.screen.write(text)
                return
            if invocation.json:
                removed = shapes.Removed(
                    name=status.name,
                    node=shapes.of_several(model.node),
                    freed_bytes=cost.frees.size_bytes or 0,
                    shared_with=cost.shared_with,
                )
                invocation.screen.write_json(removed, in_lines=len(chosen) > 1)
            else:
                freed = costs.freed_text(cost)
                invocation.screen.write(f"{model.label} deleted; this {freed}")

        return await for_each(invocation, chosen, delete)


async def _question(chosen: Sequence[Target]) -> str:
    """Return the question for confirmation; empty if no model is present."""
    if len(chosen) == 1:
        manager = chosen[0].manager
        status = await find_present(manager, chosen[0].name, may_pull=False)
        cost = await manager.cost_of_delete(status.name)
        if not status.present:
            return f"{status.name} is not on the server. Dismiss its failure?"
        return f"Delete {chosen[0].label}? This {costs.freed_text(cost)}."
    by_node: dict[ModelManager, list[Target]] = {}
    for model in chosen:
        if (await model.manager.get_status(model.name)).present:
            by_node.setdefault(model.manager, []).append(model)
    labels = [model.label for models in by_node.values() for model in models]
    if not labels:
        return ""
    freed = [
        _freed_bytes(await manager.now(), [model.name for model in models])
        for manager, models in by_node.items()
    ]
    total = bytes_text(sum(freed))
    models = counted(len(labels), "model")
    return f"Delete {models} ({', '.join(labels)})? This frees {total}."


def _freed_bytes(models: ReadModel, names: Sequence[str]) -> int:
    """Return the bytes freed by deleting models; shared weights count once."""
    remaining = {
        status.weights
        for status in models.statuses()
        if status.present and status.name not in names
    }
    sizes: dict[str, int] = {}
    for name in names:
        status = models.status(name)
        if status.weights is None or status.weights not in remaining:
            key = status.weights or status.name
            sizes[key] = max(sizes.get(key, 0), status.size_bytes or 0)
    return sum(sizes.values())
