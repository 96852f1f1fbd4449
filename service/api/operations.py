"""The API for operations: start, follow and cancel them."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from litestar import Response, delete, get, post
from litestar.handlers.base import BaseRouteHandler
from litestar.params import (
    HeaderParameter,
    JSONBody,
    PathParameter,
    QueryParameter,
)

from herdbook.service.api import schemas as answers
from herdbook.service.api.parameters import Limit, NodeName
from herdbook.service.api.responses import CHANGES, READS, problems
from herdbook.service.context import service_of
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import principal_of
from herdbook.service.operations.operation import OperationRequest, OperationState

_TAG: Final = ["Operations"]
_Id = Annotated[str, PathParameter(max_length=64, description="The operation's id.")]


@post(
    "/operations",
    status_code=202,
    responses=problems(409, 415, 422, 502, 504),
    tags=_TAG,
    operation_id="startOperation",
)
async def start_operation(
    request: AnyRequest,
    data: JSONBody[OperationRequest],
    idempotency_key: Annotated[
        str | None,
        HeaderParameter(
            name="Idempotency-Key",
            max_length=255,
            description="A retry with the same key returns the same operation, for "
            "24 hours and across restarts. Keys are per token.",
        ),
    ] = None,
    node: NodeName = None,
) -> Response[answers.Operation]:
    """Start a pull, update, load, unload or refresh.

    If the same operation is already running, it is returned. The node can be named in
    the body or in the query.
    """
    if node is not None:
        data = msgspec.structs.replace(data, node=node)
    operation = await service_of(request).operations.start(
        data, principal_of(request), key=idempotency_key
    )
    location = {"location": f"/v1/operations/{operation.id}"}
    return Response(answers.operation(operation), headers=location)


@get("/operations", responses=READS, tags=_TAG, operation_id="listOperations")
async def list_operations(
    request: AnyRequest,
    states: Annotated[
        list[OperationState] | None,
        QueryParameter(name="state", description="Only operations in these states."),
    ] = None,
    node: NodeName = None,
    limit: Limit = 100,
) -> list[answers.Operation]:
    """List operations, newest first.

    Includes the operations since the service started, and those that other processes on
    the same log are running.
    """
    service = service_of(request)
    if node is not None:
        await service.fleet.check_recorded(node)
    known = await service.operations.listed()
    chosen = [
        one
        for one in known
        if (not states or one.state in states) and node in (None, one.node)
    ]
    return [answers.operation(one) for one in chosen[:limit]]


@get(
    "/operations/{operation_id:str}",
    responses=READS,
    tags=_TAG,
    operation_id="getOperation",
)
async def get_operation(request: AnyRequest, operation_id: _Id) -> answers.Operation:
    """Return the progress or the result of an operation.

    Operations from before a restart are read from the log, for 24 hours.
    """
    return answers.operation(await service_of(request).operations.get(operation_id))


@delete(
    "/operations/{operation_id:str}",
    status_code=200,
    responses=CHANGES,
    tags=_TAG,
    operation_id="cancelOperation",
)
async def cancel_operation(request: AnyRequest, operation_id: _Id) -> answers.Operation:
    """Cancel an operation, and wait until it has ended.

    An operation that has already ended is returned unchanged.
    """
    operations = service_of(request).operations
    cancelled = await operations.cancel(operation_id, principal_of(request))
    return answers.operation(cancelled)


HANDLERS: Final[list[BaseRouteHandler]] = [
    start_operation,
    list_operations,
    get_operation,
    cancel_operation,
]
"""The handlers of this module."""
