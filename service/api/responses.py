"""Error responses in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from litestar.openapi import ResponseSpec

from herdbook.service.problems import MEDIA_TYPE, Problem

# 409: there are several nodes, and the request names none.
_ALWAYS: Final = (400, 401, 403, 404, 405, 408, 409, 413, 421, 429, 500, 503, 507)
_CHANGES: Final = (415, 502, 504)


def problems(*more: int) -> Mapping[int, ResponseSpec]:
    """Return the error responses of every path, and additional ones."""
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
"""The error responses of paths that only read."""

CHANGES: Final = problems(*_CHANGES)
"""The error responses of paths that change something."""

CACHED: Final = {
    **READS,
    304: ResponseSpec(
        None,
        generate_examples=False,
        description="Not changed since the ETag in If-None-Match.",
    ),
}
"""The additional responses of paths with a cached response."""
