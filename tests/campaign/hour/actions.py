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


class ActionContext(Protocol):
    """The context of an action.

    Attributes:
        server: The server and its clients.
        chance: The random generator of the seed.
        manager: The present manager.
    """

    server: SandboxServer
    chance: Random
    manager: ModelManager


Action = Callable[[ActionContext], Awaitable[object]]


def random_name(context: ActionContext) -> str:
    """Choose a model."""
    return context.chance.choice(NAMES)


async def pull(context: ActionContext) -> None:
    async with aclosing(context.manager.pull(random_name(context))) as progress:
        async for _ in progress:
            pass


async def pull_for_a_while(context: ActionContext) -> None:
    async with context.server.clock.timeout(context.chance.uniform(0, 3)):
        await pull(context)


async def ensure(context: ActionContext) -> None:
    await context.manager.ensure_available(random_name(context))


async def load(context: ActionContext) -> None:
    tokens = context.chance.choice([512, 1024, 2048])
    await context.manager.load(random_name(context), options={"num_ctx": tokens})


async def load_with_short_keep_alive(context: ActionContext) -> None:
    soon: list[int | str] = [0, 1, "2s", "10m"]
    await context.manager.load(
        random_name(context), keep_alive=context.chance.choice(soon)
    )


async def unload(context: ActionContext) -> None:
    await context.manager.unload(random_name(context))


async def delete(context: ActionContext) -> None:
    await context.manager.delete(random_name(context))


async def configure(context: ActionContext) -> None:
    tokens = context.chance.choice([256, 4096])
    await context.manager.configure(random_name(context), {"num_ctx": tokens})


async def cancel(context: ActionContext) -> None:
    for running in [*context.manager._pulls.all(), *context.manager._loads.all()]:
        await context.manager.cancel(running.name)


async def use(context: ActionContext) -> None:
    await context.manager.mark_used(random_name(context))


async def ask(context: ActionContext, method: str, path: str, **body: object) -> None:
    """Send a request as another client, which may time out or fail."""
    http, read = context.server._http, 0
    patience = context.server.clock.timeout(context.chance.choice([1, 300]))
    with suppress(httpx.HTTPError, TimeoutError):
        async with patience, http.stream(method, path, json=body) as answer:
            async for chunk in answer.aiter_bytes():
                read += len(chunk)
                if read > LONGEST:
                    return


async def others_pull(context: ActionContext) -> None:
    await ask(context, "POST", "/api/pull", model=random_name(context))


async def others_load(context: ActionContext) -> None:
    await ask(context, "POST", "/api/generate", model=random_name(context))


async def others_unload(context: ActionContext) -> None:
    await ask(
        context, "POST", "/api/generate", model=random_name(context), keep_alive=0
    )


async def others_copy(context: ActionContext) -> None:
    names = {"source": random_name(context), "destination": "Copy:One"}
    await ask(context, "POST", "/api/copy", **names)


async def others_create(context: ActionContext) -> None:
    parameters = {"seed": context.chance.randrange(3)}
    body = {"from": random_name(context), "parameters": parameters}
    await ask(context, "POST", "/api/create", model="made:latest", **body)


async def others_derive(context: ActionContext) -> None:
    """Create a model of weights that are in memory."""
    for runner in context.server.world.runners.listed():
        name = context.chance.choice(["made:latest", "derived:latest", "Copy:One"])
        body = {"from": runner.wanted.name, "system": context.chance.choice("ab")}
        await ask(context, "POST", "/api/create", model=name, **body)


async def others_delete(context: ActionContext) -> None:
    await ask(context, "DELETE", "/api/delete", model=random_name(context))


async def publish(context: ActionContext) -> None:
    alias = {"library/update-me:latest": "library/update-me:v2"}
    context.server.apply(registry={"alias": context.chance.choice([alias, {}])})


async def registry_fails(context: ActionContext) -> None:
    context.server.apply(registry=context.chance.choice(REGISTRY))


async def disk_fills(context: ActionContext) -> None:
    context.server.apply(disk_bytes=context.server.world.store.used_bytes() + 100)


async def runners_die(context: ActionContext) -> None:
    context.server.apply(runner="killed")


async def loads_fail(context: ActionContext) -> None:
    context.server.apply(runner_dies_saying="CUDA error: out of memory")


async def slow_loads(context: ActionContext) -> None:
    context.server.apply(runner_start_delay_s=8.0)


async def slow_unloads(context: ActionContext) -> None:
    context.server.apply(unload_lag_s=8.0)


async def server_dies(context: ActionContext) -> None:
    stop(context.server, context.chance)


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
