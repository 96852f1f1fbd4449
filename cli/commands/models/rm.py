"""The verb ``rm``: delete models."""

from __future__ import annotations

from collections.abc import Sequence

from herdbook.cli.app import CHANGE, verb
from herdbook.cli.batch import distinct, for_each
from herdbook.cli.errors import FAILED
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import find_present
from herdbook.cli.options import Models, Yes
from herdbook.cli.render import costs
from herdbook.core import ModelManager, ReadModel
from herdbook.presentation import shapes
from herdbook.projections.sentences import bytes_text


@verb("rm", CHANGE)
async def rm(invocation: Invocation, models: Models, *, yes: Yes = False) -> int:
    """Delete models from the server.

    Asks for confirmation on a terminal, but not in a pipe or a script.
    """
    async with invocation.acting() as manager:
        names = distinct(await manager.now(), models)
        if invocation.attended and not yes:
            question = await _question(manager, names)
            if question and not invocation.agreed(question):
                invocation.screen.write("Nothing was deleted.")
                return FAILED

        async def delete(name: str) -> None:
            status = await find_present(manager, name)
            cost = await manager.cost_of_delete(status.name)
            await manager.delete(status.name)
            if not status.present and not invocation.json:
                text = f"{status.name} was not on the server; its failure is dismissed"
                invocation.screen.write(text)
                return
            if invocation.json:
                removed = shapes.Removed(
                    name=status.name,
                    freed_bytes=cost.frees.size_bytes or 0,
                    shared_with=cost.shared_with,
                )
                invocation.screen.write_json(removed, in_lines=len(names) > 1)
            else:
                freed = costs.freed_text(cost)
                invocation.screen.write(f"{status.name} deleted; this {freed}")

        return await for_each(invocation, names, delete)


async def _question(manager: ModelManager, names: Sequence[str]) -> str:
    """Return the question for confirmation; empty if no model is present."""
    if len(names) == 1:
        status = await find_present(manager, names[0])
        cost = await manager.cost_of_delete(status.name)
        if not status.present:
            return f"{status.name} is not on the server. Dismiss its failure?"
        return f"Delete {status.name}? This {costs.freed_text(cost)}"
    models = await manager.now()
    present = [name for name in names if models.status(name).present]
    if not present:
        return ""
    freed = bytes_text(_freed_bytes(models, present))
    return f"Delete {len(present)} models ({', '.join(present)})? This frees {freed}"


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
