"""The verb ``cancel``: cancel running pulls, updates and loads, wherever they run."""

from __future__ import annotations

from herdbook.cli.app import CHANGE, verb
from herdbook.cli.batch import Target, check_names, for_each, targets
from herdbook.cli.errors import DONE, FAILED
from herdbook.cli.invocation import Invocation
from herdbook.cli.lookup import node_for
from herdbook.cli.options import Models
from herdbook.core import Fleet, ModelManager, ModelStatus
from herdbook.events.lifecycle import LOADS
from herdbook.presentation import shapes


@verb("cancel", CHANGE)
async def cancel(invocation: Invocation, models: Models) -> int:
    """Cancel running pulls, updates and loads of models.

    Also cancels operations of other Herdbook processes that use the same log.
    """
    await check_names(invocation, models)
    async with invocation.recording() as fleet:
        chosen = await targets(invocation, fleet, models, find=_node_with_work)

        async def cancel_one(model: Target) -> int:
            before = await model.manager.get_status(model.name)
            cancelled = await model.manager.cancel(model.name)
            after = await model.manager.get_status(model.name)
            result = "cancelled" if cancelled else _not_cancelled(before)
            activity = _activity(before) if result != "not_running" else None
            if invocation.json:
                answer = shapes.Cancelled(
                    name=after.name,
                    node=shapes.of_several(model.node),
                    activity=activity,
                    result=result,
                )
                invocation.screen.write_json(answer, in_lines=len(chosen) > 1)
            else:
                invocation.screen.write(_text(model.label, activity, result))
            return FAILED if result == "ended" else DONE

        return await for_each(invocation, chosen, cancel_one)


async def _node_with_work(
    invocation: Invocation, fleet: Fleet, model: str
) -> ModelManager:
    """Return the manager of the only node with work on a model, or of the one meant."""
    busy = [
        one.node
        for one in await fleet.now()
        if _activity(one.status(model)) is not None
    ]
    if len(busy) == 1 and busy[0] in fleet.names:
        return fleet.manager(busy[0])
    return await node_for(invocation, fleet, model)


def _activity(status: ModelStatus) -> str | None:
    work = status.work or status.update
    return None if work is None else work.activity.value


def _not_cancelled(before: ModelStatus) -> str:
    return "not_running" if _activity(before) is None else "ended"


def _text(model: str, activity: str | None, result: str) -> str:
    if activity is None:
        return f"{model} has no running operation"
    if result == "cancelled":
        kept = "" if activity in LOADS else ". Pull it again to resume"
        return f"{activity} of {model} cancelled{kept}"
    return f"not cancelled: the {activity} of {model} had already ended"
