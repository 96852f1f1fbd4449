"""The API for monitoring: liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib import metadata
from typing import Final

from litestar import Response, get
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi import ResponseSpec

from herdbook.core import NodeAddressError, StoreError, StoreUnavailableError
from herdbook.service.api import schemas as answers
from herdbook.service.api.responses import READS
from herdbook.service.context import Service, service_of
from herdbook.service.event_stream import Reason
from herdbook.service.http.request import AnyRequest
from herdbook.service.metrics import MEDIA_TYPE
from herdbook.service.middleware import authenticator_of

_TAG: Final = ["Health"]
VERSION: Final = metadata.version("herdbook")
"""Herdbook's version."""

READY_WITHIN_S: Final = 2.0
"""Time that a check of readiness waits for the log, seconds.

Calls wait longer for a database that fails over; load balancers do not.
"""


@get("/healthz", responses=READS, tags=_TAG, operation_id="getHealth")
async def healthz() -> answers.Alive:
    """Report liveness. Neither the log nor the Ollama server is checked."""
    return answers.Alive(status="ok", version=VERSION)


@get(
    "/readyz",
    responses={
        **READS,
        503: ResponseSpec(
            answers.Ready,
            generate_examples=False,
            description="The service is not ready.",
        ),
    },
    tags=_TAG,
    operation_id="getReadiness",
)
async def readyz(request: AnyRequest) -> Response[answers.Ready]:
    """Report readiness: the log can be read and all background tasks run.

    A service that is stopping is not ready. Losing the Ollama server does not make it
    unready, because history and status are still served. Neither does a token file that
    cannot be reloaded, a failed backup or anchor, or a node that has a different
    address in the log; these are listed in `failing`.
    """
    service = service_of(request)
    tasks = answers.failing(service.background_tasks())
    kept = answers.failing(service.upkeep.tasks())
    failing = (*tasks, *kept, *_token_file(request), *_nodes(service))
    upkeep = tuple(service.upkeep.statuses())
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            read_models = await service.read_models()
            reconcilers = await service.fleet.reconcilers()
    except (StoreError, TimeoutError) as error:
        failed = error if isinstance(error, StoreError) else StoreUnavailableError
        unready = answers.Ready(
            status=failed.code,
            position=None,
            node_reached=None,
            failing=failing,
            upkeep=upkeep,
        )
        return Response(unready, status_code=503)
    status = "ok"
    if service.stopping:
        status = "stopping"
    elif service.live.failed:
        status = Reason.LOG_FAILED
    elif tasks:
        status = "task_failing"
    nodes = [one.node_status() for one in read_models]
    own = service.fleet.own_instance
    known = all(one.overdue_since is None for one in read_models)
    ready = answers.Ready(
        status=status,
        position=read_models[0].position,
        node_reached=all(node.reached for node in nodes) if known else None,
        lost=tuple(node.name for node in nodes if not node.reached),
        refreshes=tuple(
            name for name, one in reconcilers.items() if one.instance == own
        ),
        refreshed_elsewhere=tuple(
            name for name, one in reconcilers.items() if one.instance != own
        ),
        failing=failing,
        upkeep=upkeep,
    )
    return Response(ready, status_code=200 if status == "ok" else 503)


def _nodes(service: Service) -> Iterator[answers.FailingTask]:
    """Yield the nodes that are not managed because the log has another address."""
    for name in service.fleet.all_names:
        error = service.fleet.problem(name)
        if isinstance(error, NodeAddressError):
            yield answers.FailingTask(task=f"node/{name}", code=error.code, since=None)


def _token_file(request: AnyRequest) -> tuple[answers.FailingTask, ...]:
    """Return the failure to reload the token file, if there is one."""
    authenticator = authenticator_of(request)
    authenticator.refresh()
    source = authenticator.source
    if source.error is None:
        return ()
    return (
        answers.FailingTask(
            task="token_file", code=source.error.code, since=source.failing_since
        ),
    )


@get(
    "/metrics",
    responses={
        **READS,
        200: ResponseSpec(
            str,
            generate_examples=False,
            media_type=MEDIA_TYPE,
            description="The metrics in the Prometheus text format.",
        ),
    },
    tags=_TAG,
    operation_id="getMetrics",
)
async def metrics(request: AnyRequest) -> Response[bytes]:
    """Return the metrics in the Prometheus text format."""
    service = service_of(request)
    text = service.metrics.text(await service.readings())
    return Response(text, media_type=MEDIA_TYPE)


HANDLERS: Final[list[BaseRouteHandler]] = [healthz, readyz, metrics]
"""The handlers of this module."""
