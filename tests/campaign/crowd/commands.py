"""The commands of the clients, through Herdbook and directly to the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import httpx

if TYPE_CHECKING:
    from campaign.crowd.crowd import Crowd

ReportedModels = dict[str, tuple[str, bool]]
"""The present models by name: digest, and whether each is in memory."""


class Caller(Protocol):
    """Access to Herdbook: a manager in this process, or a service."""

    async def load(self, name: str, context: int | None) -> None:
        """Load a model."""

    async def unload(self, name: str) -> None:
        """Unload a model."""

    async def delete(self, name: str) -> None:
        """Delete a model."""

    async def pull(self, name: str) -> None:
        """Pull a model; cancelling the caller cancels the pull."""

    async def use(self, name: str, tag: str) -> None:
        """Record a use, with a tag as its purpose."""

    async def configure(self, name: str, seed: int, tag: str) -> None:
        """Change a setting, with a tag as its note."""

    async def refresh(self) -> None:
        """Refresh."""

    async def cancel(self, name: str) -> None:
        """Cancel the running operation of a model."""

    async def read(self, name: str) -> None:
        """Read something."""

    async def end_all(self) -> None:
        """Cancel all running operations."""

    async def models(self) -> ReportedModels:
        """Return the models as Herdbook reports them."""

    async def busy(self) -> list[str]:
        """Return the models with a running operation, as Herdbook reports them."""


Command = Callable[["Crowd", Caller, str], Awaitable[None]]


async def load(crowd: Crowd, caller: Caller, name: str) -> None:
    await caller.load(name, crowd.chance.choice([None, 512, 1024]))


async def load_for_a_while(crowd: Crowd, caller: Caller, name: str) -> None:
    with suppress(TimeoutError):
        async with crowd.server.clock.timeout(crowd.chance.uniform(0.0, 2.0)):
            await load(crowd, caller, name)


async def unload(_crowd: Crowd, caller: Caller, name: str) -> None:
    await caller.unload(name)


async def delete(_crowd: Crowd, caller: Caller, name: str) -> None:
    await caller.delete(name)


async def pull(_crowd: Crowd, caller: Caller, name: str) -> None:
    await caller.pull(name)


async def pull_for_a_while(crowd: Crowd, caller: Caller, name: str) -> None:
    with suppress(TimeoutError):
        async with crowd.server.clock.timeout(crowd.chance.uniform(0.0, 2.0)):
            await caller.pull(name)


async def use(crowd: Crowd, caller: Caller, name: str) -> None:
    tag = crowd.tag()
    await caller.use(name, tag)
    crowd.acknowledged.add(tag)


async def configure(crowd: Crowd, caller: Caller, name: str) -> None:
    tag = crowd.tag()
    await caller.configure(name, int(tag.removeprefix("tag-")), tag)
    crowd.acknowledged.add(tag)


async def refresh(_crowd: Crowd, caller: Caller, _name: str) -> None:
    await caller.refresh()


async def cancel(_crowd: Crowd, caller: Caller, name: str) -> None:
    await caller.cancel(name)


async def read(_crowd: Crowd, caller: Caller, name: str) -> None:
    await caller.read(name)


async def others_load(crowd: Crowd, _caller: Caller, name: str) -> None:
    await _ask(crowd, "POST", "/api/generate", model=name)


async def others_unload(crowd: Crowd, _caller: Caller, name: str) -> None:
    await _ask(crowd, "POST", "/api/generate", model=name, keep_alive=0)


async def others_delete(crowd: Crowd, _caller: Caller, name: str) -> None:
    await _ask(crowd, "DELETE", "/api/delete", model=name)


async def others_pull(crowd: Crowd, _caller: Caller, name: str) -> None:
    await _ask(crowd, "POST", "/api/pull", model=name, stream=False)


async def _ask(crowd: Crowd, method: str, path: str, **body: object) -> None:
    with suppress(httpx.HTTPError):
        await crowd.server.request(method, path, **body)


BY_US: tuple[Command, ...] = (
    *(load, load, load_for_a_while, unload, unload, delete),
    *(pull, pull, pull_for_a_while, use, use, configure),
    *(refresh, refresh, cancel, read),
)
BY_OTHERS: tuple[Command, ...] = (
    *(others_load, others_unload, others_delete, others_pull),
)
