"""A sandbox server and its managers on one clock that advances by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from support.auto_clock import AutoClock, ManagerClock, advancing

from herdbook import sandbox
from herdbook.core import (
    Fleet,
    ManagerSettings,
    ModelManager,
    ModelRegistry,
    PullProgress,
    RecordedEvent,
)
from herdbook.core.log.location import MEMORY
from herdbook.events.facts import Fact
from herdbook.sandbox.models.names import Name


class SandboxServer:
    """A sandbox server, and its clients.

    Attributes:
        world: The simulated world.
        url: Address of the server.
        time: The clock.
        clock: The same clock, in the form that a manager takes.
    """

    def __init__(
        self, world: sandbox.World, url: str, time: AutoClock, http: httpx.AsyncClient
    ) -> None:
        self.world = world
        self.url = url
        self.time = time
        self.clock = ManagerClock(time)
        self._http = http

    def open_manager(
        self,
        log: str | Path = MEMORY,
        *,
        settings: ManagerSettings | None = None,
        registry: ModelRegistry | None = None,
        actor: str = "library:python",
        refresh: bool = True,
    ) -> AbstractAsyncContextManager[ModelManager]:
        """Open a manager of this server."""
        return ModelManager.open(
            log,
            ollama=self.url,
            actor=actor,
            registry=registry,
            settings=settings,
            clock=self.clock,
            refresh=refresh,
        )

    def open_fleet(
        self, log: str | Path = MEMORY, *, refresh: bool = True
    ) -> AbstractAsyncContextManager[Fleet]:
        """Open the nodes of a log, of which this server is the first."""
        return Fleet.open(log, ollama=self.url, clock=self.clock, refresh=refresh)

    async def request(self, method: str, path: str, **body: object) -> httpx.Response:
        """Send a request as another program would, without Herdbook."""
        return await self._http.request(method, path, json=body or None)

    async def load(self, name: str, **body: object) -> None:
        """Load a model as another program would."""
        answer = await self.request("POST", "/api/generate", model=name, **body)
        assert answer.status_code == 200, answer.text

    async def unload(self, name: str) -> None:
        """Unload a model as another program would."""
        await self.load(name, keep_alive=0)

    async def pull(self, name: str) -> None:
        """Pull a model as another program would."""
        answer = await self.request("POST", "/api/pull", model=name, stream=False)
        assert answer.json() == {"status": "success"}, answer.text

    async def copy(self, source: str, destination: str) -> None:
        """Give a model a second name as another program would."""
        await self.request("POST", "/api/copy", source=source, destination=destination)

    async def delete(self, name: str) -> None:
        """Delete a model as another program would."""
        await self.request("DELETE", "/api/delete", model=name)

    async def listed_runners(self) -> list[dict[str, Any]]:
        """Return the models in memory, as the server lists them."""
        answer = await self.request("GET", "/api/ps")
        runners: list[dict[str, Any]] = answer.json()["models"]
        return runners

    def apply(self, **step: object) -> None:
        """Apply a step to the server; see the sandbox's faults."""
        sandbox.apply_step(self.world, step)

    def request_count(self, path: str) -> int:
        """Return the number of requests for a path."""
        return sum(seen.path == path for seen in self.world.seen)

    def has_model(self, name: str) -> bool:
        parsed = Name.parse(name)
        return parsed is not None and self.world.store.find(parsed) is not None

    def partial_bytes(self) -> int:
        """Return the saved bytes of incomplete blobs."""
        return sum(sum(part.saved) for part in self.world.store.partials.values())

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds, while time passes."""
        while not holds():
            await self.clock.sleep(0.05)


@asynccontextmanager
async def serve_sandbox(
    models: str = "herd",
    *,
    settings: sandbox.Settings | None = None,
    profile: sandbox.Profile = sandbox.CURRENT,
) -> AsyncIterator[SandboxServer]:
    """Serve a world over HTTP, on a clock that advances by itself."""
    time = AutoClock()
    world = sandbox.World(models=models, clock=time, settings=settings, profile=profile)
    async with (
        advancing(time),
        sandbox.serve(world) as url,
        httpx.AsyncClient(base_url=url, timeout=None, trust_env=False) as http,
    ):
        yield SandboxServer(world, url, time, http)


@asynccontextmanager
async def serve_two_managers(
    log: Path, models: str = "herd", *, settings: ManagerSettings | None = None
) -> AsyncIterator[tuple[SandboxServer, ModelManager, ModelManager]]:
    """Serve a world with two managers on one log, as two processes have it."""
    async with (
        serve_sandbox(models) as server,
        server.open_manager(log, settings=settings, actor="library:one") as one,
        server.open_manager(log, settings=settings, actor="library:two") as two,
    ):
        yield server, one, two


@asynccontextmanager
async def serve_manager(
    models: str = "herd",
    *,
    settings: ManagerSettings | None = None,
    sandbox_settings: sandbox.Settings | None = None,
) -> AsyncIterator[tuple[SandboxServer, ModelManager]]:
    """Serve a world with one manager, which has its log in memory."""
    async with (
        serve_sandbox(models, settings=sandbox_settings) as server,
        server.open_manager(settings=settings) as manager,
    ):
        yield server, manager


async def pull_to_end(manager: ModelManager, name: str) -> list[PullProgress]:
    """Pull a model to its end; return all progress."""
    return [progress async for progress in manager.pull(name)]


async def start_pull(manager: ModelManager, name: str, completed: int = 1) -> None:
    """Follow a pull until ``completed`` bytes are there, then leave it running."""
    async with aclosing(manager.pull(name)) as progress:
        async for one in progress:
            if one.completed_bytes >= completed:
                return


async def error_of(task: asyncio.Task[Any]) -> BaseException | None:
    """Wait for the end of a task; return its exception."""
    await asyncio.wait([task])
    return task.exception()


async def recorded_events(
    manager: ModelManager, name: str | None = None, *, after: int = 0
) -> list[RecordedEvent]:
    """Return the events after a position, of one model or of all."""
    end = (await manager.now()).position
    found: list[RecordedEvent] = []
    if end <= after:
        return found
    async with aclosing(manager.events(after=after)) as events:
        async for event in events:
            if name is None or event.stream.endswith(f"/{name}"):
                found.append(event)
            if event.position >= end:
                break
    return found


async def event_types(manager: ModelManager, name: str, *, after: int = 0) -> list[str]:
    """Return the types of a model's events."""
    return [event.type for event in await recorded_events(manager, name, after=after)]


async def causes_of(manager: ModelManager, name: str, kind: str) -> list[str]:
    """Return the causes of a model's events of a type."""
    return [e.cause for e in await recorded_events(manager, name) if e.type == kind]


async def last_fact(manager: ModelManager, kind: type[Fact]) -> Fact:
    """Return the newest fact of a kind."""
    found = [
        event.data
        for event in await recorded_events(manager)
        if type(event.data) is kind
    ]
    assert found, f"no {kind.__name__} was recorded"
    return found[-1]
