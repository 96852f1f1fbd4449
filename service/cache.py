"""Answers that are kept, encoded, for as long as the log says the same.

What the API tells of models follows from the log alone, so at one position it is the
same bytes. Many ask at short intervals whether anything is new: they get what was
made for the first of them, or only that nothing is (``If-None-Match``).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from litestar import Response

from herdbook.core import ReadModel
from herdbook.service.http.request import AnyRequest

MOST: Final = 32
"""Answers that are kept."""

_encode = msgspec.json.Encoder().encode


class ResponseCache:
    """The answers of one service."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, bytes], tuple[str, bytes]] = OrderedDict()
        self._building = asyncio.Lock()

    async def answer(
        self,
        request: AnyRequest,
        read_model: ReadModel,
        build: Callable[[ReadModel], Awaitable[object]],
    ) -> Response[Any]:
        """Return the answer to a request, which follows from a moment of the log.

        Args:
            request: The request; its path and query say what is asked.
            read_model: What the answer is made of.
            build: Makes it of that read_model, in slices.
        """
        tag = _tag(read_model)
        if tag in request.headers.get("if-none-match", ""):
            return Response(b"", status_code=304, headers=_headers(tag))
        key = (request.url.path, request.scope["query_string"])
        kept_tag, body = self._kept.get(key, ("", b""))
        if kept_tag != tag:
            # One at a time: whoever asks for the same meanwhile gets what is kept.
            async with self._building:
                tag, body = await self._built(key, read_model.fixed(), build)
        if key in self._kept:
            self._kept.move_to_end(key)
        return Response(body, media_type="application/json", headers=_headers(tag))

    async def _built(
        self,
        key: tuple[str, bytes],
        read_model: ReadModel,
        build: Callable[[ReadModel], Awaitable[object]],
    ) -> tuple[str, bytes]:
        """Return the body and its entity tag, from the cache or built now."""
        tag = _tag(read_model)
        kept_tag, body = self._kept.get(key, ("", b""))
        if kept_tag == tag:
            return tag, body
        body = _encode(await build(read_model))
        self._kept[key] = (tag, body)
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return tag, body


def _tag(read_model: ReadModel) -> str:
    """Return the entity tag of what is answered at a read_model."""
    asked = f"@{read_model.asked.timestamp()}" if read_model.asked else ""
    overdue = read_model.overdue_since
    stale = f"~{overdue.timestamp()}" if overdue else ""
    if read_model.held_back:
        newest = max(read_model.held_back.values())
        stale += f"~{len(read_model.held_back)}.{newest.timestamp()}"
    return f'W/"{read_model.position}{asked}{stale}"'


def _headers(tag: str) -> dict[str, str]:
    return {"etag": tag, "cache-control": "no-cache"}
