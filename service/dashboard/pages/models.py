"""The models page: every model with its state and actions, and the server."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from litestar import Response, get
from litestar.params import FromQuery

from herdbook.core import ModelState, ModelStatus, ReadModel
from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.fleet import queries
from herdbook.core.models.sizes import read_size
from herdbook.presentation import facts, wording
from herdbook.presentation import nodes as nodes_shape
from herdbook.presentation.filtering import (
    CAPABILITIES,
    STATE_NAMES,
    ModelFilter,
    checked,
    parse_states,
)
from herdbook.presentation.sorting import (
    SORT_KEYS,
    display_order,
    is_descending,
    sort_models,
    twins_of,
)
from herdbook.projections.sentences import bytes_text, counted
from herdbook.projections.status import FAILURE_LISTED
from herdbook.service.auth.tokens import Role
from herdbook.service.dashboard.charts.colours import Colours
from herdbook.service.dashboard.charts.memory import (
    memory_bar,
    memory_legend,
    runners_of,
)
from herdbook.service.dashboard.layout import redirect, render
from herdbook.service.dashboard.links import joined_link, model_path
from herdbook.service.dashboard.model_rows import row_of
from herdbook.service.dashboard.page_request import NODE, PageRequest, visit
from herdbook.service.dashboard.paging import MOST_COLUMNS, part_of
from herdbook.service.errors import BadRequestError
from herdbook.service.http.request import AnyRequest

MANY: Final = 5
"""Number of models from which there is a filter."""


@get("/", include_in_schema=False)
async def models_page(  # noqa: PLR0913 - the parameters of a request
    request: AnyRequest,
    *,
    gone: FromQuery[bool] = False,
    find: FromQuery[str] = "",
    sort: FromQuery[str] = "",
    reverse: FromQuery[bool] = False,
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
    if view:
        (view,) = checked("view", [view], ("list", "matrix"))
    state = request.query_params.get("state", "")  # Litestar reserves the name
    works = page.operations()
    nodes = [page.read_model] if page.node else page.nodes
    statuses = _statuses(page, nodes, works)
    chosen = msgspec.structs.replace(
        _filter(find, can, state, family),
        larger_bytes=read_size(larger) if larger.strip() else None,
    )
    with_deleted = gone or ModelState.NOT_PRESENT in chosen.states
    shown = display_order(
        status
        for status in statuses
        if with_deleted
        or (status.node, status.name) in works
        or _is_listed(status, page.now.at)
    )
    found = [one for one in shown if chosen.matches(one, page.of(one.node))]
    found = _in_order(page, found, sort, works, reverse=reverse)
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
        count=counted(len(present), "model"),
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
            "reverse": "1" if reverse else "",
            "can": can,
            "state": state,
            "family": family,
            "larger": larger,
            "node": page.node,
            "view": view,
        },
        filtered=any((find.strip(), can, state, family.strip(), larger.strip())),
        capabilities=CAPABILITIES,
        states=STATE_NAMES,
        descending=is_descending(sort.lower()) != reverse,
        many=len(shown) > MANY,
        hidden=len(statuses) - len(shown),
    )


def _is_listed(status: ModelStatus, now: datetime) -> bool:
    """Return whether a model is listed without a request for deleted ones."""
    if facts.is_interrupted(status):
        return status.since is not None and now - status.since < FAILURE_LISTED
    return status.state is not ModelState.NOT_PRESENT and not status.is_old_failure(now)


def _statuses(
    page: PageRequest, nodes: Sequence[ReadModel], works: Collection[tuple[str, str]]
) -> list[ModelStatus]:
    """Return the models of some nodes, and those that only have work in progress."""
    statuses = [status for one in nodes for status in one.statuses()]
    known = {(status.node, status.name) for status in statuses}
    shown_nodes = {one.node for one in nodes}
    return statuses + [
        page.of(node).status(name)
        for node, name in works
        if (node, name) not in known and node in shown_nodes
    ]


def _in_order(
    page: PageRequest,
    statuses: list[ModelStatus],
    sort: str,
    works: Collection[tuple[str, str]],
    *,
    reverse: bool,
) -> list[ModelStatus]:
    """Return models in the chosen order; by default, what needs attention first.

    Raises:
        CallerError: The sort key is not valid.
    """
    if sort:
        (key,) = checked("sort key", [sort], SORT_KEYS)
        models = {one.node: one for one in page.nodes}
        return sort_models(statuses, key, models, reverse=reverse)
    return sorted(
        statuses,
        key=lambda one: (one.node, one.name) not in works and not _needs_attention(one),
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
    states, pulling = parse_states([state] if state else [])
    return ModelFilter(
        text=find.strip(),
        capabilities=tuple(checked("capability", [can] if can else [], CAPABILITIES)),
        states=states,
        pulling=pulling,
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
            "the name of the model",
            "is missing",
            "Enter it as model:tag, such as qwen3:0.6b",
        )
    read_model = page.read_model
    if page.several and not page.node:
        manager = await queries.node_to_pull(page.service.fleet, model.strip())
        read_model = page.of(manager.latest().node)
    name = read_model.spelled(model.strip())
    word = "update" if read_model.status(name).present else "pull"
    node = read_model.node if page.several else ""
    return redirect(joined_link(model_path(name, word), {NODE: node}))
