"""The API's own document: what the framework makes of the handlers, made exact.

The framework tells types; what it cannot know is added here: that unions are not
exclusive, which shapes take no unknown fields, what each field means (it stands in
the docstrings), which headers an answer has, and how one answer leads to the next
request.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
from litestar import Litestar, Response, Router
from litestar.enums import OpenAPIMediaType
from litestar.openapi.plugins import JsonRenderPlugin

from herdbook import core
from herdbook.core.history import diff as difference
from herdbook.core.history import explain as lineage
from herdbook.core.operations import costs
from herdbook.events import facts
from herdbook.events.facts import FACTS
from herdbook.presentation import shapes
from herdbook.projections import roles, status
from herdbook.service import problems
from herdbook.service.api import models as api_models
from herdbook.service.api import schemas as answers
from herdbook.service.http.request import AnyRequest
from herdbook.service.operations import operation
from herdbook.service.operations.operation import OperationRequest

Json = dict[str, Any]

STRICT: Final = (answers.SettingsChange, answers.Use, OperationRequest)
"""Shapes of bodies: a field that they do not have is refused."""

_SHAPES: Final = (
    *(answers, problems, operation, api_models),
    *(shapes, core, facts, costs, difference, lineage, roles, status),
)
"""The modules that have the shapes; the first that has a name has its meaning."""

PATHS: Final = ("/v1", "/v1/openapi.json")
"""Where the document is served."""

_MAKING: Final = "document"

_EVENT_TYPES: Final = sorted(fact.__name__ for fact in FACTS)
_ETAG: Final = {
    "ETag": {
        "description": "What If-Match and If-None-Match name.",
        "schema": {"type": "string"},
    }
}
_LOCATION: Final = {
    "Location": {
        "description": "Where the operation is.",
        "schema": {"type": "string"},
    }
}
_HEADERS: Final = {
    "listModels": ("200", _ETAG),
    "getStatus": ("200", _ETAG),
    "getConfiguration": ("200", _ETAG),
    "putConfiguration": ("200", _ETAG),
    "startOperation": ("202", _LOCATION),
}
"""Headers of answers, by the name of the call."""

_LINKS: Final = {
    name: {
        "operationId": name,
        "parameters": {"operation_id": "$response.body#/id"},
    }
    for name in ("getOperation", "cancelOperation")
}


class ApiDocument(NamedTuple):
    """The document of one application.

    Attributes:
        content: The document.
        encoded: The same as JSON.
    """

    content: Json
    encoded: bytes


async def document_of(app: Litestar) -> ApiDocument:
    """Return the document of an application, made once, in a thread.

    Making it takes up to half a second. The handlers that it is made of do not change
    while the application runs, so a thread is safe.
    """
    making: asyncio.Task[ApiDocument] | None = app.state.get(_MAKING)
    if making is None:
        making = asyncio.create_task(asyncio.to_thread(_made, app), name="document")
        app.state[_MAKING] = making
    return await asyncio.shield(making)  # others may wait for it too


def _made(app: Litestar) -> ApiDocument:
    content = exact(app.openapi_schema.to_schema())
    return ApiDocument(content, msgspec.json.encode(content))


class Document(JsonRenderPlugin):
    """Serves the document to programs.

    The framework's own handler makes the document while the event loop waits. It is
    never reached: the answer is given before.
    """

    def receive_router(self, router: Router) -> None:
        """Answer on the framework's router before its own handlers do."""
        router.before_request = _answer


async def _answer(request: AnyRequest) -> Response[bytes] | None:
    """Return the document; None for another path, which the framework refuses."""
    if request.url.path.rstrip("/") not in PATHS:
        return None
    document = await document_of(request.app)
    return Response(document.encoded, media_type=OpenAPIMediaType.OPENAPI_JSON)


def exact(document: Json) -> Json:
    """Return a document of the framework, made exact."""
    told: Json = _inclusive(document)
    for name, shape in told["components"]["schemas"].items():
        _tell_fields(shape, _docstring(name))
    for struct in STRICT:
        told["components"]["schemas"][struct.__name__]["additionalProperties"] = False
    for call in calls_of(told):
        _tell_call(call)
    return told


def calls_of(document: Json) -> Iterator[Json]:
    """Yield what a document says of each method of each path."""
    for methods in document["paths"].values():
        for told in methods.values():
            if isinstance(told, dict):
                yield told


def _inclusive(schema: Any) -> Any:
    """Return a schema whose unions may overlap: 1 is a number, and an integer too."""
    if isinstance(schema, dict):
        return {
            "anyOf" if name == "oneOf" else name: _inclusive(value)
            for name, value in schema.items()
        }
    if isinstance(schema, list):
        return [_inclusive(each) for each in schema]
    return schema


def _docstring(name: str) -> str:
    """Return what the class says that a shape is made of."""
    found = next((getattr(m, name) for m in _SHAPES if hasattr(m, name)), None)
    return inspect.getdoc(found) or ""


def _tell_fields(shape: Json, docstring: str) -> None:
    """Tell what a shape is and what its fields mean, as the docstring has it."""
    text, _, attributes = docstring.partition("Attributes:")
    shape["description"] = " ".join(text.split())
    meanings = dict(_meanings(attributes))
    for name, field in shape.get("properties", {}).items():
        if name in meanings:
            field.setdefault("description", meanings[name])


def _meanings(attributes: str) -> Iterator[tuple[str, str]]:
    """Yield what a docstring says of each attribute."""
    name, told = "", ""
    for line in attributes.splitlines():
        first, colon, rest = line.strip().partition(": ")
        if colon and first.isidentifier():
            if name:
                yield name, told
            name, told = first, rest
        elif name:
            told = f"{told} {line.strip()}".strip()
    if name:
        yield name, told


def _tell_call(call: Json) -> None:
    name = call["operationId"]
    for parameter in call.get("parameters", ()):
        if parameter["name"] == "type":
            parameter["schema"] = {"type": "array", "items": {"enum": _EVENT_TYPES}}
        if parameter["name"] == "If-Match":
            parameter["required"] = True
    body = call.get("requestBody")
    if body is not None:
        schema = body["content"]["application/json"]["schema"]
        body["required"] = not any(
            each.get("type") == "null" for each in schema.get("anyOf", ())
        )
    if name in _HEADERS:
        status, headers = _HEADERS[name]
        call["responses"][status].setdefault("headers", {}).update(headers)
    if name == "startOperation":
        call["responses"]["202"]["links"] = msgspec.to_builtins(_LINKS)
