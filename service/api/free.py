"""The API to free disk space: propose models to delete, and delete them."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from litestar import get, post
from litestar.handlers.base import BaseRouteHandler
from litestar.params import JSONBody, QueryParameter

from herdbook.core import ModelState, ModelStatus
from herdbook.core.desired.free_space import free_space
from herdbook.core.fleet.disk_space import node_not_named
from herdbook.core.models.sizes import parse_size
from herdbook.presentation import shapes
from herdbook.service.api.parameters import NodeName
from herdbook.service.api.responses import CHANGES, READS
from herdbook.service.auth.tokens import Role
from herdbook.service.context import service_of
from herdbook.service.errors import BadRequestError, ModelKeptError
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import require
from herdbook.service.operations.bulk import MOST_MODELS, BulkResult, delete_models
from herdbook.service.problems import problem_of

_TAG: Final = ["Models"]
_LARGEST: Final = 10**15
_Names = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=512)]],
    msgspec.Meta(min_length=1, max_length=MOST_MODELS),
]


class FreeRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """A request to delete models that a proposal names.

    Attributes:
        models: The models to delete; all others are kept.
    """

    models: _Names


class Freed(msgspec.Struct, frozen=True, kw_only=True):
    """What was deleted.

    Attributes:
        freed_bytes: Disk space that this freed, bytes.
        models: The result of each model.
    """

    freed_bytes: int
    models: list[BulkResult]


@get("/free", responses=READS, tags=_TAG, operation_id="proposeFree")
async def propose_free(
    request: AnyRequest,
    size: Annotated[
        str,
        QueryParameter(
            name="bytes",
            max_length=40,
            description="Disk space to free: bytes, or a size such as 10GB.",
        ),
    ],
    keep: Annotated[
        list[str] | None,
        QueryParameter(description="Models to keep, such as those of a desired set."),
    ] = None,
    node: NodeName = None,
) -> shapes.FreedSpace:
    """Propose models to delete to free disk space. Nothing is deleted.

    The least recently used go first. Models that are pinned, loaded, in use or in the
    desired set of the service (`herdbook serve --desired`) are never proposed, nor are
    models that share weights with one of them. A model that is loaded without expiry
    and has not been used for a day does not count as in use. With several nodes, a
    request without a node is refused; the error says what each node would free.
    """
    wanted = _bytes_of(size)
    service = service_of(request)
    names = [*(keep or ()), *await service.desired_models()]
    read_models, now = await service.read_models(node=node), service.clock.now()
    if len(read_models) > 1:
        raise node_not_named(read_models, wanted, keep=names, now=now)
    read_model = read_models[0]
    kept = [read_model.spelled(name) for name in names]
    proposal = free_space(read_model.statuses(), wanted, keep=kept, now=now)
    return shapes.freed_space(proposal)


@post("/free", status_code=200, responses=CHANGES, tags=_TAG, operation_id="free")
async def free(
    request: AnyRequest, data: JSONBody[FreeRequest], node: NodeName = None
) -> Freed:
    """Delete models that the proposal names, and no others. Requires the admin role.

    A model that cannot be deleted does not stop the others. Models that the proposal
    does not name, because they are pinned, loaded, in use or in the desired set of the
    service, are kept.
    """
    principal, service = require(request, Role.ADMIN), service_of(request)
    read_model = await service.read_model(node=node)
    manager = service.fleet.manager(read_model.node)
    desired = await service.desired_models()
    names = list(dict.fromkeys(read_model.spelled(name) for name in data.models))
    kept = {read_model.spelled(name) for name in desired}
    proposed = {
        step.name
        for group in free_space(
            read_model.statuses(),
            0,
            keep=kept,
            now=service.clock.now(),
        ).alternatives
        for step in group.steps
    }
    with manager.acting_as(principal.actor):
        deleted = await delete_models(
            manager, [name for name in names if name in proposed]
        )
    results = {result.name: result for result in deleted}
    models = [
        results.get(name) or _kept(read_model.status(name), in_set=name in kept)
        for name in names
    ]
    return Freed(freed_bytes=sum(each.freed_bytes for each in models), models=models)


def _bytes_of(text: str) -> int:
    """Parse a size.

    Raises:
        BadRequestError: It is none, or is zero or too large.
    """
    digits = text.strip()
    plain = digits.isascii() and digits.isdigit() and len(digits) < len(str(_LARGEST))
    size = int(digits) if plain else parse_size(digits)
    if size is None or not 1 <= size <= _LARGEST:
        raise BadRequestError(
            "bytes",
            f"must be a size of at least 1 byte, not {text[:40]!r}",
            "Send a number of bytes, or a size such as 10GB",
        )
    return size


def _kept(status: ModelStatus, *, in_set: bool) -> BulkResult:
    """Return that a model was not deleted, and why."""
    name = status.name
    remedy = f"To delete it nevertheless: DELETE /v1/models/{name}"
    reasons = {
        "is not on the server": not status.present,
        "is pinned": status.settings.get("pinned") is True,
        "is in the desired set": in_set,
        "is loaded": status.state is ModelState.LOADED,
        "is being pulled or loaded": status.activity is not None or status.updating,
        "shares its weights with a model that is kept": True,
    }
    reason = next(reason for reason, holds in reasons.items() if holds)
    error = ModelKeptError(name, reason, remedy if status.present else "")
    return BulkResult(name=name, done=False, error=problem_of(error))


HANDLERS: Final[list[BaseRouteHandler]] = [propose_free, free]
"""The handlers of this module."""
