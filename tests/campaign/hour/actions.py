"""The actions of an hour: of Herdbook's callers, of other clients, of the server.

Each action is in the list that a seed shuffles (``hour.py``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from random import Random
from typing import Protocol

import httpx
from campaign.hour.faults import REGISTRY, stop
from support.manager_fixture import SandboxServer

from herdbook.core import ModelManager

LONGEST = 2**20
"""Maximum number of bytes of an answer that other clients read."""

NAMES = (
    "plain:latest",
    "llama3.2:1b",
    "nomic-embed-text:latest",
    "update-me:latest",
    "update-me:v2",
    "Copy:One",
    "made:latest",
    "derived:latest",
    "smollm2:135m",
    "nowhere:7b",
)


class Scene(Protocol):
    """The context of an action.

    Attributes:
        server: The server and its clients.
        chance: The random generator of the seed.
        manager: The present manager.
    """

    server: SandboxServer
    chance: Random
    manager: ModelManager


Action = Callable[[Scene], Awaitable[object]]


def random_name(scene: Scene) -> str:
    """Choose a model."""
    return scene.chance.choice(NAMES)


async def pull(scene: Scene) -> None:
    async with aclosing(scene.manager.pull(random_name(scene))) as progress:
        async for _ in progress:
            pass


async def pull_for_a_while(scene: Scene) -> None:
    async with scene.server.clock.timeout(scene.chance.uniform(0, 3)):
        await pull(scene)


async def ensure(scene: Scene) -> None:
    await scene.manager.ensure_available(random_name(scene))


async def load(scene: Scene) -> None:
    context = scene.chance.choice([512, 1024, 2048])
    await scene.manager.load(random_name(scene), options={"num_ctx": context})


async def load_with_short_keep_alive(scene: Scene) -> None:
    soon: list[int | str] = [0, 1, "2s", "10m"]
    await scene.manager.load(random_name(scene), keep_alive=scene.chance.choice(soon))


async def unload(scene: Scene) -> None:
    await scene.manager.unload(random_name(scene))


async def delete(scene: Scene) -> None:
    await scene.manager.delete(random_name(scene))


async def configure(scene: Scene) -> None:
    tokens = scene.chance.choice([256, 4096])
    await scene.manager.configure(random_name(scene), {"num_ctx": tokens})


async def cancel(scene: Scene) -> None:
    for running in [*scene.manager._pulls.all(), *scene.manager._loads.all()]:
        await scene.manager.cancel(running.name)


async def use(scene: Scene) -> None:
    await scene.manager.mark_used(random_name(scene))


async def ask(scene: Scene, method: str, path: str, **body: object) -> None:
    """Send a request as another client, which may time out or fail."""
    http, read = scene.server._http, 0
    patience = scene.server.clock.timeout(scene.chance.choice([1, 300]))
    with suppress(httpx.HTTPError, TimeoutError):
        async with patience, http.stream(method, path, json=body) as answer:
            async for chunk in answer.aiter_bytes():
                read += len(chunk)
                if read > LONGEST:
                    return


async def others_pull(scene: Scene) -> None:
    await ask(scene, "POST", "/api/pull", model=random_name(scene))


async def others_load(scene: Scene) -> None:
    await ask(scene, "POST", "/api/generate", model=random_name(scene))


async def others_unload(scene: Scene) -> None:
    await ask(scene, "POST", "/api/generate", model=random_name(scene), keep_alive=0)


async def others_copy(scene: Scene) -> None:
    names = {"source": random_name(scene), "destination": "Copy:One"}
    await ask(scene, "POST", "/api/copy", **names)


async def others_create(scene: Scene) -> None:
    parameters = {"seed": scene.chance.randrange(3)}
    body = {"from": random_name(scene), "parameters": parameters}
    await ask(scene, "POST", "/api/create", model="made:latest", **body)


async def others_derive(scene: Scene) -> None:
    """Create a model of weights that are in memory."""
    for runner in scene.server.world.runners.listed():
        name = scene.chance.choice(["made:latest", "derived:latest", "Copy:One"])
        body = {"from": runner.wanted.name, "system": scene.chance.choice("ab")}
        await ask(scene, "POST", "/api/create", model=name, **body)


async def others_delete(scene: Scene) -> None:
    await ask(scene, "DELETE", "/api/delete", model=random_name(scene))


async def publish(scene: Scene) -> None:
    alias = {"library/update-me:latest": "library/update-me:v2"}
    scene.server.apply(registry={"alias": scene.chance.choice([alias, {}])})


async def registry_fails(scene: Scene) -> None:
    scene.server.apply(registry=scene.chance.choice(REGISTRY))


async def disk_fills(scene: Scene) -> None:
    scene.server.apply(disk_bytes=scene.server.world.store.used_bytes() + 100)


async def runners_die(scene: Scene) -> None:
    scene.server.apply(runner="killed")


async def loads_fail(scene: Scene) -> None:
    scene.server.apply(runner_dies_saying="CUDA error: out of memory")


async def slow_loads(scene: Scene) -> None:
    scene.server.apply(runner_start_delay_s=8.0)


async def slow_unloads(scene: Scene) -> None:
    scene.server.apply(unload_lag_s=8.0)


async def server_dies(scene: Scene) -> None:
    stop(scene.server, scene.chance)


BY_US: tuple[Action, ...] = (
    *(pull, pull_for_a_while, ensure, load, load_with_short_keep_alive),
    *(unload, delete, configure),
)
BY_OTHERS: tuple[Action, ...] = (
    *(others_pull, others_load, others_unload),
    *(others_copy, others_create, others_derive, others_delete),
)
INSTANT: tuple[Action, ...] = (
    *(use, cancel, publish, registry_fails, disk_fills, runners_die, loads_fail),
    *(slow_loads, slow_unloads, server_dies),
)
"""Actions that take no time, so none is in progress during a comparison."""
