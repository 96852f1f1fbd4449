"""The routes of the API.

Invariant: a path that is not in the tables gets 404, and a method that a path does not
have gets 405 with the methods that it has.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec

from herdbook.sandbox.api import (
    compatible,
    inference_endpoints,
    model_endpoints,
    openai_responses,
)
from herdbook.sandbox.api.describe import openai_models, running, tags
from herdbook.sandbox.api.responses import PLAIN_TEXT, TEXT, Answer, Stream, json_answer
from herdbook.sandbox.refusals import Refusal
from herdbook.sandbox.request_bodies import Body, read_body
from herdbook.sandbox.world import World


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request, read to its end; the names of headers in small letters."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes


_GetHandler: TypeAlias = Callable[[World], Answer]
_Handler: TypeAlias = Callable[[World, Body], Awaitable[Answer | Stream]]

_GET_ROUTES: Final[dict[str, _GetHandler]] = {
    "/": lambda _: Answer(body=b"Ollama is running", content_type=TEXT),
    "/api/version": lambda world: json_answer({"version": world.profile.version}),
    "/api/status": lambda _: json_answer(
        {"cloud": {"disabled": True, "source": "env"}}
    ),
    "/api/tags": lambda world: json_answer(tags(world)),
    "/api/ps": lambda world: json_answer(running(world)),
    "/v1/models": lambda world: json_answer(
        {"object": "list", "data": openai_models(world) or None}, plain=True
    ),
}
#: Paths that also answer HEAD.
_HEAD_PATHS: Final = ("/", "/api/version", "/api/tags")

_ROUTES: Final[dict[str, tuple[str, _Handler]]] = {
    "/api/show": ("ShowRequest", model_endpoints.show),
    "/api/pull": ("PullRequest", model_endpoints.pull),
    "/api/copy": ("CopyRequest", model_endpoints.copy),
    "/api/create": ("CreateRequest", model_endpoints.create),
    "/api/delete": ("DeleteRequest", model_endpoints.delete),
    "/api/generate": ("GenerateRequest", inference_endpoints.generate),
    "/api/chat": ("ChatRequest", inference_endpoints.chat),
    "/api/embed": ("EmbedRequest", inference_endpoints.embed),
    "/api/embeddings": ("EmbeddingRequest", inference_endpoints.embeddings),
    "/v1/chat/completions": ("ChatCompletionRequest", compatible.chat),
    "/v1/completions": ("CompletionRequest", compatible.completions),
    "/v1/embeddings": ("EmbedRequest", compatible.embeddings),
    "/v1/responses": ("ResponsesRequest", openai_responses.respond),
    "/v1/messages": ("MessagesRequest", compatible.messages),
}
_BLOBS: Final = {"HEAD": model_endpoints.has_blob, "POST": model_endpoints.take_blob}

_LOCAL_HOST: Final = re.compile(
    r"localhost|.*\.(localhost|local|internal)", re.IGNORECASE
)
_LOCAL_ORIGIN: Final = re.compile(
    r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0)(:\d+)?"
    r"|(app|file|tauri|vscode-webview|vscode-file)://.*"
)

_Route: TypeAlias = Callable[[World, Request], Awaitable[Answer | Stream]]


async def answer(world: World, request: Request) -> Answer | Stream:
    """Answer a request.

    Raises:
        Refusal: where the endpoint refuses.
    """
    if not _is_allowed(request.headers):
        return Answer(status=403)
    old_way = world.profile.old and request.path == "/api/status"
    routes = {} if old_way else _routes(request.path)
    if not routes:
        return Answer(status=404, body=b"404 page not found", content_type=PLAIN_TEXT)
    route = routes.get(request.method)
    if route is None:
        return Answer(
            status=405,
            body=b"405 method not allowed",
            content_type=PLAIN_TEXT,
            headers={"allow": ", ".join(routes)},
        )
    return await route(world, request)


def _routes(path: str) -> dict[str, _Route]:
    """Return the routes of a path, by method."""
    handler = _GET_ROUTES.get(path)
    if handler is not None:
        methods = ("HEAD", "GET") if path in _HEAD_PATHS else ("GET",)
        return dict.fromkeys(methods, _get_route(handler))
    if path in _ROUTES:
        method = "DELETE" if path == "/api/delete" else "POST"
        return {method: _body_route(*_ROUTES[path])}
    if path.startswith("/api/blobs/"):
        return {method: _blob_route(do) for method, do in _BLOBS.items()}
    if path.startswith("/v1/models/") and path.count("/") == 3:
        return {"GET": _one_model}
    return {}


def _get_route(handler: _GetHandler) -> _Route:
    async def route(world: World, _request: Request) -> Answer:
        return handler(world)

    return route


def _body_route(struct: str, do: _Handler) -> _Route:
    async def route(world: World, request: Request) -> Answer | Stream:
        return await do(world, read_body(request.raw, struct))

    return route


def _blob_route(do: Callable[[World, str, bytes], Awaitable[Answer]]) -> _Route:
    async def route(world: World, request: Request) -> Answer:
        digest = request.path.rpartition("/")[2].replace("sha256-", "sha256:")
        return await do(world, digest, request.raw)

    return route


async def _one_model(world: World, request: Request) -> Answer:
    name = request.path.removeprefix("/v1/models/")
    for model in openai_models(world):
        if model["id"] in {name, f"{name}:latest"}:
            return json_answer(model, plain=True)
    raise Refusal(404, f"model '{name}' not found")


def _is_allowed(headers: dict[str, str]) -> bool:
    """Return whether host and origin belong to this machine or its network."""
    origin = headers.get("origin", "")
    if origin and not _LOCAL_ORIGIN.fullmatch(origin):
        return False
    host = headers.get("host", "")
    bare = re.sub(r":\d+$", "", host).strip("[]")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return not bare or bool(_LOCAL_HOST.fullmatch(bare))
    return address.is_private or address.is_loopback or address.is_unspecified
