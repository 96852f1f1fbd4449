"""The API reference: one page, made from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from litestar import Response, get

from herdbook.service.api.openapi import document_of
from herdbook.service.dashboard.layout import render
from herdbook.service.dashboard.page_request import visit
from herdbook.service.http.request import AnyRequest

_METHODS: Final = ("get", "put", "post", "delete")
Json = Mapping[str, Any]


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of a request, or a field of a schema.

    Attributes:
        name: Its name.
        place: ``path``, ``query`` or ``header``; empty in a schema.
        kind: Its type, as text.
        shape: The schema of its values; empty for a plain value.
        required: Whether it is required.
        text: Its description.
    """

    name: str
    place: str
    kind: str
    shape: str
    required: bool
    text: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response to a request.

    Attributes:
        status: The HTTP status.
        kind: The type of its content, as text.
        shape: The schema of its content; empty for none.
        text: Its description.
    """

    status: str
    kind: str
    shape: str
    text: str


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A method of a path.

    Attributes:
        name: The operation id.
        method: The method.
        path: The path.
        tag: The tag.
        title: The summary.
        text: The rest of the description.
        parameters: The parameters.
        body: The body of the request; None for none.
        answers: The responses, success first.
    """

    name: str
    method: str
    path: str
    tag: str
    title: str
    text: str
    parameters: tuple[Field, ...]
    body: Answer | None
    answers: tuple[Answer, ...]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A schema of requests and responses.

    Attributes:
        name: Its name.
        text: Its description.
        fields: Its fields.
        values: The values of an enumeration.
    """

    name: str
    text: str
    fields: tuple[Field, ...]
    values: tuple[str, ...]


def calls_of(document: Json) -> Iterator[Call]:
    """Yield every method of every path of an OpenAPI document."""
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield _call(path, method, methods[method])


def _call(path: str, method: str, part: Json) -> Call:
    body = part.get("requestBody")
    answers = [_answer(status, each) for status, each in part["responses"].items()]
    return Call(
        name=part["operationId"],
        method=method.upper(),
        path=path,
        tag=part.get("tags", ["Other"])[0],
        title=f"{part['summary']}.",
        text=" ".join(part["description"].strip().partition("\n")[2].split()),
        parameters=tuple(
            _field(each["name"], each["schema"], each)
            for each in part.get("parameters", ())
        ),
        body=_answer("", body) if body else None,
        answers=tuple(sorted(answers, key=lambda answer: answer.status)),
    )


def _answer(status: str, part: Json) -> Answer:
    content: Json = part.get("content") or {}
    schema: Json = next((each["schema"] for each in content.values()), {})
    return Answer(
        status=status,
        kind=_kind(schema) if schema else "",
        shape=_shape_in(schema),
        text=part.get("description", ""),
    )


def shapes_of(document: Json) -> Iterator[Shape]:
    """Yield every schema of an OpenAPI document."""
    for name, part in document["components"]["schemas"].items():
        needed = part.get("required", ())
        yield Shape(
            name=name,
            text=part["description"],
            fields=tuple(
                _field(field, schema, {"required": field in needed})
                for field, schema in part.get("properties", {}).items()
            ),
            values=tuple(str(value) for value in part.get("enum", ())),
        )


def _field(name: str, schema: Json, part: Json) -> Field:
    return Field(
        name=name,
        place=part.get("in", ""),
        kind=_kind(schema),
        shape=_shape_in(schema),
        required=bool(part.get("required")),
        text=part.get("description") or schema.get("description") or "",
    )


def _kind(schema: Json) -> str:
    """Return the type of a value as text."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(each) for each in schema["anyOf"]))
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(str(each) for each in kind)
    if kind == "array":
        return f"array of {_kind(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map of string to {_kind(schema['additionalProperties'])}"
    if "format" in schema and kind == "string":
        return str(schema["format"])
    return str(kind)


def _shape_in(schema: Any) -> str:
    """Return the first schema that a schema refers to; empty for none."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return str(schema["$ref"].rpartition("/")[2])
        return next(filter(None, map(_shape_in, schema.values())), "")
    if isinstance(schema, list):
        return next(filter(None, map(_shape_in, schema)), "")
    return ""


@get("/api", include_in_schema=False)
async def reference(request: AnyRequest) -> Response[str]:
    """Show the API reference."""
    document = (await document_of(request.app)).content
    calls = sorted(calls_of(document), key=lambda call: call.tag)
    return await render(
        await visit(request),
        "reference.html",
        title="API",
        about=document["info"]["description"],
        calls=calls,
        tags=list(dict.fromkeys(call.tag for call in calls)),
        shapes=sorted(shapes_of(document), key=lambda shape: shape.name),
    )


HANDLERS: Final = [reference]
"""The handlers of this module."""
