"""The models page: every model with its state and actions, and the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from litestar import Response, get
from litestar.params import FromQuery
from markupsafe import Markup

from herdbook.core import (
    Activity,
    ModelState,
    ModelStatus,
    PullProgress,
    RunningOperation,
)
from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.fleet import questions
from herdbook.presentation import facts, wording
from herdbook.presentation import nodes as nodes_shape
from herdbook.presentation.filtering import (
    CAPABILITIES,
    STATES,
    ModelFilter,
    checked,
    read_size,
)
from herdbook.presentation.remedies import remedy_of
from herdbook.presentation.sorting import (
    SORT_KEYS,
    display_order,
    sort_models,
    twins_of,
)
from herdbook.presentation.times import Now
from herdbook.projections.sentences import bytes_text
from herdbook.projections.status import Work
from herdbook.service.auth.tokens import Role
from herdbook.service.dashboard.buttons import Button, buttons_for
from herdbook.service.dashboard.charts.colours import Colours
from herdbook.service.dashboard.charts.memory import (
    memory_bar,
    memory_legend,
    progress_bar,
    runners_of,
)
from herdbook.service.dashboard.layout import redirect, render
from herdbook.service.dashboard.links import joined_link, model_path
from herdbook.service.dashboard.page_request import NODE, PageRequest, visit
from herdbook.service.dashboard.paging import MOST_COLUMNS, part_of
from herdbook.service.errors import BadRequestError
from herdbook.service.http.request import AnyRequest

MANY: Final = 5
"""Number of models from which there is a filter."""


class Progressing(NamedTuple):
    """Work in progress on a model.

    Attributes:
        verb: The activity.
        bar: Its progress as a bar; empty if it is not known.
        figures: The same in numbers, with rate and time left.
        asked: Who started it, and when.
        since: When it started.
    """

    verb: str
    bar: Markup
    figures: str
    asked: str
    since: datetime


class Row(NamedTuple):
    """A model in the table.

    Attributes:
        status: The status.
        node: Name of its node, if there are several; otherwise empty.
        state: The state, as text.
        size: The size.
        context: The context.
        can: The notable capabilities.
        memory: The memory in use, if it is loaded.
        expiry: When keep-alive ends, as text.
        expires_at: The same as a time.
        used: The last use.
        twin: An earlier model in the table with the same weights.
        works: Work in progress.
        failure: The last failure.
        failed_at: When it happened.
        remedy: Its remedy.
        buttons: The possible actions, most likely first.
    """

    status: ModelStatus
    node: str
    state: str
    size: str
    context: str
    can: str
    memory: str
    expiry: str
    expires_at: datetime | None
    used: str
    twin: str | None
    works: list[Progressing]
    failure: str
    failed_at: datetime | None
    remedy: str
    buttons: list[Button]


@get("/", include_in_schema=False)
async def models_page(
    request: AnyRequest,
    gone: FromQuery[bool] = False,
    find: FromQuery[str] = "",
    sort: FromQuery[str] = "",
    can: FromQuery[str] = "",
    family: FromQuery[str] = "",
    larger: FromQuery[str] = "",
    view: FromQuery[str] = "",
) -> Response[str]:
    """Show the models that match the filter, in the chosen order.

    Of several nodes, those of all or of one; as a list, or as a matrix of models and
    nodes.

    Raises:
        CallerError: A sort key, capability, state or size is not valid.
    """
    page = await visit(request)
    state = request.query_params.get("state", "")  # Litestar reserves the name
    works = works_of(page)
    nodes = [page.read_model] if page.node else page.nodes
    statuses = [status for one in nodes for status in one.statuses()]
    known = {(status.node, status.name) for status in statuses}
    shown_nodes = {one.node for one in nodes}
    statuses += [
        page.of(node).status(name)
        for node, name in works
        if (node, name) not in known and node in shown_nodes
    ]
    shown = display_order(
        status
        for status in statuses
        if gone
        or (status.node, status.name) in works
        or status.state is not ModelState.NOT_PRESENT
        or facts.is_interrupted(status)
    )
    chosen = msgspec.structs.replace(
        _filter(find, can, state, family),
        larger_bytes=read_size(larger) if larger.strip() else None,
    )
    found = [one for one in shown if chosen.matches(one, page.of(one.node))]
    if sort:
        checked("sort", [sort], SORT_KEYS)
        found = sort_models(found, sort.lower())
    else:  # what needs attention is at the top
        found.sort(
            key=lambda one: (
                (one.node, one.name) not in works and not _needs_attention(one)
            )
        )
    twins = twins_of(shown)
    matrix = view == "matrix" and len(nodes) > 1
    matrix_rows, part = part_of(page, _matrix(page, found) if matrix else [])
    listed: Sequence[ModelStatus] = []
    if not matrix:
        listed, part = part_of(page, found)
    rows, time_slice = [], TimeSlice()
    for status in listed:
        rows.append(row_of(page, status, works, twins.get((status.node, status.name))))
        await time_slice.checkpoint()
    present = [status for status in shown if status.present]
    runners = [] if page.several else runners_of(statuses)
    colours = Colours([] if page.several else statuses)
    return await render(
        page,
        "models.html",
        title="Models",
        rows=rows,
        node=nodes[0].node_status(),
        node_words=wording.node_text(nodes[0].node_status(), page.now),
        node_lines=_node_lines(page) if page.several else [],
        matrix=matrix_rows if matrix else None,
        part=part,
        columns=[one.node for one in page.nodes[:MOST_COLUMNS]],
        view=view,
        all_nodes=len(nodes) > 1,
        node_names=[one.node for one in page.nodes],
        count=wording.counted(len(present), "model"),
        disk=wording.disk_text(present).removeprefix(", "),
        memory=wording.memory_text(statuses),
        memory_bar=memory_bar(runners, colours),
        notice="" if page.past or len(nodes) > 1 else page.manager.server_notice,
        unreadable=""
        if page.past or len(nodes) > 1
        else page.manager.unreadable_notice,
        memory_legend=memory_legend(runners, colours),
        may_delete=not page.off(Role.ADMIN),
        gone=gone,
        query={
            "gone": "1" if gone else "",
            "find": find,
            "sort": sort,
            "can": can,
            "state": state,
            "family": family,
            "larger": larger,
            "node": page.node,
            "view": view,
        },
        filtered=any((find.strip(), can, state, family.strip(), larger.strip())),
        capabilities=CAPABILITIES,
        states=STATES,
        many=len(shown) > MANY,
        hidden=len(statuses) - len(shown),
    )


class NodeLine(NamedTuple):
    """A node above the models.

    Attributes:
        node: The node, with totals.
        state: Whether it answers, as text.
        disk: Its disk space in use.
        memory: Its memory in use.
    """

    node: nodes_shape.Node
    state: str
    disk: str
    memory: str


def _node_lines(page: PageRequest) -> list[NodeLine]:
    shown = page.nodes[:MOST_COLUMNS]
    if page.node and all(one.node != page.node for one in shown):
        shown = [page.read_model, *shown]
    found = [nodes_shape.node(one) for one in shown]
    return [
        NodeLine(
            one,
            nodes_shape.state_text(one, page.now),
            bytes_text(one.disk_bytes) if one.disk_bytes else "",
            bytes_text(one.memory_bytes) if one.memory_bytes else "",
        )
        for one in found
    ]


class MatrixRow(NamedTuple):
    """A model in the matrix: its status on each node, or None where it is not."""

    name: str
    cells: list[ModelStatus | None]


def _matrix(page: PageRequest, statuses: Sequence[ModelStatus]) -> list[MatrixRow]:
    """Return which models are where: a row per model, a cell per node."""
    where: dict[str, dict[str, ModelStatus]] = {}
    for status in statuses:
        where.setdefault(status.name, {})[status.node] = status
    names = [one.node for one in page.nodes[:MOST_COLUMNS]]
    return [
        MatrixRow(name, [where[name].get(node) for node in names])
        for name in sorted(where)
    ]


def _filter(find: str, can: str, state: str, family: str) -> ModelFilter:
    states = checked("state", [state] if state else [], STATES)
    return ModelFilter(
        text=find.strip(),
        capabilities=tuple(checked("can", [can] if can else [], CAPABILITIES)),
        states=frozenset(STATES[each] for each in states),
        family=family.strip(),
    )


def _needs_attention(status: ModelStatus) -> bool:
    return status.activity is not None or status.state is ModelState.ERROR


@get("/pull", include_in_schema=False)
async def pull_by_name(
    request: AnyRequest, model: FromQuery[str] = ""
) -> Response[str]:
    """Redirect to the confirmation of a pull.

    Raises:
        BadRequestError: No name was given.
        InvalidNameError: The name is not valid.
    """
    page = await visit(request)
    if not model.strip():
        raise BadRequestError(
            "the name to pull", "is empty", "Write it as model:tag, such as qwen3:0.6b"
        )
    read_model = page.read_model
    if page.several and not page.node:
        manager = await questions.node_to_pull(page.service.fleet, model.strip())
        read_model = page.of(manager.latest().node)
    name = read_model.spelled(model.strip())
    word = "update" if read_model.status(name).present else "pull"
    node = read_model.node if page.several else ""
    return redirect(joined_link(model_path(name, word), {NODE: node}))


def works_of(page: PageRequest) -> dict[tuple[str, str], RunningOperation]:
    """Return the running operations of the service by node and model; now only."""
    if page.past:
        return {}
    managers = page.service.fleet.managers()
    running = [work for manager in managers for work in manager.under_way()]
    return {(work.node, work.name): work for work in running}


def row_of(
    page: PageRequest,
    status: ModelStatus,
    works: Mapping[tuple[str, str], RunningOperation],
    twin: str | None = None,
) -> Row:
    """Return a row of the table."""
    failed, remedy = failed_texts(status, page.now)
    runner = status.runner
    models = page.of(status.node) if page.several else page.read_model
    can = models.capabilities(status.name)
    work = works.get((status.node, status.name))
    return Row(
        node=status.node if page.several else "",
        status=status,
        state=wording.state_text(status),
        size=wording.size_text(status),
        context=wording.context_text(status, page.service.fleet.registry),
        can=wording.capabilities_text(n for n, known in can.items() if known.value),
        memory=facts.memory_text(runner, status.name) if runner else "",
        expiry=facts.expiry_text(runner, page.now) if runner else "",
        expires_at=runner.expires_at if runner else None,
        used=wording.used_text(status, page.now),
        twin=twin,
        works=progressing(status, work, page.now),
        failure=failed,
        failed_at=_failed_at(status),
        remedy=remedy,
        buttons=buttons_for(page, status, work),
    )


def _failed_at(status: ModelStatus) -> datetime | None:
    if facts.is_interrupted(status):
        return status.since
    return status.last_failure.at if status.last_failure else None


def failed_texts(status: ModelStatus, now: Now) -> tuple[str, str]:
    """Return the last failure and its remedy, without full stops."""
    failure = status.last_failure
    if facts.is_interrupted(status) and status.since is not None:
        goes_on = "Pull it again to resume"
        return f"pull interrupted {now.ago(status.since)}", goes_on
    if failure is None:
        return "", ""
    failed = facts.failure_text(status, now)
    remedy = remedy_of(failure.kind, status.name)
    # An old message ends with the remedy of its time, which may be the same.
    return failed.removesuffix(".").removesuffix(remedy).rstrip(". "), remedy


def progressing(
    status: ModelStatus, work: RunningOperation | None, now: Now
) -> list[Progressing]:
    """Return the work in progress on a model: from this service, else from the log."""
    own = [_ours(work, now)] if work is not None else []
    recorded: Sequence[Work | None] = (status.work, status.update)
    return own + [
        _recorded(one, now)
        for one in recorded
        if one is not None and (work is None or one.activity is not work.activity)
    ]


def _ours(work: RunningOperation, now: Now) -> Progressing:
    asked = f"requested by {work.actor}, {now.ago(work.since)}"
    if work.waiting:
        return Progressing(work.activity, Markup(""), "queued", asked, work.since)
    return _progress(work.activity, work.progress, asked, work.since)


def _recorded(work: Work, now: Now) -> Progressing:
    asked = f"requested by {work.actor}, {now.ago(work.since)}"
    if work.cancelled_by is not None:
        asked += f"; cancellation requested by {work.cancelled_by}"
    progress = None
    if work.completed_bytes is not None:
        progress = PullProgress.recorded(work.completed_bytes, work.total_bytes)
    return _progress(work.activity, progress, asked, work.since)


def _progress(
    activity: Activity, progress: PullProgress | None, asked: str, since: datetime
) -> Progressing:
    if progress is None:
        return Progressing(activity, Markup(""), "in progress", asked, since)
    total = progress.total_bytes
    if not total:
        return Progressing(
            activity, Markup(""), progress.status or "in progress", asked, since
        )
    completed = progress.completed_bytes
    figures = wording.joined(
        [
            f"{wording.percent(completed, total)} %",
            wording.of_text(completed, total),
            wording.rate_text(progress.rate_bytes_s),
            wording.left_text(progress.eta_s),
            progress.status if progress.rate_bytes_s is None else "",
        ]
    )
    return Progressing(activity, progress_bar(completed, total), figures, asked, since)
