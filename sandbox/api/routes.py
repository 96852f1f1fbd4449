"""The routes of the API.

Invariant: a path that is not in the tables gets 404, and a method that a path does not
have gets 405 with the methods that it has.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec

from herdbook.sandbox.api import (
    access,
    compatible,
    inference_endpoints,
    lookup,
    model_endpoints,
    openai_responses,
)
from herdbook.sandbox.api.describe import openai_model, openai_models, running, tags
from herdbook.sandbox.api.responses import (
    HTML,
    PLAIN_TEXT,
    TEXT,
    Answer,
    Stream,
    json_answer,
    refusal_answer,
)
from herdbook.sandbox.refusals import Malformed, Refusal
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
    "/api/show": ("api.ShowRequest", model_endpoints.show),
    "/api/pull": ("api.PullRequest", model_endpoints.pull),
    "/api/push": ("api.PushRequest", model_endpoints.push),
    "/api/copy": ("api.CopyRequest", model_endpoints.copy),
    "/api/create": ("api.CreateRequest", model_endpoints.create),
    "/api/delete": ("api.DeleteRequest", model_endpoints.delete),
    "/api/generate": ("api.GenerateRequest", inference_endpoints.generate),
    "/api/chat": ("api.ChatRequest", inference_endpoints.chat),
    "/api/embed": ("api.EmbedRequest", inference_endpoints.embed),
    "/api/embeddings": ("api.EmbeddingRequest", inference_endpoints.embeddings),
    "/v1/chat/completions": ("openai.ChatCompletionRequest", compatible.chat),
    "/v1/completions": ("openai.CompletionRequest", compatible.completions),
    "/v1/embeddings": ("openai.EmbedRequest", compatible.embeddings),
    "/v1/responses": ("openai.ResponsesRequest", openai_responses.respond),
    "/v1/messages": ("anthropic.MessagesRequest", compatible.messages),
}
_WEB: Final = "/api/experimental/web_"
_NO_CLOUD: Final = "ollama cloud is disabled"
#: Paths of the cloud and of audio, which are never available here.
_REFUSED_ROUTES: Final = {
    "/api/me": (503, "account unavailable"),
    "/api/signout": (500, "there was an error signing out"),
    f"{_WEB}search": (403, f"{_NO_CLOUD}: web search is unavailable"),
    f"{_WEB}fetch": (403, f"{_NO_CLOUD}: web fetch is unavailable"),
    "/v1/audio/transcriptions": (
        400,
        (
            "failed to parse multipart form: "
            "request Content-Type isn't multipart/form-data"
        ),
    ),
}
_NEW_PATHS: Final = ("/api/status", *_REFUSED_ROUTES)
"""Paths that older servers do not have."""

_BLOBS: Final = {"HEAD": model_endpoints.has_blob, "POST": model_endpoints.take_blob}

_Route: TypeAlias = Callable[[World, Request], Awaitable[Answer | Stream]]


async def answer(world: World, request: Request) -> Answer | Stream:
    """Answer a request.

    Raises:
        Refusal: where the endpoint refuses.
    """
    old_way = world.profile.old and request.path in _NEW_PATHS
    routes = {} if old_way else _routes(request.path)
    route = routes.get(request.method)
    missing = bool(routes) and route is None
    headers = {"allow": ", ".join(routes)} if missing else {}
    checked = access.check(request.method, request.headers)
    if checked is not None:
        return msgspec.structs.replace(checked, headers=headers | checked.headers)
    if route is not None:
        return await route(world, request)
    if missing:
        return Answer(
            status=405,
            body=b"405 method not allowed",
            content_type=PLAIN_TEXT,
            headers=headers,
        )
    return _redirect(request) or Answer(
        status=404, body=b"404 page not found", content_type=PLAIN_TEXT
    )


def _redirect(request: Request) -> Answer | None:
    """Send a path with superfluous slashes to the right one, as far as Go does."""
    single = re.sub("/+", "/", request.path)
    target = single if single != request.path else single.rstrip("/")
    routes = _routes(target)
    if target in {request.path, ""} or not routes:
        return None
    if single == request.path and request.method not in routes:
        return None
    moved = single == request.path and request.method == "GET"
    status, words = (301, "Moved Permanently") if moved else (307, "Temporary Redirect")
    headers = {"location": target}
    if request.method not in {"GET", "HEAD"}:
        return Answer(status=status, headers=headers)
    body = f'<a href="{target}">{words}</a>.\n\n'.encode()
    return Answer(status=status, body=body, content_type=HTML, headers=headers)


def _routes(path: str) -> dict[str, _Route]:
    """Return the routes of a path, by method."""
    handler = _GET_ROUTES.get(path)
    if handler is not None:
        methods = ("HEAD", "GET") if path in _HEAD_PATHS else ("GET",)
        return dict.fromkeys(methods, _get_route(handler))
    if path in _ROUTES:
        method = "DELETE" if path == "/api/delete" else "POST"
        return {method: _body_route(*_ROUTES[path])}
    if re.fullmatch("/api/user/keys/[^/]+", path):
        return {"DELETE": _refused_route(*_REFUSED_ROUTES["/api/signout"])}
    if path in _REFUSED_ROUTES:
        return {"POST": _refused_route(*_REFUSED_ROUTES[path])}
    if path.count("/") == 3 and not path.endswith("/"):
        if path.startswith("/api/blobs/"):
            return {method: _blob_route(do) for method, do in _BLOBS.items()}
        if path.startswith("/v1/models/"):
            return {"GET": _one_model}
    return {}


def _refused_route(status: int, text: str) -> _Route:
    async def route(_world: World, request: Request) -> Answer:
        if not request.raw and request.path.startswith(_WEB):
            raise Refusal(400, "missing request body")
        raise Malformed(status, text)

    return route


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
    try:
        entry = lookup.to_show(world, name)
    except Refusal as refusal:
        if refusal.status == 403:  # answered before OpenAI's form is chosen
            return refusal_answer(refusal.status, refusal.text)
        raise
    return json_answer(openai_model(entry) | {"id": name}, plain=True)
