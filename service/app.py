"""The ASGI application: its handlers, its middleware and its error responses.

``composed`` opens the manager, the service and the application, and closes them again.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
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
    Fleet,
    HerdbookError,
    ManagerSettings,
    ModelRegistry,
    SystemClock,
)
from herdbook.core.log.location import LogLocation
from herdbook.core.logging import Logger
from herdbook.core.upkeep.upkeep import Upkeep, UpkeepSettings
from herdbook.service.api import anchors as api_anchors
from herdbook.service.api import free as api_free
from herdbook.service.api import health
from herdbook.service.api import log as api_log
from herdbook.service.api import models as api_models
from herdbook.service.api import nodes as api_nodes
from herdbook.service.api import operations as api_operations
from herdbook.service.api import roles as api_roles
from herdbook.service.api import tokens as api_tokens
from herdbook.service.api import usage as api_usage
from herdbook.service.api.health import VERSION
from herdbook.service.api.invalid_requests import invalid_request
from herdbook.service.api.openapi import PATH as DOCUMENT_PATH
from herdbook.service.api.openapi import Document, document_at_root
from herdbook.service.api.parameters import check_parameters
from herdbook.service.context import Service, default_manager_settings
from herdbook.service.dashboard import routes as pages
from herdbook.service.dashboard.layout import error_text
from herdbook.service.dashboard.pages import login, reference
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
    description="Manages the models of an Ollama server: their status, their history, "
    "and operations such as pulls. Sizes are in bytes, durations in seconds, times in "
    "ISO 8601 with Z; unknown values are null. Errors are application/problem+json "
    "with a stable identifier in code.",
    components=Components(
        security_schemes={
            "token": SecurityScheme(
                type="http",
                scheme="bearer",
                description="A token. A service without tokens accepts all requests.",
            )
        }
    ),
    security=[{"token": []}, {}],
    path=DOCUMENT_PATH,
    render_plugins=[Document(path="/")],
    use_handler_docstrings=True,
)


def application(service: Service) -> Guard:
    """Return the ASGI application of a service, with all middleware."""
    settings = service.settings
    page = partial(error_text, banner=settings.banner)
    return Guard(NamesInPaths(routed(service)), settings, page=page)


def routed(service: Service) -> Litestar:
    """Return the Litestar application of a service, without access checks."""
    api: Router = Router(
        path="/v1",
        route_handlers=[
            *api_models.HANDLERS,
            *api_free.HANDLERS,
            *api_operations.HANDLERS,
            *api_roles.HANDLERS,
            *api_usage.HANDLERS,
            *api_log.HANDLERS,
            *api_nodes.HANDLERS,
            *api_tokens.HANDLERS,
            *api_anchors.HANDLERS,
        ],
        before_request=_check_request,
    )
    return Litestar(
        route_handlers=[
            api,
            document_at_root,
            *health.HANDLERS,
            *login.HANDLERS,
            *reference.HANDLERS,
            pages.PAGES,
        ],
        exception_handlers=FAILURES,
        before_send=[_set_allow_header],
        openapi_config=OPENAPI,
        state=State({"service": service}),
        request_max_body_size=service.settings.body_bytes,
        debug=False,
        pdb_on_exception=False,
        logging_config=None,
    )


@asynccontextmanager
async def composed(
    log: str | LogLocation,
    *,
    settings: ServiceSettings | None = None,
    ollama: str | None = None,
    node: str | None = None,
    registry: ModelRegistry | None = None,
    manager_settings: ManagerSettings | None = None,
    clock: Clock | None = None,
    upkeep: UpkeepSettings | None = None,
) -> AsyncIterator[tuple[Service, Guard]]:
    """Open the nodes and the service, and close them at the end of the block.

    An Ollama server may be unreachable: history and status are served, its node is
    shown as lost, and its manager retries with growing intervals.

    Args:
        log: The log: a file, or the address of a database.
        settings: Settings of the service.
        ollama: The address of the node, or of ``local``, in the form of
            ``OLLAMA_HOST``.
        node: Manage only this node; None for all nodes of the log.
        registry: The catalogue of known models.
        manager_settings: Settings of each manager; those of a service by default.
        clock: The clock; for tests.
        upkeep: Backups and anchors of the log at intervals; none by default.

    Raises:
        StoreError: The log cannot be opened.
        CallerError: An argument is not valid.
    """
    clock, settings = clock or SystemClock(), settings or ServiceSettings()
    metrics = Metrics(log)
    work = Upkeep(log, upkeep or UpkeepSettings(), clock=clock)
    opened = Fleet.open(
        log,
        ollama=ollama,
        node=node,
        actor="service",
        registry=registry,
        settings=manager_settings or default_manager_settings(),
        clock=clock,
        observer=metrics,
        reading=settings.read_only,
    )
    async with opened as fleet:
        service = Service(fleet, settings, clock=clock, metrics=metrics, upkeep=work)
        async with service.running():
            yield service, application(service)


async def _check_request(request: AnyRequest) -> None:
    """Refuse unknown query parameters, and bodies that are not JSON."""
    check_parameters(request)
    await _only_json(request)


async def _only_json(request: AnyRequest) -> None:
    """Refuse a body that is not declared as JSON.

    Pages of other sites cannot send that content type without a preflight request.

    Raises:
        UnsupportedMediaError: The content type is missing or not JSON.
        BadRequestError: The body is not UTF-8; Litestar 2.25 would respond with 500.
    """
    kind = request.headers.get("content-type", "")
    if kind and kind.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaError(
            f"the content type {kind[:80]!r}",
            "is not supported",
            "Send JSON, with Content-Type: application/json",
        )
    body = await request.body() if has_body(request.scope) else b""
    if body and not kind:
        raise UnsupportedMediaError(
            "the body",
            "has no content type",
            "Send JSON, with Content-Type: application/json",
        )
    try:
        body.decode()
    except UnicodeDecodeError:
        raise BadRequestError("the body", "is not UTF-8") from None


async def _set_allow_header(message: Message, scope: Scope) -> None:
    """List all methods of a path in ``Allow`` of an ``OPTIONS`` response.

    Litestar 2.25 lists only those of the first of several routes with the same path.
    """
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


def _error_response(request: AnyRequest, error: HerdbookError) -> Response[Any]:
    """Return the response to an error: a page for browsers, else a problem."""
    if _wants_page(request):
        return pages.error_page(request, error)
    problem = problem_of(error)
    return Response(
        problem,
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=headers_of(error),
    )


def _framework_error(request: AnyRequest, error: HTTPException) -> Response[Any]:
    """Return the response to an exception of Litestar, in the form of all errors."""
    response = _error_response(request, _converted(request, error))
    if allowed := _allowed(error):
        response.headers["allow"] = allowed
    return response


def _converted(request: AnyRequest, error: HTTPException) -> HerdbookError:
    path = request.url.path.replace("%2F", "/")  # in the name of a model
    match error.status_code:
        case 404:
            return BadPathError(path)
        case 405:
            return BadMethodError(request.method, path, _allowed(error))
        case 413:
            return TooLargeError("the body", "is too large")
        case 415:
            return UnsupportedMediaError("the body", "has an unsupported format")
        case _:
            return invalid_request(request, error)


def _allowed(error: HTTPException) -> str:
    """Return the methods of the path of a request with another one."""
    headers = {name.lower(): text for name, text in (error.headers or {}).items()}
    return ", ".join(sorted(filter(None, headers.get("allow", "").split(", "))))


def _too_deep(request: AnyRequest, _: RecursionError) -> Response[Any]:
    """Return the response to JSON that is nested more deeply than msgspec decodes."""
    return _error_response(request, BadRequestError("the body", "is nested too deeply"))


def _unexpected(request: AnyRequest, error: Exception) -> Response[Any]:
    """Return the response to an unexpected exception; only the log has its text."""
    _log.warning(
        "unexpected_error", path=request.url.path[:200], reason=repr(error)[:500]
    )
    if _wants_page(request):
        bug = HerdbookError("this page", "had an unexpected error", UNEXPECTED.remedy)
        return pages.error_page(request, bug)
    return Response(UNEXPECTED, status_code=500, media_type=MEDIA_TYPE)


def _wants_page(request: AnyRequest) -> bool:
    api = request.url.path.startswith(("/v1", "/metrics", "/healthz", "/readyz"))
    return not api and "text/html" in request.headers.get("accept", "")


FAILURES: Final[Any] = {
    HerdbookError: _error_response,
    HTTPException: _framework_error,
    RecursionError: _too_deep,
    Exception: _unexpected,
}
"""The exception handlers of the application, by class."""
