"""The form for a model's settings, which loses no input and overwrites no change.

A form contains the version of the model's stream. If the settings have changed since,
the page shows the changes next to the input, and asks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from litestar import Response, get, post
from litestar.params import FromPath

from herdbook.core import (
    InvalidConfigurationError,
    ModelManager,
    ModelStatus,
    RecordedEvent,
    WrongExpectedVersionError,
)
from herdbook.events.facts import ConfigurationChanged
from herdbook.events.streams import model_stream
from herdbook.service.api.parameters import name_of
from herdbook.service.auth.forms import read_form
from herdbook.service.auth.tokens import Role
from herdbook.service.dashboard import forms as editing
from herdbook.service.dashboard import model_events
from herdbook.service.dashboard.event_list import (
    EventEntry,
    entries_with_events,
    newest_of,
)
from herdbook.service.dashboard.forms import Texts
from herdbook.service.dashboard.layout import redirect, render
from herdbook.service.dashboard.links import joined_link, model_path
from herdbook.service.dashboard.page_request import DONE, NODE, NOTE, visit
from herdbook.service.errors import BadRequestError
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import require

_CONFLICT: Final = 409
_INVALID: Final = 422


@get("/models/{name:str}/configuration", include_in_schema=False)
async def settings_page(request: AnyRequest, name: FromPath[str]) -> Response[str]:
    """Show the form with the settings of a model."""
    page = await visit(request, model=name_of(name))
    status = page.read_model.status(name_of(name))
    return await _form(
        request, status, editing.fields_of(editing.texts_of(status.settings))
    )


@post("/models/{name:str}/configuration", include_in_schema=False)
async def change_settings(request: AnyRequest, name: FromPath[str]) -> Response[str]:
    """Change the settings of a model, unless they have changed since the form."""
    principal = require(request, Role.OPERATE)
    visited = await visit(request, model=name_of(name))
    manager, form = visited.manager, await read_form(request)
    while True:
        status = await manager.get_status(name_of(name))
        changes = await _since(manager, status, _version(form))
        try:
            wanted = editing.read(form)
            if changes:
                return await _conflict(request, status, wanted, changes, form)
            edit = editing.edit_of(editing.texts_of(status.settings), wanted)
        except InvalidConfigurationError as error:
            return await _form(
                request, status, form, status_code=_INVALID, wrong=error, sent=form
            )
        try:
            with manager.acting_as(principal.actor):
                await manager.configure(
                    status.name,
                    edit.set,
                    unset=edit.unset,
                    note=form.get("note", "").strip()[:500],
                    at_version=status.version,
                )
        except WrongExpectedVersionError:
            continue  # an event was recorded meanwhile
        done, note = None, "unchanged"
        if edit.set or edit.unset:
            stream, note = model_stream(status.node, status.name), ""
            done = await newest_of(manager, stream, ConfigurationChanged.__name__)
        target = joined_link(
            model_path(status.name), {NODE: visited.node, DONE: done, NOTE: note}
        )
        return redirect(f"{target}#settings")


def _version(form: Mapping[str, str]) -> int:
    """Return the version in a form.

    Raises:
        BadRequestError: The form has none.
    """
    text = form.get("version", "")
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise BadRequestError("the form", "has no version", "Reload the page")
    return int(text)


async def _since(
    manager: ModelManager, status: ModelStatus, version: int
) -> list[RecordedEvent]:
    """Return the changes of settings after a version, newest first.

    Raises:
        BadRequestError: The log does not have this version.
    """
    if version > status.version:
        raise BadRequestError(
            "the form", "was made for another log or node", "Reload the page"
        )
    if version == status.version:
        return []
    return await model_events.configured(manager, status.name, after_version=version)


async def _conflict(
    request: AnyRequest,
    status: ModelStatus,
    wanted: Texts,
    changes: list[RecordedEvent],
    form: Mapping[str, str],
) -> Response[str]:
    """Show the changes of others, with the user's edits applied to them."""
    undone = [one.data for one in changes if isinstance(one.data, ConfigurationChanged)]
    base = editing.texts_of(editing.before(status.settings, undone))
    merged = editing.laid_on(base, wanted, editing.texts_of(status.settings))
    return await _form(
        request,
        status,
        editing.fields_of(merged),
        status_code=_CONFLICT,
        meanwhile=entries_with_events(changes),
        sent=form,
    )


async def _form(
    request: AnyRequest,
    status: ModelStatus,
    fields: Mapping[str, str],
    *,
    status_code: int = 200,
    meanwhile: list[EventEntry] | None = None,
    wrong: InvalidConfigurationError | None = None,
    sent: Mapping[str, str] | None = None,
) -> Response[str]:
    page = await visit(request, model=status.name)
    names = (*editing.PLAIN, *editing.ABILITIES, "options")
    return await render(
        page,
        "settings.html",
        title=f"Settings of {status.name}",
        status_code=status_code,
        status=status,
        fields={name: fields.get(name, "") for name in names},
        editing=editing,
        capabilities=page.read_model.capabilities(status.name),
        version=(sent or {}).get("version", "") if wrong else status.version,
        note=(sent or {}).get("note", ""),
        meanwhile=meanwhile or [],
        wrong=wrong,
    )
