"""The same action for several models.

It has two steps: a page that lists every model and its bytes, and a form that acts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from litestar import Response, get, post

from herdbook.core import ModelState, ModelStatus, ReadModel
from herdbook.core.desired.plan import deletions
from herdbook.core.errors.suggestions import did_you_mean
from herdbook.events.streams import model_stream
from herdbook.presentation import wording
from herdbook.projections.sentences import bytes_text, counted
from herdbook.service.auth.forms import read_form
from herdbook.service.auth.tokens import Role
from herdbook.service.context import service_of
from herdbook.service.dashboard.event_list import EventEntry, entries_with_events
from herdbook.service.dashboard.layout import render
from herdbook.service.dashboard.page_request import PageRequest, visit
from herdbook.service.errors import BadRequestError
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import require
from herdbook.service.operations.bulk import (
    MOST_MODELS,
    BulkAction,
    BulkResult,
    delete_models,
    start_operations,
)

_LABELS: Final = {
    BulkAction.DELETE: "Delete",
    BulkAction.UNLOAD: "Unload",
    BulkAction.PULL: "Pull",
}
_PARTICIPLES: Final = {
    BulkAction.DELETE: "deleted",
    BulkAction.UNLOAD: "unloaded",
    BulkAction.PULL: "pulled",
}
_DONE: Final = {
    BulkAction.DELETE: "deleted",
    BulkAction.UNLOAD: "unloaded",
    BulkAction.PULL: "pull started",
}
_NEWEST: Final = 500
"""Events of the log among which those of the results are searched."""


class Consequence(NamedTuple):
    """A model, and what the action does to it.

    Attributes:
        name: The model.
        text: The effect, with the bytes.
        warns: Whether the effect needs attention.
        skipped: Whether the action cannot change the model.
    """

    name: str
    text: str
    warns: bool = False
    skipped: bool = False


class Outcome(NamedTuple):
    """The result of the action on a model.

    Attributes:
        name: The model.
        done: Whether it succeeded.
        text: The result, or the reason of the failure.
        event: The newest event that this recorded.
    """

    name: str
    done: bool
    text: str
    event: EventEntry | None


@get("/bulk", include_in_schema=False)
async def confirm_bulk(request: AnyRequest) -> Response[str]:
    """List the chosen models with the effect on each, and ask for confirmation.

    Raises:
        BadRequestError: No model was chosen, too many, or the action does not exist.
        ForbiddenError: The user may not do that here.
    """
    page = await visit(request)
    page.require_node()
    action = _action(request.query_params.get("do", ""))
    chosen = request.query_params.getall("model", [])
    names = _names(page.read_model, [str(name) for name in chosen])
    page.require(_needed(action), f"{len(names)} models", "cannot be changed")
    statuses = [page.read_model.status(name) for name in names]
    # Only a deletion asks for it: an invalid file must not refuse the others.
    desired = await page.desired_models() if action is BulkAction.DELETE else ()
    consequences, total = _EFFECTS[action](page, statuses, desired)
    changed = [each.name for each in consequences if not each.skipped]
    verb = f"{_LABELS[action]} {counted(len(changed), 'model')}"
    return await render(
        page,
        "bulk.html",
        title=verb if changed else f"{_LABELS[action]} models",
        question=f"{verb}?"
        if changed
        else f"None of the selected models can be {_PARTICIPLES[action]}.",
        verb=verb,
        total=total if changed else "",
        consequences=consequences,
        action=action,
        names=" ".join(changed),
        loses=action is BulkAction.DELETE,
    )


@post("/bulk", include_in_schema=False)
async def perform_bulk(request: AnyRequest) -> Response[str]:
    """Perform the action on each model, and show every result.

    Raises:
        BadRequestError: No model was named, too many, or the action does not exist.
        ForbiddenError: The user may not do that.
    """
    form = await read_form(request)
    action = _action(form.get("do", ""))
    principal, service = require(request, _needed(action)), service_of(request)
    visited = await visit(request)
    visited.require_node()
    manager = visited.manager
    before = await manager.now()
    head = before.position
    names = _names(before, form.get("models", "").split())
    with manager.acting_as(principal.actor):
        if action is BulkAction.DELETE:
            results = await delete_models(manager, names)
        else:
            results = await start_operations(
                service.operations, manager, action, names, principal
            )
    page = await visit(request)
    outcomes = await _outcomes(page, action, results, after=head)
    failed = sum(not each.done for each in outcomes)
    freed = sum(result.freed_bytes for result in results)
    done = len(outcomes) - failed
    summary = (
        f"{counted(done, 'pull')} started"
        if action is BulkAction.PULL
        else f"{counted(done, 'model')} {_DONE[action]}"
    )
    return await render(
        page,
        "bulk_result.html",
        title=f"{_LABELS[action]} models",
        outcomes=sorted(outcomes, key=lambda each: each.done),
        summary=summary
        + (f", {failed} failed" if failed else "")
        + (f". This frees {bytes_text(freed)} of disk space" if freed else ""),
        failed=failed,
    )


def kept_because(status: ModelStatus, desired: Collection[str]) -> str:
    """Return why a model should not be deleted; empty if nothing speaks against it.

    Args:
        status: The model.
        desired: Names of the models in the desired set of the service.
    """
    if status.name in desired:
        return "in the desired set"
    if status.settings.get("pinned") is True:
        return "pinned"
    if status.activity is not None or status.updating:
        return "in use"
    return "loaded" if status.state == "loaded" else ""


def _action(text: str) -> BulkAction:
    if text not in tuple(BulkAction):
        known = ", ".join(BulkAction)
        if not text:
            raise BadRequestError("the action", "is missing", f"Use one of: {known}")
        raise BadRequestError(
            f"{text[:80]!r}",
            "is not an action for several models",
            f"{did_you_mean(text, BulkAction)}Use one of: {known}",
        )
    return BulkAction(text)


def _names(read_model: ReadModel, given: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(read_model.spelled(name) for name in given if name))
    if not names:
        raise BadRequestError(
            "the selection", "is empty", "Select models on the models page first"
        )
    if len(names) > MOST_MODELS:
        raise BadRequestError(
            "the selection",
            f"has {len(names)} models",
            f"Select at most {MOST_MODELS} at once",
        )
    return names


def _needed(action: BulkAction) -> Role:
    return Role.ADMIN if action is BulkAction.DELETE else Role.OPERATE


Consequences = tuple[list[Consequence], str]


def _delete_effects(
    page: PageRequest, statuses: Sequence[ModelStatus], desired: Collection[str]
) -> Consequences:
    names = [status.name for status in statuses]
    steps = {s.name: s for s in deletions(page.read_model.statuses(), names)}
    effects = []
    for status in statuses:
        step = steps.get(status.name)
        if step is None:
            failed = status.state is ModelState.ERROR
            text = "; only its failure is dismissed" if failed else ""
            effects.append(
                Consequence(
                    status.name, f"not on the server{text}", True, skipped=not failed
                )
            )
            continue
        if step.frees_bytes:
            text = f"frees {bytes_text(step.frees_bytes)}"
        elif status.remote_host:
            text = "frees nothing: runs in the cloud"
        else:
            text = f"same weights as {wording.listed(step.shared_with)}"
        notes = kept_because(status, desired)
        effects.append(
            Consequence(
                status.name, f"{text}; {notes}" if notes else text, warns=bool(notes)
            )
        )
    frees = sum(step.frees_bytes for step in steps.values())
    changed = sum(not each.skipped for each in effects)
    pronoun = "Its" if changed == 1 else "Their"
    total = f"This frees {bytes_text(frees)} of disk space. {pronoun} history is kept."
    return effects, total


def _unload_effects(
    _: PageRequest, statuses: Sequence[ModelStatus], __: Collection[str]
) -> Consequences:
    effects = [
        Consequence(
            status.name,
            f"{bytes_text(status.runner.size_bytes)} of memory"
            if status.runner
            else "not loaded",
            skipped=status.runner is None,
        )
        for status in statuses
    ]
    sizes = {s.runner.digest: s.runner.size_bytes for s in statuses if s.runner}
    frees = bytes_text(sum(sizes.values()))
    return effects, f"This frees {frees} of memory. The next use of a model loads it."


def _pull_effects(
    _: PageRequest, statuses: Sequence[ModelStatus], __: Collection[str]
) -> Consequences:
    effects = []
    for status in statuses:
        running = status.activity == "pull" or status.updating
        if running:
            text = "already being pulled"
        elif status.present:
            text = f"{wording.size_text(status)}; only changed parts are downloaded"
        else:
            text = "not on the server; the whole model is downloaded"
        effects.append(Consequence(status.name, text, skipped=running))
    return effects, "Models on the server stay usable during an update."


_EFFECTS: Final = {
    BulkAction.DELETE: _delete_effects,
    BulkAction.UNLOAD: _unload_effects,
    BulkAction.PULL: _pull_effects,
}


async def _outcomes(
    page: PageRequest, action: BulkAction, results: Sequence[BulkResult], *, after: int
) -> list[Outcome]:
    found = await page.service.manager.read_log(
        after=after, before=page.head + 1, limit=_NEWEST, newest_first=True
    )
    events: dict[str, EventEntry] = {}
    for entry in entries_with_events(found.events):
        events.setdefault(entry.event.stream, entry)
    return [
        Outcome(
            result.name,
            result.done,
            _result_text(action, result),
            events.get(model_stream(page.read_model.node, result.name)),
        )
        for result in results
    ]


def _result_text(action: BulkAction, result: BulkResult) -> str:
    if result.error is not None:
        remedy = f". {result.error.remedy}" if result.error.remedy else ""
        return f"{result.error.state}{remedy}"
    if result.running and action is BulkAction.UNLOAD:
        return "still in progress"
    if result.freed_bytes:
        return f"{_DONE[action]}, frees {bytes_text(result.freed_bytes)}"
    return _DONE[action] if result.done else "stopped"
