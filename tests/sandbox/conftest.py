"""Clients of a sandbox server without a socket, so that nothing waits for real time."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from herdbook.sandbox import World, application, let_others_run
from herdbook.sandbox.refusals import Dropped

if TYPE_CHECKING:
    from collections.abc import Callable


class Exchange:
    """One request, what was received of its answer so far, and how it ended."""

    def __init__(self, world: World, request: dict[str, Any]) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.raw = b""
        self.whole = False
        self.cut = False
        self._world = world
        self._closed = asyncio.Event()
        body = request.get("body", "")
        if "json" in request:
            body = json.dumps(request["json"])
        self._body: bytes | None = body if isinstance(body, bytes) else body.encode()
        self._scope = _scope(request)
        self.task = asyncio.ensure_future(self._run())

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw.splitlines()]

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    async def close(self) -> None:
        self._closed.set()
        await let_others_run()

    async def _run(self) -> None:
        try:
            await application(self._world)(self._scope, self._receive, self._send)
        except Dropped:
            self.cut = True

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._closed.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            pairs = message["headers"]
            self.headers = {name.decode(): value.decode() for name, value in pairs}
        else:
            self.raw += message["body"]
            self.whole = not message.get("more_body")


def _scope(request: dict[str, Any]) -> dict[str, Any]:
    headers = {"Host": "127.0.0.1:11434"} | request.get("headers", {})
    return {
        "type": "http",
        "method": request.get("method", "GET"),
        "path": request["path"],
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in headers.items()
        ],
    }


class Client:
    """A client of one world, with a short method for each kind of request."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def begin(
        self, method: str, path: str, value: Any = None, **others: Any
    ) -> Exchange:
        """Send a request, and let the server do what takes no time."""
        asked = {"method": method, "path": path, **others}
        if value is not None:
            asked["json"] = value
        exchange = Exchange(self.world, asked)
        await let_others_run(50)
        return exchange

    async def ask(
        self, method: str, path: str, value: Any = None, **others: Any
    ) -> Exchange:
        """Send a request, and move the clock until the answer is complete."""
        exchange = await self.begin(method, path, value, **others)
        for _ in range(100_000):
            if exchange.task.done():
                await exchange.task
                return exchange
            self.world.clock.advance(0.06)
            await let_others_run()
        pytest.fail(f"no answer to {method} {path}")

    async def get(self, path: str) -> Any:
        return (await self.ask("GET", path)).json

    async def post(self, path: str, **body: Any) -> Exchange:
        return await self.ask("POST", path, body)

    async def load(self, model: str, **body: Any) -> Exchange:
        return await self.post("/api/generate", model=model, **body)

    async def loaded(self) -> list[str]:
        return [one["name"] for one in (await self.get("/api/ps"))["models"]]

    async def names(self) -> list[str]:
        listed = (await self.get("/api/tags"))["models"]
        return sorted(one["name"] for one in listed)

    async def advance(self, seconds: float) -> None:
        self.world.clock.advance(seconds)
        await let_others_run()


@pytest.fixture(scope="session")
def converse() -> Callable[[World, dict[str, Any]], Exchange]:
    return Exchange


@pytest.fixture
def client() -> Client:
    """A client of a world that holds the models of the recordings."""
    return Client(World(models="herd"))


@pytest.fixture
def client_of() -> Callable[..., Client]:
    """Make a client of a world that is described by keywords."""
    return lambda **options: Client(World(**options))
