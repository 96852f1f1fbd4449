"""The API for nodes: list, add, change and remove the servers of the log."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from litestar import delete, get, post, put
from litestar.handlers.base import BaseRouteHandler
from litestar.params import JSONBody, PathParameter

from herdbook.core.actor import acting_as
from herdbook.events.facts import NodeSettings
from herdbook.presentation import nodes as shapes
from herdbook.service.api.parameters import AsOf, strict_body
from herdbook.service.api.responses import CHANGES, READS
from herdbook.service.auth.tokens import Role
from herdbook.service.context import Service, service_of
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import require

_TAG: Final = ["Nodes"]
_Url = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
_NamePart = Annotated[
    str, PathParameter(max_length=64, description="The name of the node.")
]


class NewNode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node to manage.

    Attributes:
        name: Its name in the log: up to 64 letters, digits, ``.``, ``_`` or ``-``.
        url: The address of its Ollama server, in the format of ``OLLAMA_HOST``.
        settings: How Herdbook uses it.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    url: _Url
    settings: NodeSettings = msgspec.field(default_factory=NodeSettings)


class NodeUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change to a node.

    Attributes:
        url: The new address of its server; omit it to keep the current one.
        settings: The complete new settings; omit them to keep the current ones.
    """

    url: _Url | None = None
    settings: NodeSettings | None = None


@get("/nodes", responses=READS, tags=_TAG, operation_id="listNodes")
async def list_nodes(request: AnyRequest, as_of: AsOf = None) -> list[shapes.Node]:
    """List the nodes with their state, settings and model totals."""
    service = service_of(request)
    read_models = await service.read_models(as_of)
    now = await service.fleet.reconcilers() if as_of is None else {}
    return [shapes.node(one, now) for one in read_models]


@get("/nodes/{name:str}", responses=READS, tags=_TAG, operation_id="getNode")
async def get_node(
    request: AnyRequest, name: _NamePart, as_of: AsOf = None
) -> shapes.Node:
    """Return one node."""
    service = service_of(request)
    now = await service.fleet.reconcilers() if as_of is None else {}
    return shapes.node(await service.read_model(as_of, name), now)


@post(
    "/nodes", status_code=201, responses=CHANGES, tags=_TAG, operation_id="createNode"
)
async def create_node(request: AnyRequest, data: JSONBody[NewNode]) -> shapes.Node:
    """Add a node. Requires the admin role.

    All processes that use this log then manage it, even if its server does not answer.
    """
    data = await strict_body(request, NewNode)
    principal, service = require(request, Role.ADMIN), service_of(request)
    with acting_as(principal.actor):
        await service.fleet.add(data.name, data.url, data.settings)
    return await _now(service, data.name)


@put("/nodes/{name:str}", responses=CHANGES, tags=_TAG, operation_id="putNode")
async def put_node(
    request: AnyRequest, name: _NamePart, data: JSONBody[NodeUpdate]
) -> shapes.Node:
    """Change the address or the settings of a node. Requires the admin role.

    If `drained` is true, the node gets no new requests and no new models.
    """
    data = await strict_body(request, NodeUpdate)
    principal, service = require(request, Role.ADMIN), service_of(request)
    await service.fleet.node(name)
    with acting_as(principal.actor):
        if data.url is not None:
            await service.fleet.move(name, data.url)
        if data.settings is not None:
            await service.fleet.configure(name, data.settings)
    return await _now(service, name)


@delete(
    "/nodes/{name:str}",
    status_code=200,
    responses=CHANGES,
    tags=_TAG,
    operation_id="deleteNode",
)
async def delete_node(request: AnyRequest, name: _NamePart) -> shapes.Node:
    """Stop managing a node. Requires the admin role.

    Its models stay on its server, and its history stays in the log. A node with a
    running operation is not removed.
    """
    principal, service = require(request, Role.ADMIN), service_of(request)
    with acting_as(principal.actor):
        await service.fleet.remove(name)
    return shapes.node((await service.manager.now()).fixed().of(name))


async def _now(service: Service, name: str) -> shapes.Node:
    return shapes.node(await service.read_model(node=name))


HANDLERS: Final[list[BaseRouteHandler]] = [
    list_nodes,
    get_node,
    create_node,
    put_node,
    delete_node,
]
"""The handlers of this module."""
