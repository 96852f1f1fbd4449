"""The page that shows the consequences of an action, and asks for confirmation."""

from __future__ import annotations

from typing import Final, NamedTuple

from litestar import Response, get
from litestar.params import FromPath

from herdbook.core import ModelState, ModelStatus
from herdbook.core.fleet import queries
from herdbook.events.lifecycle import LOADS
from herdbook.presentation.costs import (
    fetch_text,
    free_text,
    freed_text,
    held_text,
    needed_text,
)
from herdbook.presentation.model_not_found import model_not_found, similar_models
from herdbook.presentation.wording import share_text
from herdbook.projections.sentences import bytes_text
from herdbook.service.api.parameters import name_of
from herdbook.service.dashboard.actions.buttons import PARTICIPLES, Action, needed
from herdbook.service.dashboard.layout import redirect, render
from herdbook.service.dashboard.links import joined_link, model_path
from herdbook.service.dashboard.page_request import NODE, PageRequest, visit
from herdbook.service.errors import BadPathError
from herdbook.service.http.request import AnyRequest

_OF_PRESENT_MODELS: Final = frozenset({Action.LOAD, Action.UNLOAD, Action.USE})


class Confirmation(NamedTuple):
    """A question before an action, with its consequences.

    Attributes:
        question: The question.
        consequences: What will happen, one sentence each.
        verb: The label of the button that confirms; empty if there is nothing to do.
        figures: Costs with their names.
        loses: Whether data is lost.
        leave: The label of the link that goes back.
    """

    question: str
    consequences: list[str]
    verb: str
    figures: tuple[tuple[str, str], ...] = ()
    loses: bool = False
    leave: str = "Cancel"


@get("/models/{name:str}/{word:str}", include_in_schema=False)
async def confirm_page(
    request: AnyRequest, name: FromPath[str], word: FromPath[str]
) -> Response[str]:
    """Show the consequences of an action, and ask for confirmation.

    Raises:
        BadPathError: The action does not exist.
        HerdbookError: The cost cannot be determined, or the action is not possible.
    """
    action = action_of(request, word)
    page = await visit(request, model=name_of(name))
    status = page.read_model.status(name_of(name))
    if action is Action.PULL and page.several and NODE not in request.query_params:
        manager = await queries.node_to_pull(page.service.fleet, status.name)
        node = manager.latest().node
        return redirect(page.links.model(status.name, action, node=node))
    page.require(needed(action), status.name, f"cannot be {PARTICIPLES[action]}")
    if action in _OF_PRESENT_MODELS and not status.present:
        may_pull = action is not Action.UNLOAD
        raise model_not_found(page.read_model, status.name, may_pull=may_pull)
    return await render(
        page,
        "confirm.html",
        title=f"{action} {status.name}".capitalize(),
        action=action,
        status=status,
        confirmation=await CONFIRMATIONS[action](page, status),
        target=joined_link(model_path(status.name, action), {NODE: page.node}),
        back_link=joined_link(model_path(status.name), {NODE: page.node}),
        node=page.node,
    )


def action_of(request: AnyRequest, word: str) -> Action:
    """Return the action that the last word of a path names.

    Raises:
        BadPathError: None.
    """
    if word not in tuple(Action):
        raise BadPathError(request.url.path)
    return Action(word)


async def _confirm_pull(page: PageRequest, status: ModelStatus) -> Confirmation:
    cost = await page.manager.cost_of_pull(status.name)
    fetch, free = cost.fetch.size_bytes, cost.free.size_bytes
    figures = tuple(
        (label, text)
        for label, text, known in (
            ("size", fetch_text(cost), fetch is not None),
            ("disk", free_text(cost.free), free is not None),
        )
        if known
    )
    consequences = []
    if fetch is not None and free is not None and fetch > free:
        consequences.append(
            "This exceeds the free disk space, unless most of it is already there."
        )
    if status.present:
        consequences += [
            "Unchanged parts are not downloaded again.",
            "The model stays usable during the update.",
        ]
        return Confirmation(
            f"Update {status.name}?", consequences, "Update model", figures
        )
    consequences.append("If you cancel, the server keeps the downloaded part.")
    return Confirmation(f"Pull {status.name}?", consequences, "Pull model", figures)


async def _confirm_load(page: PageRequest, status: ModelStatus) -> Confirmation:
    cost = await page.manager.cost_of_load(status.name)
    figures = (("memory", needed_text(cost)), ("in use", held_text(cost)))
    consequences = []
    given = page.read_model.options_for(status.name)
    if given.options:
        options = ", ".join(f"{name} {value}" for name, value in given.options.items())
        consequences.append(f"Settings: {options}.")
    consequences.append("If memory is short, the server unloads other models.")
    return Confirmation(
        f"Load {status.name} into memory?", consequences, "Load model", figures
    )


async def _confirm_unload(page: PageRequest, status: ModelStatus) -> Confirmation:
    cost = await page.manager.cost_of_unload(status.name)
    size = cost.frees.size_bytes
    freed = "its memory" if size is None else f"{bytes_text(size)} of memory"
    consequences = [f"This frees {freed}."]
    if cost.also:
        others = ", ".join(cost.also)
        consequences.append(f"{others} will also be unloaded (same weights).")
    consequences.append("The next use loads it again.")
    return Confirmation(
        f"Unload {status.name} from memory?", consequences, "Unload model"
    )


async def _confirm_delete(page: PageRequest, status: ModelStatus) -> Confirmation:
    if not status.present and status.state is not ModelState.ERROR:
        texts = [f"{status.name} is not on the server."]
        if similar := similar_models(page.read_model, status.name):
            texts.append(similar)
        return Confirmation("Nothing to delete", texts, "", leave="Back")
    if not status.present:
        return Confirmation(
            f"Dismiss the failure of {status.name}?",
            ["The server does not have this model. This only dismisses the failure."],
            "Dismiss failure",
        )
    cost = await page.manager.cost_of_delete(status.name)
    consequences = [f"This {freed_text(cost)}."]
    if status.name in await page.desired_models():
        consequences.append("It is in the desired set of this service.")
    if status.settings.get("pinned") is True:
        consequences.append("It is pinned, to be kept in memory.")
    if cost.loaded and not cost.shared_with:
        consequences.append("It will also be unloaded.")
    consequences.append("You can pull it again later. Its history is kept.")
    return Confirmation(
        f"Delete {status.name}?", consequences, "Delete model", loses=True
    )


async def _confirm_cancel(page: PageRequest, status: ModelStatus) -> Confirmation:
    work = page.operations().get((status.node, status.name))
    recorded = status.work or status.update
    activity = work.activity if work else status.activity
    asked = work or recorded
    if asked is None:
        text = f"{status.name} has no running operation. It may have just ended."
        return Confirmation("Nothing to cancel", [text], "", leave="Back")
    consequences = [f"Requested by {asked.actor}."]
    progress = work.progress if work else None
    if progress is not None:
        share = share_text(progress.completed_bytes, progress.total_bytes)
        consequences.append(f"Downloaded so far: {share}.")
    if activity not in LOADS:
        consequences.append(
            "The server keeps the downloaded part. Pull the model again to resume."
        )
    if activity == "reload":
        consequences.append("The model may no longer be in memory afterwards.")
    return Confirmation(
        f"Cancel the {activity} of {status.name}?",
        consequences,
        f"Cancel {activity}",
        leave="Keep loading" if activity in LOADS else "Keep pulling",
    )


async def _confirm_use(_: PageRequest, status: ModelStatus) -> Confirmation:
    consequences = [
        "The use is recorded under your name.",
        "Recommendations prefer recently used models.",
    ]
    return Confirmation(
        f"Record that {status.name} was used?", consequences, "Record use"
    )


CONFIRMATIONS: Final = {
    Action.PULL: _confirm_pull,
    Action.UPDATE: _confirm_pull,
    Action.LOAD: _confirm_load,
    Action.UNLOAD: _confirm_unload,
    Action.DELETE: _confirm_delete,
    Action.CANCEL: _confirm_cancel,
    Action.USE: _confirm_use,
}
"""The confirmation of each action."""
