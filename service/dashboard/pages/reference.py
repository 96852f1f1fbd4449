"""The API reference: one page, made from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from litestar import Response, get

from herdbook.service.api.openapi import document_of
from herdbook.service.dashboard.layout import render, visit
from herdbook.service.http.request import AnyRequest

_METHODS: Final = ("get", "put", "post", "delete")
Json = Mapping[str, Any]


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of a request, or a field of a shape.

    Attributes:
        name: Its name.
        place: Where it stands: ``path``, ``query``, ``header``; empty in a shape.
        kind: What it may be, in words.
        shape: The shape that it is or holds; empty for a plain value.
        required: Whether it must be there.
        text: What it says.
    """

    name: str
    place: str
    kind: str
    shape: str
    required: bool
    text: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may be answered with.

    Attributes:
        status: The HTTP status.
        kind: What it holds, in words.
        shape: The shape that it is or holds; empty for none.
        text: When it is so.
    """

    status: str
    kind: str
    shape: str
    text: str


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A method of a path.

    Attributes:
        name: Its name in the document.
        method: The method.
        path: The path.
        tag: What it belongs to.
        title: What it does, in a sentence.
        text: More about that.
        parameters: What it takes.
        body: The body that it takes; None for none.
        answers: What it answers, first what is as it should be.
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
    """A shape that requests and answers have.

    Attributes:
        name: Its name.
        text: What it is.
        fields: What it has.
        values: What it may be, where it is one of some words.
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


def _call(path: str, method: str, told: Json) -> Call:
    title, _, text = told.get("description", "").strip().partition("\n")
    body = told.get("requestBody")
    answers = [_answer(status, each) for status, each in told["responses"].items()]
    return Call(
        name=told["operationId"],
        method=method.upper(),
        path=path,
        tag=told.get("tags", ["Other"])[0],
        title=title,
        text=" ".join(text.split()),
        parameters=tuple(
            _field(each["name"], each["schema"], each)
            for each in told.get("parameters", ())
        ),
        body=_answer("", body) if body else None,
        answers=tuple(sorted(answers, key=lambda answer: answer.status)),
    )


def _answer(status: str, told: Json) -> Answer:
    content: Json = told.get("content") or {}
    schema: Json = next((each["schema"] for each in content.values()), {})
    return Answer(
        status=status,
        kind=_kind(schema) if schema else "",
        shape=_shape_in(schema),
        text=told.get("description", ""),
    )


def shapes_of(document: Json) -> Iterator[Shape]:
    """Yield every shape of an OpenAPI document."""
    for name, told in document["components"]["schemas"].items():
        needed = told.get("required", ())
        yield Shape(
            name=name,
            text=told["description"],
            fields=tuple(
                _field(field, schema, {"required": field in needed})
                for field, schema in told.get("properties", {}).items()
            ),
            values=tuple(str(value) for value in told.get("enum", ())),
        )


def _field(name: str, schema: Json, told: Json) -> Field:
    return Field(
        name=name,
        place=told.get("in", ""),
        kind=_kind(schema),
        shape=_shape_in(schema),
        required=bool(told.get("required")),
        text=told.get("description") or schema.get("description") or "",
    )


def _kind(schema: Json) -> str:
    """Return in words what a value may be."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(each) for each in schema["anyOf"]))
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        return " or ".join(str(each) for each in kind)
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"by name: {_kind(schema['additionalProperties'])}"
    if "format" in schema and kind == "string":
        return str(schema["format"])
    return str(kind)


def _shape_in(schema: Any) -> str:
    """Return the first shape that a schema names; empty for none."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return str(schema["$ref"].rpartition("/")[2])
        return next(filter(None, map(_shape_in, schema.values())), "")
    if isinstance(schema, list):
        return next(filter(None, map(_shape_in, schema)), "")
    return ""


@get("/api", include_in_schema=False)
async def reference(request: AnyRequest) -> Response[str]:
    """Show the API."""
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
