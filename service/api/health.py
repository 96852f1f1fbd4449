"""Whether it lives, whether it is ready, and what it measures."""

from __future__ import annotations

from importlib import metadata
from typing import Final

from litestar import Response, get
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi import ResponseSpec

from herdbook.core import StoreError
from herdbook.service.api import schemas as answers
from herdbook.service.api.responses import READS
from herdbook.service.context import service_of
from herdbook.service.http.request import AnyRequest
from herdbook.service.live import Reason
from herdbook.service.metrics import MEDIA_TYPE

_TAG: Final = ["Health"]
VERSION: Final = metadata.version("herdbook")
"""Herdbook's version."""


@get("/healthz", responses=READS, tags=_TAG, operation_id="getHealth")
async def healthz() -> answers.Alive:
    """Say that the process lives: it asks neither the log nor the Ollama server."""
    return answers.Alive(status="ok", version=VERSION)


@get(
    "/readyz",
    responses={
        **READS,
        503: ResponseSpec(
            answers.Ready, generate_examples=False, description="Not ready."
        ),
    },
    tags=_TAG,
    operation_id="getReadiness",
)
async def readyz(request: AnyRequest) -> Response[answers.Ready]:
    """Say whether it can serve: the log answers, and all background tasks work.

    It is not ready while it stops. A lost Ollama server does not make it unready:
    history and views are served.
    """
    service = service_of(request)
    failing = answers.failing(service.background_tasks())
    try:
        read_model = await service.read_model()
    except StoreError as error:
        told = answers.Ready(
            status=error.code, position=None, node_reached=None, failing=failing
        )
        return Response(told, status_code=503)
    status = "ok"
    if service.stopping:
        status = "stopping"
    elif service.live.failed:
        status = Reason.LOG_FAILED
    elif failing:
        status = "task_failing"
    known = read_model.overdue_since is None
    ready = answers.Ready(
        status=status,
        position=read_model.position,
        node_reached=read_model.node_status().reached if known else None,
        failing=failing,
    )
    return Response(ready, status_code=200 if status == "ok" else 503)


@get(
    "/metrics",
    responses={
        **READS,
        200: ResponseSpec(
            str,
            generate_examples=False,
            media_type=MEDIA_TYPE,
            description="The measures, as Prometheus reads them.",
        ),
    },
    tags=_TAG,
    operation_id="getMetrics",
)
async def metrics(request: AnyRequest) -> Response[bytes]:
    """Return what is measured, as Prometheus reads it."""
    service = service_of(request)
    text = service.metrics.text(await service.readings())
    return Response(text, media_type=MEDIA_TYPE)


HANDLERS: Final[list[BaseRouteHandler]] = [healthz, readyz, metrics]
"""The handlers of this module."""
