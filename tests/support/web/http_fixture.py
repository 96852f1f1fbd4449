"""A small application behind the middleware, in a thread or as a program."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
import msgspec
from litestar import Litestar, MediaType, Request, Response, get, post, route
from litestar.response import Stream

from herdbook.core import HerdbookError
from herdbook.service import problems
from herdbook.service.auth.authentication import Authenticator
from herdbook.service.auth.tokens import Role, Token, sha256_of, take_from_environment
from herdbook.service.dashboard.pages import login
from herdbook.service.http.asgi import App, Receive, Scope, Send
from herdbook.service.logging import configure
from herdbook.service.middleware import Guard, principal_of, require
from herdbook.service.server import serve
from herdbook.service.settings import ServiceSettings

READER, OPERATOR, ADMIN = (f"hb_{letter * 43}" for letter in "roa")
"""The tokens of three people: ruth may read, olga may operate, anna may do everything.

They are the same in every process, because test ids contain them.
"""

TOKENS = (
    Token(name="ruth", role=Role.READ, sha256=sha256_of(READER)),
    Token(name="olga", role=Role.OPERATE, sha256=sha256_of(OPERATOR)),
    Token(name="anna", role=Role.ADMIN, sha256=sha256_of(ADMIN)),
)


@get("/v1/who")
async def who(request: Request[Any, Any, Any]) -> dict[str, str]:
    principal = principal_of(request)
    return {"actor": principal.actor, "role": principal.role}


@get("/v1/admin")
async def admin(request: Request[Any, Any, Any]) -> str:
    return require(request, Role.ADMIN).name


@route("/v1/body", http_method=["POST", "PUT", "DELETE", "PATCH"], status_code=200)
async def body(request: Request[Any, Any, Any]) -> dict[str, int]:
    return {"bytes": len(await request.body())}


@get("/v1/loose", sync_to_thread=False)
def loose() -> Response[str]:
    """Answer as an application would that opens itself to other sites."""
    return Response(
        "loose",
        headers={
            "access-control-allow-origin": "*",
            "content-security-policy": "default-src *",
            "x-frame-options": "ALLOWALL",
            "cache-control": "max-age=60",
        },
    )


@get("/v1/broken")
async def broken() -> None:
    raise RuntimeError("unexpected")


@get("/v1/long")
async def long() -> str:
    """Answer after a while that no stop waits for."""
    await asyncio.sleep(60)
    return "at last"


@get("/v1/soon")
async def soon() -> str:
    await asyncio.sleep(0.3)
    return "soon"


@get("/v1/stream")
async def stream(request: Request[Any, Any, Any]) -> Stream:
    """Send endlessly until the service stops."""
    stopping = request.scope["state"]["stopping"]

    async def pieces() -> AsyncIterator[bytes]:
        while not stopping.is_set():
            yield b"." * 65536
            await asyncio.sleep(0)

    return Stream(pieces(), media_type="text/event-stream")


@post("/v1/cut")
async def cut(request: Request[Any, Any, Any]) -> None:
    request.scope["state"]["abort"]()


@get("/v1/environment", sync_to_thread=False)
def environment() -> list[str]:
    return sorted(os.environ)


@get(["/", "/models/{name:path}"], media_type=MediaType.HTML)
async def page() -> str:
    return "<!doctype html><title>A page</title>"


@get(["/healthz", "/readyz", "/static/style.css", "/metrics"])
async def plain(request: Request[Any, Any, Any]) -> str:
    return "fine"


def _problem(_: Request[Any, Any, Any], error: HerdbookError) -> Response[bytes]:
    status, headers, content = problems.answer(error)
    return Response(content, status_code=status, headers=headers)


def application() -> App:
    handlers: list[Any] = [who, admin, body, loose, broken, long, soon, stream, cut]
    return Litestar(
        [*handlers, environment, page, plain, *login.HANDLERS],
        exception_handlers={HerdbookError: _problem, RuntimeError: _raise},
        logging_config=None,
        openapi_config=None,
    )


def _raise(_: Request[Any, Any, Any], error: RuntimeError) -> Response[Any]:
    raise error


class GuardedServer(NamedTuple):
    """The address of the application, and who authenticates its requests."""

    address: str
    port: int
    authenticator: Authenticator

    def client(self, token: str | None = None, **given: Any) -> httpx.AsyncClient:
        """Return a client that sends a token, if given."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        headers |= given.pop("headers", {})
        return httpx.AsyncClient(base_url=self.address, headers=headers, **given)

    async def raw(self, *parts: bytes | float, source: str = "127.0.0.1") -> bytes:
        """Send bytes unchanged, pausing for the numbers of seconds among them.

        Returns:
            Everything that was received until the connection was closed.
        """
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(source, 0)
        )
        received = asyncio.ensure_future(_received(reader))
        try:
            for part in parts:
                if isinstance(part, bytes):
                    writer.write(part)
                    await writer.drain()
                else:
                    await asyncio.sleep(part)
        except ConnectionError:
            pass  # refused; the answer is what counts
        try:
            return await received
        finally:
            writer.transport.abort()

    async def ask(self, head: str, source: str = "127.0.0.1") -> bytes:
        """Send a request without a body, with newlines between its lines."""
        text = head.replace("\n", "\r\n") + "\r\nConnection: close\r\n\r\n"
        return await self.raw(text.encode("latin-1"), source=source)


async def _received(reader: asyncio.StreamReader) -> bytes:
    received = b""
    try:
        while piece := await reader.read(65536):
            received += piece
    except ConnectionError:
        pass
    return received


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def _without_lifespan(app: App) -> App:
    """Return an application without the lifespan protocol of ASGI."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)

    return call


@asynccontextmanager
async def serve_guarded(
    *, authenticator: Authenticator | None = None, app: App | None = None, **given: Any
) -> AsyncIterator[GuardedServer]:
    """Serve the application while the block runs."""
    given = {"port": 0, "tokens": TOKENS, **given}
    settings = ServiceSettings(**given)
    guard = Guard(
        _without_lifespan(app) if app else application(),
        settings,
        authenticator=authenticator,
    )
    async with serve(guard, settings) as address:
        yield GuardedServer(
            address, int(address.rpartition(":")[2]), guard.authenticator
        )


async def _main() -> None:
    """Serve with the tokens of the environment until the end of standard input."""
    configure("json")
    tokens = take_from_environment(os.environ)
    given = msgspec.json.decode(sys.argv[1]) if len(sys.argv) > 1 else {}
    async with serve_guarded(tokens=tokens, **given) as place:
        print(place.address, flush=True)  # noqa: T201 - tests read it
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main())
