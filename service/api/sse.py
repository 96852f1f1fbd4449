"""The event stream as server-sent events, with a timeout for readers.

The id of a message is the position of its event, so a browser that reconnects sends
its last position by itself. Progress messages have no id, because they are not part of
the log. A reader that accepts no data in time is disconnected without a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

import msgspec
from litestar import Response
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Send

from herdbook.core import RecordedEvent, RunningOperation
from herdbook.core.logging import Logger
from herdbook.service.api import schemas as answers
from herdbook.service.event_stream import EndOfStream, Heartbeat, Message
from herdbook.service.http.request import AnyRequest

RETRY_MS: Final = 2_000
"""Time after which a browser reconnects, in milliseconds."""

_encode = msgspec.json.Encoder().encode
_log = Logger("herdbook.stream")


def encode(message: Message) -> bytes:
    """Encode a message as a server-sent event."""
    match message:
        case RecordedEvent():
            data = _encode(answers.event(message))
            return b"id: %d\nevent: recorded\ndata: %b\n\n" % (message.position, data)
        case RunningOperation():
            data = _encode(answers.progressing(message))
            return b"event: progress\ndata: %b\n\n" % data
        case Heartbeat():
            return b": at %d\n\n" % message.position
        case EndOfStream():
            fields = (message.reason.value.encode(), _encode(message))
            return b": %b\n\nevent: goodbye\ndata: %b\n\n" % fields


class EventStream(Response[None]):
    """A response with an endless stream of messages."""

    def __init__(
        self, messages: AsyncGenerator[Message, None], *, send_within_s: float
    ) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(None, media_type="text/event-stream", headers=headers)
        self._messages = messages
        self._send_within_s = send_within_s

    def to_asgi_response(self, request: AnyRequest, **given: Any) -> ASGIResponse:  # type: ignore[override]  # passes all parameters on
        """Return the ASGI response that sends the messages."""
        abort = request.scope.get("state", {}).get("abort")
        return _Streaming(
            iterator=_Pieces(self._messages),
            headers=self.headers,
            media_type="text/event-stream",
            status_code=200,
            encoded_headers=given.get("encoded_headers"),
            is_head_response=bool(given.get("is_head_response")),
            send_within_s=self._send_within_s,
            abort=abort if callable(abort) else None,
        )


class _Pieces:
    """The encoded messages, after the time to wait before reconnecting."""

    def __init__(self, messages: AsyncGenerator[Message, None]) -> None:
        self._messages = messages

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._messages) as messages:
            yield b"retry: %d\n\n" % RETRY_MS
            async for message in messages:
                yield encode(message)


class _Streaming(ASGIStreamingResponse):
    """A streaming response with a timeout for each chunk."""

    __slots__ = ("_abort", "_send_within_s")

    def __init__(
        self,
        *,
        send_within_s: float,
        abort: Callable[[], None] | None,
        **given: Any,
    ) -> None:
        super().__init__(**given)
        self._send_within_s = send_within_s
        self._abort = abort

    async def _stream(self, send: Send) -> None:
        pieces = self.iterator.__aiter__()
        async with aclosing(pieces):  # type: ignore[type-var]  # a generator
            try:
                async for piece in pieces:
                    await self._send(send, piece, more=True)
                await self._send(send, b"", more=False)
            except TimeoutError:
                _log.warning("slow_reader_disconnected", silent_s=self._send_within_s)
                if self._abort is not None:
                    self._abort()

    async def _send(self, send: Send, piece: str | bytes, *, more: bool) -> None:
        body = piece if isinstance(piece, bytes) else piece.encode()
        async with asyncio.timeout(self._send_within_s):
            await send({"type": "http.response.body", "body": body, "more_body": more})
