"""The forms that perform confirmed actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from litestar import Response, post
from litestar.params import FromPath

from herdbook.core import ModelManager, ModelStatus
from herdbook.core.models.configuration import check_load, parse
from herdbook.events.facts import Setting
from herdbook.events.streams import model_stream
from herdbook.service.api.parameters import name_of
from herdbook.service.auth.forms import read_form
from herdbook.service.auth.tokens import Principal
from herdbook.service.context import Service, service_of
from herdbook.service.dashboard.actions.buttons import Action, needed
from herdbook.service.dashboard.actions.confirm import action_of
from herdbook.service.dashboard.event_list import newest_of
from herdbook.service.dashboard.layout import redirect
from herdbook.service.dashboard.links import joined_link, model_path
from herdbook.service.dashboard.page_request import DONE, NODE, NOTE, visit
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import require
from herdbook.service.operations.operation import Kind, OperationRequest

_FIRST_EVENT_WITHIN_S: Final = 1.0
"""Seconds that the answer to a form waits for the first event of its operation."""

_EVERY_S: Final = 0.02
"""Seconds between two checks whether there is one."""


class ActionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A confirmed action.

    Attributes:
        service: The service.
        manager: The manager of the node.
        principal: The user.
        name: The model.
        form: The fields of the form.
    """

    service: Service
    manager: ModelManager
    principal: Principal
    name: str
    form: Mapping[str, str]

    @property
    def node(self) -> str:
        """The name of the node."""
        return self.manager.latest().node

    async def begin(
        self,
        kind: Kind,
        *,
        insecure: bool = False,
        options: Mapping[str, Setting] | None = None,
        keep_alive: str | float | None = None,
    ) -> None:
        """Start an operation; it continues when the page is closed.

        Its first event is awaited, so that the next page can show it.
        """
        before = self.manager.latest().status(self.name).version
        wanted = OperationRequest(
            kind=kind,
            model=self.name,
            node=self.node,
            insecure=insecure,
            options=dict(options or {}),
            keep_alive=keep_alive,
        )
        operation = await self.service.operations.start(wanted, self.principal)
        clock = self.service.clock
        begun = clock.monotonic()
        while operation.running and clock.monotonic() - begun < _FIRST_EVENT_WITHIN_S:
            if self.manager.latest().status(self.name).version != before:
                return
            await clock.sleep(_EVERY_S)


@post("/models/{name:str}/{word:str}", include_in_schema=False)
async def perform(
    request: AnyRequest, name: FromPath[str], word: FromPath[str]
) -> Response[str]:
    """Perform a confirmed action, and redirect to the page that shows the result.

    Raises:
        HerdbookError: It cannot be done.
    """
    action = action_of(request, word)
    principal, service = require(request, needed(action)), service_of(request)
    form = await read_form(request)
    page = await visit(request, model=name_of(name))
    manager = page.manager
    status = await manager.get_status(name_of(name))
    doing = ActionRequest(
        service=service,
        manager=manager,
        principal=principal,
        name=status.name,
        form=form,
    )
    with manager.acting_as(principal.actor):
        await PERFORM[action](doing)
    result = await _result(doing, status)
    if action is Action.DELETE:
        return redirect(joined_link("/", result))
    target = model_path(status.name)
    return redirect(joined_link(target, {NODE: page.node, **result}))


async def _result(doing: ActionRequest, before: ModelStatus) -> dict[str, str]:
    """Return the parameter that shows the new event of a model, or that there is none.

    Args:
        doing: The action.
        before: The status before it.
    """
    after = await doing.manager.get_status(before.name)
    if after.version != before.version:
        stream = model_stream(before.node, before.name)
        done = await newest_of(doing.manager, stream)
        return {} if done is None else {DONE: str(done)}
    running = doing.service.operations.of_model(before.name, before.node)
    return {NOTE: "unchanged" if running is None else "started"}


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
    await doing.manager.delete(doing.name)


async def _cancel(doing: ActionRequest) -> None:
    operation = doing.service.operations.of_model(
        doing.name, doing.manager.latest().node
    )
    if operation is not None:
        await doing.service.operations.cancel(operation.id, doing.principal)
    else:
        await doing.manager.cancel(doing.name)


async def _use(doing: ActionRequest) -> None:
    await doing.manager.mark_used(
        doing.name, purpose=doing.form.get("purpose", "")[:500]
    )


PERFORM: Final = {
    Action.PULL: _pull,
    Action.UPDATE: _update,
    Action.LOAD: _load,
    Action.UNLOAD: _unload,
    Action.DELETE: _delete,
    Action.CANCEL: _cancel,
    Action.USE: _use,
}
"""The function that performs each action."""
