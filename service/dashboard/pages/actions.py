"""Pages that say what something will do, and forms that do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from herdbook.core import ModelManager, ModelStatus
from herdbook.core.models.configuration import check_load, parse
from herdbook.events.facts import Setting
from herdbook.presentation.costs import (
    fetch_text,
    free_text,
    freed_text,
    held_text,
    needed_text,
)
from herdbook.presentation.wording import share_text
from herdbook.projections.sentences import bytes_text
from herdbook.service.api.parameters import name_of
from herdbook.service.auth.forms import read_form
from herdbook.service.auth.tokens import Principal
from herdbook.service.context import Service, service_of
from herdbook.service.dashboard.buttons import Action, needed
from herdbook.service.dashboard.layout import PageRequest, led_to, render, visit
from herdbook.service.dashboard.links import model_path
from herdbook.service.dashboard.pages.models import works_of
from herdbook.service.errors import BadPathError, ForbiddenError
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import require
from herdbook.service.operations.operation import Kind, OperationRequest


class Prospect(NamedTuple):
    """What a deed will do, before it is done.

    Attributes:
        question: What is asked.
        tells: What will happen, a sentence each.
        verb: What stands on the button that does it.
        figures: What it costs, each with its name.
        loses: Whether something is lost by it.
    """

    question: str
    tells: list[str]
    verb: str
    figures: tuple[tuple[str, str], ...] = ()
    loses: bool = False


@get("/models/{name:str}/{word:str}", include_in_schema=False)
async def confirm_page(
    request: AnyRequest, name: FromPath[str], word: FromPath[str]
) -> Response[str]:
    """Say what will happen, and ask.

    Raises:
        BadPathError: There is no such thing to do.
        HerdbookError: It cannot be told what it costs, or it cannot be done.
    """
    here, deed = await visit(request), deed_of(request, word)
    status = here.moment.status(name_of(name))
    off = here.off(needed(deed))
    if off:
        raise ForbiddenError(f"{deed} of {status.name}", "is not possible here", off)
    return await render(
        here,
        "confirm.html",
        title=f"{deed} {status.name}".capitalize(),
        deed=deed,
        status=status,
        prospect=await PROSPECTS[deed](here, status),
        action=model_path(status.name, deed),
        back_link=model_path(status.name),
    )


def deed_of(request: AnyRequest, word: str) -> Action:
    """Return the deed that the last word of a path names.

    Raises:
        BadPathError: None.
    """
    if word not in tuple(Action):
        raise BadPathError(
            f"{request.url.path[:200]!r}", "is not a path of this service"
        )
    return Action(word)


async def _of_pull(here: PageRequest, status: ModelStatus) -> Prospect:
    cost = await here.service.manager.cost_of_pull(status.name)
    fetch, free = cost.fetch.size_bytes, cost.free.size_bytes
    figures = (("to fetch", fetch_text(cost)), ("disk", free_text(cost.free)))
    tells = []
    if fetch is not None and free is not None and fetch > free:
        tells.append("That does not fit, unless the server has most of it already.")
    if status.present:
        tells += [
            "What has not changed is not fetched again.",
            "The model can be used meanwhile.",
        ]
        return Prospect(f"Update {status.name}?", tells, "update", figures)
    tells.append("If it is cancelled, the server keeps what it has.")
    return Prospect(f"Pull {status.name}?", tells, "pull", figures)


async def _of_load(here: PageRequest, status: ModelStatus) -> Prospect:
    cost = await here.service.manager.cost_of_load(status.name)
    figures = (("needs", needed_text(cost)), ("held now", held_text(cost)))
    tells = []
    given = here.moment.options_for(status.name)
    if given.options:
        options = ", ".join(f"{name} {value}" for name, value in given.options.items())
        tells.append(f"It is loaded as it is configured: {options}.")
    tells.append("Where memory does not suffice, the server unloads others for it.")
    return Prospect(f"Load {status.name} into memory?", tells, "load", figures)


async def _of_unload(here: PageRequest, status: ModelStatus) -> Prospect:
    cost = await here.service.manager.cost_of_unload(status.name)
    size = cost.frees.size_bytes
    freed = "" if size is None else f": {bytes_text(size)}"
    tells = [f"It gives back the memory of its runner{freed}."]
    if cost.also:
        others = ", ".join(cost.also)
        tells.append(f"With it leaves {others}: they have the same weights.")
    tells.append("The next use loads it again.")
    return Prospect(f"Unload {status.name} from memory?", tells, "unload")


async def _of_delete(here: PageRequest, status: ModelStatus) -> Prospect:
    if not status.present:
        return Prospect(
            f"Forget {status.name}?",
            ["The server does not have it: only its failure is put aside."],
            "forget",
        )
    cost = await here.service.manager.cost_of_delete(status.name)
    tells = [f"That {freed_text(cost)}."]
    if cost.loaded and not cost.shared_with:
        tells.append("It leaves memory as well.")
    tells.append("To have it again it must be pulled again. Its history stays.")
    return Prospect(f"Delete {status.name}?", tells, "delete", loses=True)


async def _of_cancel(here: PageRequest, status: ModelStatus) -> Prospect:
    work = works_of(here).get(status.name)
    recorded = status.work or status.update
    activity = work.activity if work else status.activity
    asked = work or recorded
    if asked is None:
        told = "Nothing is under way on it: there is nothing to cancel."
        return Prospect(f"Cancel the work on {status.name}?", [told], "cancel it")
    tells = [f"It was asked for by {asked.actor}."]
    progress = work.progress if work else None
    if progress is not None:
        share = share_text(progress.completed_bytes, progress.total_bytes)
        tells.append(f"The server has {share} of it.")
    if activity != "load":
        tells.append("The server keeps what it has; a later pull goes on from there.")
    return Prospect(f"Cancel the {activity} of {status.name}?", tells, "cancel it")


async def _of_use(_: PageRequest, status: ModelStatus) -> Prospect:
    tells = [
        "It is recorded in your name.",
        "Of the models that fit a role, the one used last comes first.",
    ]
    return Prospect(f"Record that {status.name} was used?", tells, "record it")


PROSPECTS: Final = {
    Action.PULL: _of_pull,
    Action.UPDATE: _of_pull,
    Action.LOAD: _of_load,
    Action.UNLOAD: _of_unload,
    Action.DELETE: _of_delete,
    Action.CANCEL: _of_cancel,
    Action.USE: _of_use,
}
"""By deed, what foretells it."""


class ActionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A deed that was agreed to.

    Attributes:
        service: Who does it.
        principal: For whom.
        name: With which model.
        form: What was typed beside the button.
    """

    service: Service
    principal: Principal
    name: str
    form: Mapping[str, str]

    @property
    def herd(self) -> ModelManager:
        """The manager."""
        return self.service.manager

    async def begin(
        self,
        kind: Kind,
        *,
        insecure: bool = False,
        options: Mapping[str, Setting] | None = None,
        keep_alive: str | float | None = None,
    ) -> None:
        """Begin long work; it goes on when the page is gone."""
        wanted = OperationRequest(
            kind=kind,
            model=self.name,
            insecure=insecure,
            options=dict(options or {}),
            keep_alive=keep_alive,
        )
        await self.service.operations.start(wanted, self.principal)


@post("/models/{name:str}/{word:str}", include_in_schema=False)
async def do_it(
    request: AnyRequest, name: FromPath[str], word: FromPath[str]
) -> Response[str]:
    """Do what was agreed to, and lead back.

    Raises:
        HerdbookError: It cannot be done.
    """
    deed = deed_of(request, word)
    principal, service = require(request, needed(deed)), service_of(request)
    form = await read_form(request)
    status = await service.manager.get_status(name_of(name))
    doing = ActionRequest(
        service=service, principal=principal, name=status.name, form=form
    )
    with service.manager.acting_as(principal.actor):
        await DOERS[deed](doing)
    return led_to("/" if deed is Action.DELETE else model_path(status.name))


async def _pull(doing: ActionRequest) -> None:
    await doing.begin(Kind.PULL, insecure="insecure" in doing.form)


async def _update(doing: ActionRequest) -> None:
    await doing.begin(Kind.UPDATE, insecure="insecure" in doing.form)


async def _load(doing: ActionRequest) -> None:
    options: dict[str, Setting] = {}
    keep_alive: Setting = None
    if text := doing.form.get("num_ctx", "").strip():
        options["num_ctx"] = parse(f"num_ctx={text}")[1]
    if text := doing.form.get("keep_alive", "").strip():
        keep_alive = parse(f"keep_alive={text}")[1]
    assert keep_alive is None or isinstance(keep_alive, str | int | float)
    check_load(options, keep_alive)
    await doing.begin(Kind.LOAD, options=options, keep_alive=keep_alive)


async def _unload(doing: ActionRequest) -> None:
    await doing.begin(Kind.UNLOAD)


async def _delete(doing: ActionRequest) -> None:
    await doing.herd.delete(doing.name)


async def _cancel(doing: ActionRequest) -> None:
    operation = doing.service.operations.of_model(doing.name)
    if operation is not None:
        await doing.service.operations.cancel(operation.id, doing.principal)
    else:
        await doing.herd.cancel(doing.name)


async def _use(doing: ActionRequest) -> None:
    await doing.herd.mark_used(doing.name, purpose=doing.form.get("purpose", "")[:500])


DOERS: Final = {
    Action.PULL: _pull,
    Action.UPDATE: _update,
    Action.LOAD: _load,
    Action.UNLOAD: _unload,
    Action.DELETE: _delete,
    Action.CANCEL: _cancel,
    Action.USE: _use,
}
"""By deed, what does it."""
