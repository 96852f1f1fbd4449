"""A sandbox, a manager of it and a gateway that records in the manager's log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from herdbook.core import (
    Fleet,
    ManagerSettings,
    ModelManager,
    ModelState,
    RecordedEvent,
)
from herdbook.gateway.access.checks import Caller
from herdbook.gateway.access.limits import UNLIMITED, Limits
from herdbook.gateway.observer import NO_OBSERVER, GatewayObserver
from herdbook.gateway.run import serve_gateway
from herdbook.gateway.settings import GatewaySettings
from herdbook.sandbox import RealClock, Settings, World, serve


class RecordingGateway:
    """A sandbox, a manager of it and a gateway in front of it."""

    def __init__(self, world: World, manager: ModelManager, address: str) -> None:
        self.world = world
        self.manager = manager
        self.address = address
        self.http = httpx.AsyncClient(base_url=address, timeout=20)

    async def events(self, *kinds: type) -> list[RecordedEvent]:
        """Return the events of some types."""
        names = {kind.__name__ for kind in kinds}
        store = self.manager._storage.store
        return [one async for one in store.read_all() if one.type in names]

    async def wait_for(self, kind: type, count: int = 1) -> list[RecordedEvent]:
        """Wait until there are as many events of a type."""
        async with asyncio.timeout(10):
            while len(found := await self.events(kind)) < count:
                await asyncio.sleep(0.02)
        return found

    async def wait_for_state(self, name: str, state: ModelState) -> None:
        """Wait until a model is in a state."""
        async with asyncio.timeout(10):
            while (await self.manager.get_status(name)).state is not state:
                await asyncio.sleep(0.02)


LIMITS: dict[str, Limits] = {}
"""The limits of tokens by name, for tests that set some."""


def authenticate(secret: str) -> Caller | None:
    name = secret.removeprefix("key-")
    limits = LIMITS.get(name, UNLIMITED)
    return Caller(name=name, actor=f"api:{name}", role="admin", limits=limits)


@asynccontextmanager
async def recording_gateway(
    *,
    tokens: bool = False,
    strict: bool = False,
    plain: bool = False,
    roles: bool = False,
    follow: bool = False,
    observer: GatewayObserver = NO_OBSERVER,
    log: Path | str = ":memory:",
) -> AsyncIterator[RecordingGateway]:
    world = World(
        models="some", clock=RealClock(speed=20), settings=Settings(token_s=0.02)
    )
    async with (
        serve(world) as url,
        Fleet.open(
            log, ollama=url, settings=ManagerSettings(follow_node=follow)
        ) as fleet,
        serve_gateway(
            fleet,
            GatewaySettings(port=0, strict=strict, plain=plain, roles=roles),
            authenticate=authenticate if tokens else None,
            failed=lambda: pytest.fail("the gateway stopped"),
            observer=observer,
        ) as address,
    ):
        there = RecordingGateway(world, fleet.home, address)
        async with there.http:
            yield there


@asynccontextmanager
async def second_gateway(
    first: RecordingGateway, log: Path, *, tokens: bool = False
) -> AsyncIterator[RecordingGateway]:
    """Serve another gateway on the log of a place, as another instance does."""
    url = first.manager._client.base_url
    async with (
        Fleet.open(
            log, ollama=url, settings=ManagerSettings(follow_node=False)
        ) as fleet,
        serve_gateway(
            fleet,
            GatewaySettings(port=0),
            authenticate=authenticate if tokens else None,
            failed=lambda: pytest.fail("the gateway stopped"),
        ) as address,
    ):
        there = RecordingGateway(first.world, fleet.home, address)
        async with there.http:
            yield there
