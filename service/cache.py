"""A cache of encoded responses, valid until the log changes.

Responses about models depend on the log only, so they are the same bytes at the same
position. Clients that poll get the cached body, or 304 if they send ``If-None-Match``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
from litestar import Response

from herdbook.core import ReadModel
from herdbook.service.http.request import AnyRequest

MAX_RESPONSES: Final = 32
"""Maximum number of cached responses."""

MAX_BYTES: Final = 64 << 20
"""Maximum size of all cached responses, bytes; a larger one is built each time."""

_encode = msgspec.json.Encoder().encode


class ResponseCache:
    """The cached responses of one service."""

    def __init__(self) -> None:
        self._cached: OrderedDict[tuple[str, bytes], tuple[str, bytes]] = OrderedDict()
        self._building = asyncio.Lock()

    async def answer(
        self,
        request: AnyRequest,
        read_models: Sequence[ReadModel],
        build: Callable[[Sequence[ReadModel]], Awaitable[object]],
    ) -> Response[Any]:
        """Return the response to a request.

        Args:
            request: The request; path and query are the key of the cache.
            read_models: The state of each node that the response shows.
            build: Builds the content from that state, in time slices.
        """
        tag = _tag(read_models)
        if tag in request.headers.get("if-none-match", ""):
            return Response(b"", status_code=304, headers=_headers(tag))
        key = (request.url.path, request.scope["query_string"])
        cached_tag, body = self._cached.get(key, ("", b""))
        if cached_tag != tag:
            # One at a time, so that concurrent requests share the result.
            async with self._building:
                tag, body = await self._built(
                    key, ReadModel.fixed_together(read_models), build
                )
        if key in self._cached:
            self._cached.move_to_end(key)
        return Response(body, media_type="application/json", headers=_headers(tag))

    async def _built(
        self,
        key: tuple[str, bytes],
        read_models: Sequence[ReadModel],
        build: Callable[[Sequence[ReadModel]], Awaitable[object]],
    ) -> tuple[str, bytes]:
        """Return the body and its entity tag, from the cache or built now."""
        tag = _tag(read_models)
        cached_tag, body = self._cached.get(key, ("", b""))
        if cached_tag == tag:
            return tag, body
        body = _encode(await build(read_models))
        self._cached[key] = (tag, body)
        size = sum(len(each) for _, each in self._cached.values())
        while self._cached and (len(self._cached) > MAX_RESPONSES or size > MAX_BYTES):
            _, (_, dropped) = self._cached.popitem(last=False)
            size -= len(dropped)
        return tag, body


def _tag(read_models: Sequence[ReadModel]) -> str:
    """Return the entity tag of responses that show a state."""
    first = read_models[0]
    asked = f"@{first.asked.timestamp()}" if first.asked else ""
    stale = ".".join(map(_stale, read_models)).strip(".")
    return f'W/"{first.position}{asked}{stale}"'


def _stale(read_model: ReadModel) -> str:
    """Return what changes without an event: since when the state may be outdated."""
    overdue = read_model.overdue_since
    stale = f"~{overdue.timestamp()}" if overdue else ""
    if read_model.held_back:
        newest = max(read_model.held_back.values())
        stale += f"~{len(read_model.held_back)}.{newest.timestamp()}"
    return f"{stale}/{read_model.node}" if stale else ""


def _headers(tag: str) -> dict[str, str]:
    return {"etag": tag, "cache-control": "no-cache"}
