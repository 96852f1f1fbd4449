"""Show a world over HTTP, as an ASGI application.

Invariant: a client that closes its connection ends its request at once; when the server
dies, every connection is cut in the middle of its answer.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import aclosing
from typing import Final, TypeAlias

from herdbook.sandbox.api import control
from herdbook.sandbox.api.access import shared_with
from herdbook.sandbox.api.inference import pause
from herdbook.sandbox.api.responses import (
    WITHOUT_LENGTH,
    Answer,
    Stream,
    json_answer,
    refusal_answer,
    with_headers,
)
from herdbook.sandbox.api.routes import Request, answer
from herdbook.sandbox.refusals import Dropped, Malformed, Refusal
from herdbook.sandbox.request_bodies import Json, subject
from herdbook.sandbox.scripted_answers import ScriptedAnswer
from herdbook.sandbox.world import Seen, World

Message: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]


_OPENAI_KINDS: Final = {400: "invalid_request_error", 404: "not_found_error"}
_ANTHROPIC_KINDS: Final = _OPENAI_KINDS | {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def application(world: World) -> Application:
    """Make the application that shows a world."""

    async def serve(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _converse(world, scope, receive, send)

    return serve


def _request(scope: Message, raw: bytes) -> Request:
    headers = scope["headers"]
    assert isinstance(headers, Iterable)
    return Request(
        method=str(scope["method"]),
        path=str(scope["path"]),
        headers={
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in headers
        },
        raw=raw,
    )


async def _converse(world: World, scope: Message, receive: Receive, send: Send) -> None:
    raw = await _read(receive)
    if raw is None:
        return
    request = _request(scope, raw)
    if request.path.startswith("/sandbox/"):
        await _send(send, await control.answer(world, request.path, raw), head=False)
        return
    seen = Seen(
        at=world.clock.now(),
        method=request.method,
        path=request.path,
        model=subject(raw),
        agent=request.headers.get("user-agent", ""),
        authorization=request.headers.get("authorization", ""),
    )
    world.seen.append(seen)
    if world.down:
        seen.ended = "cut"
    else:
        watched = _watched(send, seen)
        seen.ended = await _compete(world, request, receive, watched)
    seen.until = world.clock.now()
    if seen.ended == "cut":
        await drop(scope)


def _watched(send: Send, seen: Seen) -> Send:
    """Send, and remember the status of what is sent."""

    async def sending(message: Message) -> None:
        status = message.get("status")
        if isinstance(status, int):
            seen.status = status
        await send(message)

    return sending


async def _compete(world: World, request: Request, receive: Receive, send: Send) -> str:
    """Answer until that is done, the client disconnects or the server dies."""
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
    scripted = world.answers.take(request.path)
    if scripted is not None:
        if scripted.delay_s:
            await pause(world.clock, scripted.delay_s)
        if not scripted.after_lines and not scripted.truthful:
            return await _send_scripted(send, scripted, started=False)
    before, after = world.delays(request.path)
    if before:
        await pause(world.clock, before)
    try:
        response = await answer(world, request)
    except Refusal as refusal:
        response = _refusal(request.path, refusal)
    response = with_headers(response, shared_with(request.headers))
    if isinstance(response, Stream):
        return await _stream(send, response, scripted)
    if after:
        await pause(world.clock, after)
    await _send(send, response, head=request.method == "HEAD")
    return "answered"


def _refusal(path: str, refusal: Refusal) -> Answer | Stream:
    """Refuse in the form of the API that was asked."""
    if not path.startswith("/v1/"):
        answer = refusal_answer(refusal.status, refusal.text, plain=refusal.plain)
        # The content type of a stream that has begun has no charset, and no length.
        return with_headers(answer, WITHOUT_LENGTH if refusal.plain else {})
    if path == "/v1/messages":
        kind = _ANTHROPIC_KINDS.get(refusal.status, "api_error")
        said: Json = {"type": kind, "message": refusal.text}
        error: Json = {
            "type": "error",
            "error": said,
            "request_id": f"req_{secrets.token_hex(12)}",
        }
    else:
        kind = _OPENAI_KINDS.get(refusal.status, "api_error")
        said = {"message": refusal.text, "type": kind, "param": None, "code": None}
        error = {"error": said}
    plain = not isinstance(refusal, Malformed)
    return json_answer(error, status=refusal.status, plain=plain)


async def _read(receive: Receive) -> bytes | None:
    """Read the whole body; None if the client disconnected before its end."""
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


async def _stream(send: Send, stream: Stream, scripted: ScriptedAnswer | None) -> str:
    async with aclosing(stream.lines) as lines:
        await _start(send, 200, {"content-type": stream.content_type, **stream.headers})
        sent = 0
        async for one in lines:
            if scripted is not None and sent == scripted.after_lines:
                return await _send_scripted(send, scripted, started=True)
            await _piece(send, stream.write(one))
            sent += 1
    await send({"type": "http.response.body", "body": b""})
    return "answered"


async def _send_scripted(send: Send, scripted: ScriptedAnswer, *, started: bool) -> str:
    """Send a scripted answer, up to where it hangs or is cut."""
    if not started:
        if scripted.hang and not scripted.body:
            await asyncio.Event().wait()
        await _start(send, scripted.status, dict(scripted.headers))
    await _piece(send, scripted.raw)
    while scripted.repeat:
        await _piece(send, scripted.raw)
        await asyncio.sleep(0)
    if scripted.hang:
        await asyncio.Event().wait()
    if scripted.cut:
        return "cut"
    await send({"type": "http.response.body", "body": b""})
    return "answered"


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items() if value]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _piece(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def drop(scope: Message) -> None:
    """Cut the connection without an answer.

    Raises:
        Dropped: Always. A server that provides no way to cut the connection has to do
            it when it catches this.
    """
    state = scope.get("state")
    cut = state.get("cut_connection") if isinstance(state, dict) else None
    if callable(cut):
        cut()
    raise Dropped
