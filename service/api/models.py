"""The API for models: status, history, costs and configuration."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from litestar import Response, delete, get, post, put
from litestar.handlers.base import BaseRouteHandler
from litestar.params import HeaderParameter, JSONBody, QueryParameter

from herdbook.core import (
    HistoryEntry,
    ModelManager,
    ModelState,
    ModelStatistics,
    ModelStatus,
    ReadModel,
    WrongExpectedVersionError,
)
from herdbook.core.concurrency.time_slice import TimeSlice
from herdbook.core.fleet import queries
from herdbook.core.models.sizes import read_size
from herdbook.presentation import shapes
from herdbook.presentation.filtering import (
    CAPABILITIES,
    ModelFilter,
    checked,
)
from herdbook.presentation.loaded_models import (
    LoadedModels,
    by_runner,
    loaded_models,
)
from herdbook.presentation.model_not_found import model_not_found
from herdbook.presentation.sorting import display_order, sort_by
from herdbook.service.api import schemas as answers
from herdbook.service.api.parameters import (
    LONGEST_PAGE,
    Actors,
    AsOf,
    Causes,
    Correlation,
    Limit,
    Name,
    NodeName,
    Since,
    Types,
    Until,
    etag,
    filter_of,
    known_status,
    name_of,
    of_model,
    version_of,
)
from herdbook.service.api.responses import CACHED, CHANGES, READS, problems
from herdbook.service.auth.tokens import Role
from herdbook.service.context import service_of
from herdbook.service.errors import PreconditionFailedError
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import principal_of, require

_TAG: Final = ["Models"]


class Sort(StrEnum):
    """The order of a list of models; a minus reverses it. Unknown values are last."""

    HERD = "herd"
    NAME = "name"
    SIZE = "size"
    STATE = "state"
    CONTEXT = "context"
    CAPABILITIES = "capabilities"
    LAST_USED = "last_used"
    FAMILY = "family"
    NODE = "node"
    NAME_DOWN = "-name"
    SIZE_DOWN = "-size"
    STATE_DOWN = "-state"
    CONTEXT_DOWN = "-context"
    CAPABILITIES_DOWN = "-capabilities"
    LAST_USED_DOWN = "-last_used"
    FAMILY_DOWN = "-family"
    NODE_DOWN = "-node"


_KEYS: Final = {"capabilities": "can", "last_used": "used"}
"""The keys of ``sort_by`` that have another name here."""


@get("/models", responses=CACHED, tags=_TAG, operation_id="listModels")
async def list_models(  # noqa: PLR0913, PLR0917 - each is a parameter of the query
    request: AnyRequest,
    as_of: AsOf = None,
    states: Annotated[
        list[ModelState] | None,
        QueryParameter(name="state", description="Only models in these states."),
    ] = None,
    role: Annotated[
        str | None,
        QueryParameter(description="Only models that fit this role, best first."),
    ] = None,
    capability: Annotated[
        list[str] | None,
        QueryParameter(description="Only models with all of these capabilities."),
    ] = None,
    text: Annotated[
        str, QueryParameter(description="Only models whose name contains this text.")
    ] = "",
    family: Annotated[
        str,
        QueryParameter(description="Only models whose family starts with this text."),
    ] = "",
    larger: Annotated[
        str | None,
        QueryParameter(description="Only models of at least this size, such as `5GB`."),
    ] = None,
    smaller: Annotated[
        str | None,
        QueryParameter(description="Only models of at most this size, such as `5GB`."),
    ] = None,
    node: NodeName = None,
    gone: Annotated[
        bool, QueryParameter(description="Include models that are not on the server.")
    ] = False,
    sort: Annotated[Sort | None, QueryParameter(description="Sort order.")] = None,
    limit: Annotated[
        int | None,
        QueryParameter(ge=1, le=LONGEST_PAGE, description="Maximum number of models."),
    ] = None,
    offset: Annotated[
        int, QueryParameter(ge=0, lt=1 << 31, description="Skip this many models.")
    ] = 0,
) -> Response[list[shapes.Model]]:
    """List models.

    Without a filter, returns all models that are present, in progress or in error.
    Those that can be used soonest come first.
    """
    service = service_of(request)
    read_models = await service.read_models(as_of, node)
    gone = gone or bool(states)
    matching = ModelFilter(
        text=text,
        capabilities=tuple(checked("capability", capability or (), CAPABILITIES)),
        states=frozenset(states or ()),
        family=family,
        larger_bytes=None if larger is None else read_size(larger),
        smaller_bytes=None if smaller is None else read_size(smaller),
    )

    async def build(fixed: Sequence[ReadModel]) -> list[shapes.Model]:
        chosen, models, time_slice = [], [], TimeSlice()
        nodes = {one.node: one for one in fixed}
        # Failures of more than a day ago too, unlike ``herdbook ls``: a cached answer
        # must depend on the log alone, not on the time.
        for status in _ordered(fixed, role, sort):
            if (
                gone or status.state is not ModelState.NOT_PRESENT
            ) and matching.matches(status, nodes[status.node]):
                chosen.append(status)
            await time_slice.checkpoint()
        for status in chosen[offset : None if limit is None else offset + limit]:
            models.append(shapes.model(status, nodes[status.node]))
            await time_slice.checkpoint()
        return models

    return await service.response_cache.answer(request, read_models, build)


def _ordered(
    read_models: Sequence[ReadModel], role: str | None, sort: Sort | None
) -> Sequence[ModelStatus]:
    """Sort the models; with a role, only those that fit it.

    Raises:
        UnknownRoleError: The role does not exist.
    """
    statuses = [status for one in read_models for status in one.statuses()]
    if role is not None:
        known = {(status.node, status.name): status for status in statuses}
        chosen = shapes.recommendation(read_models, role).chosen
        keys = [(one.node, one.name) for one in chosen]
        statuses = [known[key] for key in keys if key in known]
    elif sort in (None, Sort.HERD):
        return display_order(statuses)
    if sort in (None, Sort.HERD):
        return statuses
    key, descending = sort.value.removeprefix("-"), sort.value.startswith("-")
    statuses.sort(key=lambda status: status.name)
    if key == "state":
        return sorted(statuses, key=lambda one: one.state.value, reverse=descending)
    nodes = {one.node: one for one in read_models}
    return sort_by(statuses, _KEYS.get(key, key), nodes, descending=descending)


@get("/ps", responses=READS, tags=_TAG, operation_id="listLoadedModels")
async def list_loaded(request: AnyRequest, node: NodeName = None) -> LoadedModels:
    """List the loaded models with memory, expiry, who loaded them and last use."""
    service = service_of(request)
    read_models = await service.read_models(node=node)
    groups = by_runner(status for one in read_models for status in one.statuses())
    fleet, nodes = service.fleet, [one.node_status() for one in read_models]
    running = [one.name for one in nodes if one.name in fleet.names]
    reported = all(fleet.manager(name).reports_loaded for name in running)
    return loaded_models(groups, nodes, reported=reported)


@get("/models/{name:str}", responses=READS, tags=_TAG, operation_id="getModel")
async def get_model(
    request: AnyRequest, name: Name, as_of: AsOf = None, node: NodeName = None
) -> shapes.Model:
    """Return one model."""
    read_model = await of_model(request, name, as_of=as_of, node=node)
    return shapes.model(known_status(read_model, name), read_model)


@get(
    "/models/{name:str}/history",
    responses=READS,
    tags=_TAG,
    operation_id="getModelHistory",
)
async def get_history(  # noqa: PLR0913 - the parameters of a request
    request: AnyRequest,
    name: Name,
    *,
    types: Types = None,
    causes: Causes = None,
    actors: Actors = None,
    since: Since = None,
    until: Until = None,
    correlation_id: Correlation = None,
    limit: Limit = 100,
    node: NodeName = None,
) -> list[HistoryEntry]:
    """Return the newest events of a model, oldest first."""
    status = known_status(await of_model(request, name, node=node), name)
    chosen = filter_of(
        request,
        types=types,
        causes=causes,
        actors=actors,
        since=since,
        until=until,
        correlation_id=correlation_id,
    )
    chosen = msgspec.structs.replace(chosen, limit=limit)
    manager = service_of(request).manager
    return await manager.history(status.name, chosen, node=status.node)


@get("/models/{name:str}/why", responses=READS, tags=_TAG, operation_id="whyModel")
async def get_why(
    request: AnyRequest, name: Name, as_of: AsOf = None, node: NodeName = None
) -> shapes.Why:
    """Return the events that explain the state of a model."""
    read_model = await of_model(request, name, as_of=as_of, node=node)
    status = known_status(read_model, name)
    manager = service_of(request).manager
    return shapes.why(await manager.why(status.name, read_model), read_model)


@get(
    "/models/{name:str}/statistics",
    responses=READS,
    tags=_TAG,
    operation_id="getModelStatistics",
)
async def get_statistics(
    request: AnyRequest, name: Name, as_of: AsOf = None, node: NodeName = None
) -> ModelStatistics:
    """Return statistics of a model over its whole history, or up to a time."""
    read_model = await of_model(request, name, as_of=as_of, node=node)
    return read_model.statistics(known_status(read_model, name).name)


class CostOf(StrEnum):
    """The action of a cost estimate."""

    PULL = "pull"
    LOAD = "load"
    UNLOAD = "unload"
    DELETE = "delete"


@get(
    "/models/{name:str}/cost",
    responses=problems(409, 502, 504),
    tags=_TAG,
    operation_id="getModelCost",
)
async def get_cost(
    request: AnyRequest,
    name: Name,
    of: Annotated[CostOf, QueryParameter(description="The action.")] = CostOf.PULL,
    node: NodeName = None,
) -> answers.Cost:
    """Estimate what a pull, load, unload or deletion would need or free."""
    service, model = service_of(request), name_of(name)
    if of is CostOf.PULL and node is None:
        manager = await queries.node_to_pull(service.fleet, model)
    else:
        manager = await service.manager_with(model, node)
    match of:
        case CostOf.PULL:
            return await manager.cost_of_pull(model)
        case CostOf.LOAD:
            return await manager.cost_of_load(model)
        case CostOf.UNLOAD:
            return await manager.cost_of_unload(model)
        case CostOf.DELETE:
            return await manager.cost_of_delete(model)


@get(
    "/models/{name:str}/configuration",
    responses=READS,
    tags=_TAG,
    operation_id="getConfiguration",
)
async def get_configuration(
    request: AnyRequest, name: Name, as_of: AsOf = None, node: NodeName = None
) -> Response[answers.Configuration]:
    """Return the configuration of a model; a change must send its ETag in If-Match.

    A model can be configured before it is pulled.
    """
    read_model = await of_model(request, name, as_of=as_of, node=node)
    return _configured(answers.configuration(read_model, name_of(name)))


def _configured(current: answers.Configuration) -> Response[answers.Configuration]:
    return Response(current, headers={"etag": etag(current.version)})


@put(
    "/models/{name:str}/configuration",
    responses=problems(409, 412, 415, 428),
    tags=_TAG,
    operation_id="putConfiguration",
)
async def put_configuration(
    request: AnyRequest,
    name: Name,
    data: JSONBody[answers.SettingsChange],
    if_match: Annotated[
        str | None,
        HeaderParameter(
            name="If-Match",
            max_length=80,
            description="The ETag that the change is based on, or * for any version.",
        ),
    ] = None,
    node: NodeName = None,
) -> Response[answers.Configuration]:
    """Replace the configuration of a model; omitted settings are removed.

    The ETag is the version of the model's stream. Any later event of the model,
    including a recorded use, changes the version; the request then fails with 412.
    """
    version, model = version_of(if_match), name_of(name)
    manager = await service_of(request).manager_with(model, node)
    status = await manager.get_status(model)
    try:
        with manager.acting_as(principal_of(request).actor):
            whole = False
            while not whole:
                status = await manager.configure(
                    model,
                    data.settings,
                    unset=status.settings.keys() - data.settings.keys(),
                    note=data.note,
                    at_version=version,
                )
                # With *, another client may have added settings in the meantime.
                more = status.settings.keys() - data.settings.keys()
                whole = version is not None or not more
    except WrongExpectedVersionError as error:
        raise PreconditionFailedError(
            status.name,
            f"has version {error.actual}; the change is based on {error.expected}",
            "Read the configuration again, then repeat the change",
        ) from error
    return _configured(answers.configuration(await manager.now(), model))


@post(
    "/models/{name:str}/uses",
    responses=CHANGES,
    tags=_TAG,
    operation_id="useModel",
)
async def use_model(
    request: AnyRequest,
    name: Name,
    data: JSONBody[answers.Use | None] = None,
    node: NodeName = None,
) -> shapes.Model:
    """Record a use of a model. Recommendations take recent uses into account."""
    use = data or answers.Use()
    manager = await service_of(request).manager_with(name_of(name), node)
    model = (await _existing(manager, name)).name
    with manager.acting_as(principal_of(request).actor):
        status = await manager.mark_used(model, purpose=use.purpose, role=use.role)
    return shapes.model(status, await manager.now())


async def _existing(
    manager: ModelManager, segment: str, *, may_pull: bool = True
) -> ModelStatus:
    """Return the status of a model that exists, or has events in the log.

    Args:
        manager: The manager of its node.
        segment: The segment of the path with its name.
        may_pull: Whether the error may suggest to pull the model.

    Raises:
        ModelNotFoundError: Neither the server nor the log has the model.
    """
    status = await manager.get_status(name_of(segment))
    if not status.present and status.version == 0:
        raise model_not_found(await manager.now(), status.name, may_pull=may_pull)
    return status


@delete(
    "/models/{name:str}",
    status_code=200,
    responses=CHANGES,
    tags=_TAG,
    operation_id="deleteModel",
)
async def delete_model(
    request: AnyRequest, name: Name, node: NodeName = None
) -> shapes.Removed:
    """Delete a model from the server. Requires the admin role."""
    require(request, Role.ADMIN)
    service = service_of(request)
    manager = await service.manager_with(name_of(name), node)
    status = await _existing(manager, name, may_pull=False)
    cost = await manager.cost_of_delete(status.name)
    with manager.acting_as(principal_of(request).actor):
        await manager.delete(status.name)
    return shapes.Removed(
        name=status.name,
        node=shapes.of_several(status.node if service.fleet.is_several else None),
        freed_bytes=cost.frees.size_bytes or 0,
        shared_with=cost.shared_with,
    )


HANDLERS: Final[list[BaseRouteHandler]] = [
    list_models,
    list_loaded,
    get_model,
    get_history,
    get_why,
    get_statistics,
    get_cost,
    get_configuration,
    put_configuration,
    use_model,
    delete_model,
]
"""The handlers of this module."""
