"""Answers that are kept, encoded, for as long as the log says the same.

What the API tells of models follows from the log alone, so at one position it is the
same bytes. Many ask at short intervals whether anything is new: they get what was
made for the first of them, or only that nothing is (``If-None-Match``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec
from litestar import Response

from herdbook.core import Moment
from herdbook.service.requests import AnyRequest

MOST: Final = 32
"""Answers that are kept."""

_encode = msgspec.json.Encoder().encode


class KeptAnswers:
    """The answers of one service."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, bytes], tuple[str, bytes]] = OrderedDict()

    def answer(
        self, request: AnyRequest, moment: Moment, build: Callable[[], object]
    ) -> Response[Any]:
        """Return the answer to a request, which follows from a moment of the log.

        Args:
            request: The request; its path and query say what is asked.
            moment: What the answer is made of.
            build: Makes it.
        """
        asked = f"@{moment.asked.timestamp()}" if moment.asked else ""
        overdue = moment.overdue_since
        stale = f"~{overdue.timestamp()}" if overdue else ""
        if moment.held_back:
            newest = max(moment.held_back.values())
            stale += f"~{len(moment.held_back)}.{newest.timestamp()}"
        tag = f'W/"{moment.position}{asked}{stale}"'
        headers = {"etag": tag, "cache-control": "no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(b"", status_code=304, headers=headers)
        key = (request.url.path, request.scope["query_string"])
        kept_tag, body = self._kept.get(key, ("", b""))
        if kept_tag != tag:
            body = _encode(build())
            self._kept[key] = (tag, body)
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return Response(body, media_type="application/json", headers=headers)
