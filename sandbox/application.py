"""The pretend server as an ASGI application, from a table of routes.

Invariant: whoever closes a connection ends what it asked for, at once; when the
server dies every connection breaks in the middle of its word.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import aclosing
from typing import Final, TypeAlias

from herdbook.sandbox import control, keeping, using
from herdbook.sandbox.answers import (
    LINES,
    PLAIN_TEXT,
    TEXT,
    Answer,
    Stream,
    json_answer,
    line,
    refusal_answer,
)
from herdbook.sandbox.bodies import Body, Json, read_body
from herdbook.sandbox.describe import openai_models, running, tags
from herdbook.sandbox.inference import pause
from herdbook.sandbox.refusals import Dropped, Refusal
from herdbook.sandbox.scripted import Nonsense
from herdbook.sandbox.world import Seen, World

Message: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

_Look: TypeAlias = Callable[[World], Answer]
_Do: TypeAlias = Callable[[World, Body], Awaitable[Answer | Stream]]

_LOOKS: Final[dict[str, _Look]] = {
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
#: Those that HEAD asks as well.
_HEADED: Final = ("/", "/api/version", "/api/tags")

_DOES: Final[dict[str, tuple[str, _Do]]] = {
    "/api/show": ("ShowRequest", keeping.show),
    "/api/pull": ("PullRequest", keeping.pull),
    "/api/copy": ("CopyRequest", keeping.copy),
    "/api/create": ("CreateRequest", keeping.create),
    "/api/delete": ("DeleteRequest", keeping.delete),
    "/api/generate": ("GenerateRequest", using.generate),
    "/api/chat": ("ChatRequest", using.chat),
    "/api/embed": ("EmbedRequest", using.embed),
    "/api/embeddings": ("EmbeddingRequest", using.embeddings),
    "/v1/chat/completions": ("ChatCompletionRequest", using.openai_chat),
}
_BLOBS: Final = {"HEAD": keeping.has_blob, "POST": keeping.take_blob}

_LOCAL_HOST: Final = re.compile(
    r"localhost|.*\.(localhost|local|internal)", re.IGNORECASE
)
_LOCAL_ORIGIN: Final = re.compile(
    r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0)(:\d+)?"
    r"|(app|file|tauri|vscode-webview|vscode-file)://.*"
)


class Request:
    """One request, read to its end."""

    def __init__(self, scope: Message, raw: bytes) -> None:
        self.method = str(scope["method"])
        self.path = str(scope["path"])
        self.raw = raw
        headers = scope["headers"]
        assert isinstance(headers, Iterable)
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in headers
        }


def application(world: World) -> Application:
    """Make the application that shows a world."""

    async def serve(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _converse(world, scope, receive, send)

    return serve


async def _converse(world: World, scope: Message, receive: Receive, send: Send) -> None:
    raw = await _read(receive)
    if raw is None:
        return
    request = Request(scope, raw)
    if request.path.startswith("/sandbox/"):
        await _send(send, await control.answer(world, request.path, raw), head=False)
        return
    seen = Seen(at=world.clock.now(), method=request.method, path=request.path)
    world.seen.append(seen)
    if world.down:
        seen.ended = "cut"
        await drop(scope)
    seen.ended = await _compete(world, request, receive, send)
    if seen.ended == "cut":
        await drop(scope)


async def _compete(world: World, request: Request, receive: Receive, send: Send) -> str:
    """Answer until it is done, the client goes away or the server dies."""
    answering = asyncio.ensure_future(_respond(world, request, send))
    leaving = asyncio.ensure_future(_gone(receive))
    dying = asyncio.ensure_future(world.death.wait())
    tasks = (answering, leaving, dying)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        return "cut" if dying.done() else "closed by client"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _respond(world: World, request: Request, send: Send) -> str:
    nonsense = world.answers.take(request.path)
    if nonsense is not None:
        if nonsense.delay_s:
            await pause(world.clock, nonsense.delay_s)
        if not nonsense.after_lines and not nonsense.truthful:
            return await _nonsense(send, nonsense, begun=False)
    try:
        answer = await _answer(world, request)
    except Refusal as refusal:
        answer = _refusal(request.path, refusal)
    if isinstance(answer, Stream):
        return await _stream(send, answer, nonsense)
    await _send(send, answer, head=request.method == "HEAD")
    return "answered"


async def _answer(world: World, request: Request) -> Answer | Stream:
    if not _welcome(request.headers):
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


_Route: TypeAlias = Callable[[World, Request], Awaitable[Answer | Stream]]


def _routes(path: str) -> dict[str, _Route]:
    """Give what a path answers to, by method."""
    look = _LOOKS.get(path)
    if look is not None:
        methods = ("HEAD", "GET") if path in _HEADED else ("GET",)
        return dict.fromkeys(methods, _looking(look))
    if path in _DOES:
        method = "DELETE" if path == "/api/delete" else "POST"
        return {method: _doing(*_DOES[path])}
    if path.startswith("/api/blobs/"):
        return {method: _carrying(do) for method, do in _BLOBS.items()}
    if path.startswith("/v1/models/"):
        return {"GET": _one_model}
    return {}


def _looking(look: _Look) -> _Route:
    async def route(world: World, _request: Request) -> Answer:
        return look(world)

    return route


def _doing(struct: str, do: _Do) -> _Route:
    async def route(world: World, request: Request) -> Answer | Stream:
        return await do(world, read_body(request.raw, struct))

    return route


def _carrying(do: Callable[[World, str, bytes], Awaitable[Answer]]) -> _Route:
    async def route(world: World, request: Request) -> Answer:
        digest = request.path.rpartition("/")[2].replace("sha256-", "sha256:")
        return await do(world, digest, request.raw)

    return route


async def _one_model(world: World, request: Request) -> Answer:
    name = request.path.removeprefix("/v1/models/")
    for told in openai_models(world):
        if told["id"] in {name, f"{name}:latest"}:
            return json_answer(told, plain=True)
    raise Refusal(404, f"model '{name}' not found")


def _refusal(path: str, refusal: Refusal) -> Answer:
    """Refuse in the form of the API that was asked."""
    if not path.startswith("/v1/"):
        return refusal_answer(refusal.status, refusal.text)
    missing = refusal.status == 404
    error: Json = {
        "message": refusal.text,
        "type": "not_found_error" if missing else "invalid_request_error",
        "param": None,
        "code": None,
    }
    return json_answer({"error": error}, status=refusal.status, plain=True)


def _welcome(headers: dict[str, str]) -> bool:
    """Tell whether the host and the origin are of this machine or its network."""
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


async def _read(receive: Receive) -> bytes | None:
    """Read the body to its end; None where the client went away before."""
    raw = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        assert isinstance(part, bytes)
        raw += part
        if not message.get("more_body"):
            return raw


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, answer: Answer, *, head: bool) -> None:
    headers = answer.all_headers
    await _start(send, answer.status, headers)
    body = b"" if head else answer.body
    await send({"type": "http.response.body", "body": body})


async def _stream(send: Send, stream: Stream, nonsense: Nonsense | None) -> str:
    async with aclosing(stream.lines) as lines:
        await _start(send, 200, {"content-type": LINES})
        sent = 0
        async for one in lines:
            if nonsense is not None and sent == nonsense.after_lines:
                return await _nonsense(send, nonsense, begun=True)
            await _piece(send, line(one))
            sent += 1
    await send({"type": "http.response.body", "body": b""})
    return "answered"


async def _nonsense(send: Send, nonsense: Nonsense, *, begun: bool) -> str:
    """Give a scripted answer, as far as it goes."""
    if not begun:
        if nonsense.hang and not nonsense.body:
            await asyncio.Event().wait()
        await _start(send, nonsense.status, dict(nonsense.headers))
    await _piece(send, nonsense.raw)
    while nonsense.repeat:
        await _piece(send, nonsense.raw)
        await asyncio.sleep(0)
    if nonsense.hang:
        await asyncio.Event().wait()
    if nonsense.cut:
        return "cut"
    await send({"type": "http.response.body", "body": b""})
    return "answered"


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    told = [(name.encode(), value.encode()) for name, value in headers.items() if value]
    await send({"type": "http.response.start", "status": status, "headers": told})


async def _piece(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def drop(scope: Message) -> None:
    """Break the connection without another word.

    Raises:
        Dropped: always; a server that gave us no way to cut the connection has to
            do it when it meets this.
    """
    state = scope.get("state")
    cut = state.get("cut_connection") if isinstance(state, dict) else None
    if callable(cut):
        cut()
    raise Dropped
