"""The page of the nodes: list them; add, drain and remove one."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from herdbook.core.actor import acting_as
from herdbook.events.facts import NodeSettings
from herdbook.events.streams import node_stream
from herdbook.presentation import nodes as shapes
from herdbook.presentation.wording import NOTHING
from herdbook.projections.sentences import bytes_text
from herdbook.service.auth.forms import read_form
from herdbook.service.auth.tokens import Role
from herdbook.service.context import Service, service_of
from herdbook.service.dashboard.event_list import newest_of
from herdbook.service.dashboard.layout import redirect, render
from herdbook.service.dashboard.links import joined_link
from herdbook.service.dashboard.page_request import DONE, visit
from herdbook.service.dashboard.paging import part_of
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import require

_PATH: Final = "/nodes"
_CHANGES: Final = ("NodeAdded", "NodeConfigured", "NodeMoved", "NodeRemoved")


class Line(NamedTuple):
    """A node in the table.

    Attributes:
        node: The node, with totals.
        state: Whether it answers and is managed, as text.
        memory: The memory of its loaded models.
        disk: The disk space of its models.
        settings: Its settings, as text.
        problem: Why it is not managed now; empty if it is.
        reconciler: Which process refreshes it, as text.
    """

    node: shapes.Node
    state: str
    memory: str
    disk: str
    settings: str
    problem: str
    reconciler: str


@get(_PATH, include_in_schema=False)
async def nodes_page(request: AnyRequest) -> Response[str]:
    """Show the nodes with their state, and the form to add one."""
    page = await visit(request)
    lines = []
    shown, part = part_of(page, page.nodes)
    reconcilers = {} if page.past else await page.service.fleet.reconcilers()
    for models in shown:
        node = shapes.node(models, reconcilers)
        problem = None if page.past else page.service.fleet.problem(node.name)
        state = shapes.state_text(node, page.now) if problem is None else "not managed"
        lines.append(
            Line(
                node,
                state,
                bytes_text(node.memory_bytes) if node.memory_bytes else NOTHING,
                bytes_text(node.disk_bytes) if node.disk_bytes else NOTHING,
                shapes.settings_text(node.settings) or NOTHING,
                str(problem or ""),
                shapes.reconciler_text(node.reconciler) or NOTHING,
            )
        )
    return await render(
        page,
        "nodes.html",
        title="Nodes",
        lines=lines,
        part=part,
        admin_off=page.off(Role.ADMIN),
    )


@post(_PATH, include_in_schema=False)
async def add_node(request: AnyRequest) -> Response[str]:
    """Manage one more node.

    Raises:
        ForbiddenError: The user is not an admin.
        CallerError: The name or the address is not valid.
    """
    principal, service = require(request, Role.ADMIN), service_of(request)
    form = await read_form(request)
    name, url = form.get("name", "").strip(), form.get("url", "").strip()
    settings = NodeSettings(key_env=form.get("key_env", "").strip())
    if memory := form.get("vram", "").strip():
        settings = msgspec.structs.replace(settings, tags={"vram": memory[:100]})
    with acting_as(principal.actor):
        await service.fleet.add(name, url, settings)
    return await _done(service, name)


@post("/nodes/{name:str}/drain", include_in_schema=False)
async def drain_node(request: AnyRequest, name: FromPath[str]) -> Response[str]:
    """Give a node no new requests and no new models.

    Raises:
        ForbiddenError: The user is not an admin.
        UnknownNodeError: There is no such node.
    """
    return await _drain(request, name, drained=True)


@post("/nodes/{name:str}/undrain", include_in_schema=False)
async def undrain_node(request: AnyRequest, name: FromPath[str]) -> Response[str]:
    """Use a drained node again.

    Raises:
        ForbiddenError: The user is not an admin.
        UnknownNodeError: There is no such node.
    """
    return await _drain(request, name, drained=False)


async def _drain(request: AnyRequest, name: str, *, drained: bool) -> Response[str]:
    principal, service = require(request, Role.ADMIN), service_of(request)
    fleet = service.fleet
    node = await fleet.node(name)
    with acting_as(principal.actor):
        settings = msgspec.structs.replace(node.settings, drained=drained)
        await fleet.configure(name, settings)
    return await _done(service, name)


@post("/nodes/{name:str}/remove", include_in_schema=False)
async def remove_node(request: AnyRequest, name: FromPath[str]) -> Response[str]:
    """Stop managing a node.

    Raises:
        ForbiddenError: The user is not an admin.
        UnknownNodeError: There is no such node.
        BusyError: An operation on one of its models is running.
    """
    principal, service = require(request, Role.ADMIN), service_of(request)
    fleet = service.fleet
    with acting_as(principal.actor):
        await fleet.remove(name)
    return await _done(service, name)


async def _done(service: Service, name: str) -> Response[str]:
    """Redirect to the nodes, with the event that was recorded for one."""
    done = await newest_of(service.manager, node_stream(name), *_CHANGES)
    return redirect(joined_link(_PATH, {DONE: done}))


@get("/nodes/{name:str}/remove", include_in_schema=False)
async def confirm_remove(request: AnyRequest, name: FromPath[str]) -> Response[str]:
    """Ask whether to remove a node.

    Raises:
        ForbiddenError: The user is not an admin.
        UnknownNodeError: There is no such node.
    """
    require(request, Role.ADMIN)
    node = await service_of(request).fleet.node(name)
    page = await visit(request)
    return await render(page, "remove_node.html", title=f"Remove {name}", node=node)
