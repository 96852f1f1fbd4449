"""The floor of an HTTP answer: a route of the framework that returns fixed bytes.

``python -m benchmarks.bare FILE`` serves the content of a file, at the port that it
prints, with the same framework and server as the service.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from litestar import Litestar, Response, get

from herdbook.service.http.request import AnyRequest
from herdbook.service.server import serve
from herdbook.service.settings import ServiceSettings


@get("/bare")
async def bare(request: AnyRequest) -> Response[bytes]:
    """Return the bytes."""
    return Response(request.app.state.bytes, media_type="application/json")


async def _serve(fixed: bytes) -> None:
    app = Litestar([bare], logging_config=None, openapi_config=None)
    app.state.bytes = fixed
    async with serve(app, ServiceSettings(port=0)) as address:
        print(address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]).read_bytes()))
