"""The application: which handlers there are, and how what goes wrong is answered.

``composed`` opens the manager and the service and gives the ASGI application, in
its guard; whoever enters it leaves it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from litestar import Litestar, Response, Router
from litestar.datastructures import MutableScopeHeaders, State
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import Message, Scope

from herdbook.core import (
    Clock,
    HerdbookError,
    ManagerSettings,
    ModelManager,
    ModelRegistry,
    SystemClock,
)
from herdbook.core.logging import Logger
from herdbook.service.api import health
from herdbook.service.api import log as api_log
from herdbook.service.api import models as api_models
from herdbook.service.api import operations as api_operations
from herdbook.service.api import roles as api_roles
from herdbook.service.api.health import VERSION
from herdbook.service.api.openapi import Document
from herdbook.service.context import Service, default_manager_settings
from herdbook.service.dashboard.pages import login, reference
from herdbook.service.dashboard.pages import routes as pages
from herdbook.service.errors import (
    BadMethodError,
    BadPathError,
    BadRequestError,
    TooLargeError,
    UnsupportedMediaError,
)
from herdbook.service.http.exchange import has_body
from herdbook.service.http.paths import NamesInPaths
from herdbook.service.http.request import AnyRequest
from herdbook.service.metrics import Metrics
from herdbook.service.middleware import Guard
from herdbook.service.problems import MEDIA_TYPE, UNEXPECTED, headers_of, problem_of
from herdbook.service.settings import ServiceSettings

_log = Logger("herdbook.service")
_TYPE_OF_PARAMETER: Final = re.compile(r":\w+(?=})")

OPENAPI: Final = OpenAPIConfig(
    title="Herdbook",
    version=VERSION,
    description="The register of an Ollama server's models: their states, their "
    "history, and the work on them. Sizes are bytes, durations seconds, times ISO 8601 "
    "with Z; what is not known is null. What goes wrong is told as "
    "application/problem+json, with a stable word in code.",
    components=Components(
        security_schemes={
            "token": SecurityScheme(
                type="http",
                scheme="bearer",
                description="A token; where the service has none, nobody needs one.",
            )
        }
    ),
    security=[{"token": []}, {}],
    path="/v1",
    render_plugins=[Document(path="/openapi.json")],
    use_handler_docstrings=True,
)


def application(service: Service) -> Guard:
    """Return the application of a service, with everything that guards it."""
    return Guard(NamesInPaths(routed(service)), service.settings)


def routed(service: Service) -> Litestar:
    """Return the handlers of a service, on their paths."""
    api: Router = Router(
        path="/v1",
        route_handlers=[
            *api_models.HANDLERS,
            *api_operations.HANDLERS,
            *api_roles.HANDLERS,
            *api_log.HANDLERS,
        ],
        before_request=_only_json,
    )
    return Litestar(
        route_handlers=[
            api,
            *health.HANDLERS,
            *login.HANDLERS,
            *reference.HANDLERS,
            pages.PAGES,
        ],
        exception_handlers=FAILURES,
        before_send=[_tell_methods],
        openapi_config=OPENAPI,
        state=State({"service": service}),
        request_max_body_size=service.settings.body_bytes,
        debug=False,
        pdb_on_exception=False,
        logging_config=None,
    )


@asynccontextmanager
async def composed(
    log: str | Path,
    *,
    settings: ServiceSettings | None = None,
    ollama: str | None = None,
    node: str = "local",
    registry: ModelRegistry | None = None,
    manager_settings: ManagerSettings | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[tuple[Service, Guard]]:
    """Open all that a service is made of, and close it at the end.

    The Ollama server need not answer: history and views are served, the node is
    shown as lost, and the manager looks again with growing intervals.

    Args:
        log: The log's file.
        settings: How to listen, and whom to let in.
        ollama: The server, as ``OLLAMA_HOST`` takes it.
        node: Our name for it.
        registry: What is known of models.
        manager_settings: Settings of the manager; those of a service by default.
        clock: What time it is.

    Raises:
        StoreError: The log cannot be opened.
        CallerError: An argument is not valid.
    """
    clock, settings = clock or SystemClock(), settings or ServiceSettings()
    metrics = Metrics(log)
    opened = ModelManager.open(
        log,
        ollama=ollama,
        node=node,
        actor="service",
        registry=registry,
        settings=manager_settings or default_manager_settings(),
        clock=clock,
        observer=metrics,
    )
    async with opened as manager:
        service = Service(manager, settings, clock=clock, metrics=metrics)
        async with service.running():
            yield service, application(service)


async def _only_json(request: AnyRequest) -> None:
    """Refuse a body that is not JSON: a form of another site's page never is.

    Raises:
        UnsupportedMediaError: It is in another format, or does not say in which.
        BadRequestError: It is not UTF-8, which the decoder does not expect.
    """
    kind = request.headers.get("content-type", "")
    if kind and kind.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaError(
            f"a body of type {kind[:80]!r}",
            "is not taken here",
            "Send JSON, with Content-Type: application/json",
        )
    body = await request.body() if has_body(request.scope) else b""
    if body and not kind:
        raise UnsupportedMediaError(
            "a body without a type",
            "is not taken here",
            "Send JSON, with Content-Type: application/json",
        )
    try:
        body.decode()
    except UnicodeDecodeError:
        raise BadRequestError("the body", "is not UTF-8") from None


async def _tell_methods(message: Message, scope: Scope) -> None:
    """Say at ``OPTIONS`` all that a path takes: the framework knows its first alone."""
    if scope["type"] == ScopeType.HTTP and scope["method"] == "OPTIONS":
        template = scope.get("path_template", "")
        routes = scope["litestar_app"].route_handler_method_map
        taken = [
            method
            for path, methods in routes.items()
            if _TYPE_OF_PARAMETER.sub("", path) == _TYPE_OF_PARAMETER.sub("", template)
            for method in methods
        ]
        if message["type"] == "http.response.start" and taken:
            methods = sorted({*(str(method) for method in taken), "OPTIONS"})
            MutableScopeHeaders.from_message(message)["allow"] = ", ".join(methods)


def _told(request: AnyRequest, error: HerdbookError) -> Response[Any]:
    """Answer one of our errors: as a page to who reads pages, else as a problem."""
    if _reads_pages(request):
        return pages.error_page(request, error)
    problem = problem_of(error)
    return Response(
        problem,
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=headers_of(error),
    )


def _translated(request: AnyRequest, error: HTTPException) -> Response[Any]:
    """Answer what the framework found wrong, in our words."""
    answered = _told(request, _ours(request, error))
    for name, value in (error.headers or {}).items():
        if name.lower() == "allow":
            answered.headers["allow"] = value
    return answered


def _ours(request: AnyRequest, error: HTTPException) -> HerdbookError:
    path = request.url.path
    match error.status_code:
        case 404:
            return BadPathError(f"{path[:200]!r}", "is not a path of this service")
        case 405:
            return BadMethodError(f"{request.method} {path[:200]}", "is not possible")
        case 413:
            return TooLargeError("the body", "is longer than is taken here")
        case 415:
            return UnsupportedMediaError("the body", "is not in a format taken here")
        case _:
            return BadRequestError("the request", f"cannot be read: {_detail(error)}")


def _detail(error: HTTPException) -> str:
    """Return what is wrong with which parameter, in a line."""
    extra = getattr(error, "extra", None)
    if isinstance(extra, list) and extra:
        told = (
            f"{each.get('key', 'body')}: {each.get('message', '')}"
            for each in extra
            if isinstance(each, dict)
        )
        return "; ".join(told)[:300]
    return str(error.detail)[:300]


def _too_deep(request: AnyRequest, _: RecursionError) -> Response[Any]:
    """Answer a body that is nested deeper than it can be read."""
    return _told(request, BadRequestError("the body", "is nested too deeply"))


def _unforeseen(request: AnyRequest, error: Exception) -> Response[Any]:
    """Answer what nobody foresaw; what it was stands in our own logs alone."""
    _log.warning("broken", path=request.url.path[:200], reason=repr(error)[:500])
    if _reads_pages(request):
        fault = HerdbookError("this page", "met an unexpected error", UNEXPECTED.remedy)
        return pages.error_page(request, fault)
    return Response(UNEXPECTED, status_code=500, media_type=MEDIA_TYPE)


def _reads_pages(request: AnyRequest) -> bool:
    api = request.url.path.startswith(("/v1", "/metrics", "/healthz", "/readyz"))
    return not api and "text/html" in request.headers.get("accept", "")


FAILURES: Final[Any] = {
    HerdbookError: _told,
    HTTPException: _translated,
    RecursionError: _too_deep,
    Exception: _unforeseen,
}
"""How what goes wrong is answered, by its class."""
