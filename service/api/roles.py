"""The API about roles: which model to use, and which to fetch."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get
from litestar.handlers.base import BaseRouteHandler
from litestar.params import PathParameter, QueryParameter

from herdbook.core import ModelRole, ReadModel, Recommendation
from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.fleet import queries
from herdbook.presentation import shapes
from herdbook.service.api.parameters import AsOf, NodeName
from herdbook.service.api.responses import READS
from herdbook.service.context import service_of
from herdbook.service.http.request import AnyRequest

_TAG: Final = ["Roles"]
_encode = msgspec.json.Encoder().encode
_ROLES: Final = ", ".join(role.value for role in ModelRole)
_Role = Annotated[str, PathParameter(max_length=40, description=f"One of {_ROLES}.")]


@get("/roles", responses=READS, tags=_TAG, operation_id="listRoles")
async def list_roles(
    request: AnyRequest, as_of: AsOf = None, node: NodeName = None
) -> Response[list[Recommendation]]:
    """Return the recommendation for every role, with the reasons."""
    read_models = await service_of(request).read_models(as_of, node)
    read_models, time_slice = ReadModel.fixed_together(read_models), TimeSlice()
    orders = []
    for role in ModelRole:
        orders.append(_encode(shapes.recommendation(read_models, role)))
        await time_slice.checkpoint()
    body: Any = b"[" + b",".join(orders) + b"]"  # encoded already, role by role
    return Response(body, media_type="application/json")


@get("/roles/{role:str}", responses=READS, tags=_TAG, operation_id="getRole")
async def get_role(
    request: AnyRequest, role: _Role, as_of: AsOf = None, node: NodeName = None
) -> Recommendation:
    """Return the recommendation for a role, with the reasons for and against models.

    With several nodes, models in memory come first, and drained nodes are skipped.
    """
    service = service_of(request)
    if as_of is None and node is None:
        return await queries.explain(service.fleet, role)
    return shapes.recommendation(await service.read_models(as_of, node), role)


@get(
    "/roles/{role:str}/suggestions",
    responses=READS,
    tags=_TAG,
    operation_id="getSuggestions",
)
async def get_suggestions(
    request: AnyRequest,
    role: _Role,
    memory_bytes: Annotated[
        Annotated[int, msgspec.Meta(ge=0, lt=1 << 60)] | None,
        QueryParameter(description="Maximum memory of a model, in bytes."),
    ] = None,
) -> list[shapes.Suggested]:
    """Suggest models to pull for a role, best first."""
    fleet = service_of(request).fleet
    found = await queries.suggest(fleet, role, memory_bytes=memory_bytes)
    return [shapes.suggested(each) for each in found]


HANDLERS: Final[list[BaseRouteHandler]] = [list_roles, get_role, get_suggestions]
"""The handlers of this module."""
