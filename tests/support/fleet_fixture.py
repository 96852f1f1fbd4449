"""Several sandbox servers on one clock that advances by itself, and their fleet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
from support.auto_clock import AutoClock, advancing
from support.manager_fixture import SandboxServer

from herdbook import sandbox
from herdbook.core import Fleet, ManagerSettings
from herdbook.core.log.location import MEMORY


class Sandboxes:
    """Sandbox servers by the name of their node."""

    def __init__(self, servers: Mapping[str, SandboxServer]) -> None:
        self._servers = dict(servers)
        self.clock = next(iter(self._servers.values())).clock

    def __getitem__(self, node: str) -> SandboxServer:
        """Return the server of a node."""
        return self._servers[node]

    @property
    def names(self) -> list[str]:
        """The names of the nodes."""
        return list(self._servers)

    def open_fleet(
        self,
        log: str | Path = MEMORY,
        *,
        node: str | None = None,
        settings: ManagerSettings | None = None,
        refresh: bool = True,
    ) -> AbstractAsyncContextManager[Fleet]:
        return Fleet.open(
            log,
            ollama=self["local"].url,
            node=node,
            settings=settings,
            clock=self.clock,
            refresh=refresh,
        )

    async def add_to(self, fleet: Fleet) -> None:
        """Add all servers but that of ``local``."""
        for name in self.names:
            if name != "local":
                await fleet.add(name, self[name].url)


@asynccontextmanager
async def serve_sandboxes(**models: str) -> AsyncIterator[Sandboxes]:
    """Serve a world for each node.

    Args:
        **models: The models of each node, as a world has them.
    """
    time = AutoClock()
    async with advancing(time), AsyncExitStack() as stack:
        servers = {}
        for name, store in models.items():
            world = sandbox.World(models=store, clock=time)
            url = await stack.enter_async_context(sandbox.serve(world))
            http = httpx.AsyncClient(base_url=url, timeout=None, trust_env=False)
            await stack.enter_async_context(http)
            servers[name] = SandboxServer(world, url, time, http)
        yield Sandboxes(servers)


@asynccontextmanager
async def serve_fleet(
    *, settings: ManagerSettings | None = None, **models: str
) -> AsyncIterator[tuple[Sandboxes, Fleet]]:
    """Serve a world for each node, with a fleet that has its log in memory."""
    async with (
        serve_sandboxes(**models) as servers,
        servers.open_fleet(settings=settings) as fleet,
    ):
        await servers.add_to(fleet)
        yield servers, fleet
