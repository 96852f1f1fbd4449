"""What the API document says of the answers that go wrong."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from litestar.openapi import ResponseSpec

from herdbook.service.problems import MEDIA_TYPE, Problem

_ALWAYS: Final = (400, 401, 403, 404, 405, 408, 413, 421, 429, 500, 503, 507)
_CHANGES: Final = (409, 415, 502, 504)


def problems(*more: int) -> Mapping[int, ResponseSpec]:
    """Return the answers that go wrong: those of every path, and some more."""
    return {
        status: ResponseSpec(
            data_container=Problem,
            generate_examples=False,
            description=HTTPStatus(status).phrase,
            media_type=MEDIA_TYPE,
        )
        for status in sorted({*_ALWAYS, *more})
    }


READS: Final = problems()
"""What a path that only reads may answer when it goes wrong."""

CHANGES: Final = problems(*_CHANGES)
"""What a path that changes something may."""

CACHED: Final = {
    **READS,
    304: ResponseSpec(
        None, generate_examples=False, description="As If-None-Match has it."
    ),
}
"""What a path may answer whose answer stays the same while the log does."""
