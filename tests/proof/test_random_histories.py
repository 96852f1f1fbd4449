"""Random commands, changes by other clients and faults: the state stays right.

After each step and a refresh, every status is the state in the server's own store and
runners, and the live views equal those of a replay, byte for byte. ``HERDBOOK_SEEDS``
sets the number of histories.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from random import Random

import httpx
import pytest
from campaign.hour.faults import REGISTRY
from proof.oracle import (
    assert_nothing_held,
    assert_replay_equals_live,
    assert_sound,
    reported_models,
    true_models,
)
from support.manager_fixture import SandboxServer, serve_sandbox

from herdbook import sandbox
from herdbook.core import HerdbookError, ManagerSettings, ModelManager

SEEDS = int(os.environ.get("HERDBOOK_SEEDS", "8"))
LIVES = 3
STEPS = 8
"""Number of steps between an open and a close of the log."""
NAMES = (
    "plain:latest",
    "llama3.2:1b",
    "nomic-embed-text:latest",
    "update-me:latest",
    "update-me:v2",
    "Copy:One",
    "made:latest",
    "smollm2:135m",
    "nowhere:7b",
)
SERVER = sandbox.Settings(max_loaded=2, keep_alive_s=120.0)
SETTINGS = ManagerSettings(
    progress_every_s=0.5, max_stalls=1, max_concurrent_pulls=2, snapshot_every=7
)

Act = Callable[["History"], Awaitable[object]]


class History:
    """A random history; a seed decides everything."""

    manager: ModelManager

    def __init__(self, server: SandboxServer, seed: int) -> None:
        self.server = server
        self.chance = Random(seed)
        self.steps: list[str] = []

    async def run(self, path: Path) -> None:
        """Open the log, run random steps, and close it."""
        async with self.server.open_manager(path, settings=SETTINGS) as self.manager:
            for _ in range(STEPS):
                await self.step()
                await self.calm()
                await self.check()
            await assert_sound(self.manager._storage.store)

    def name(self) -> str:
        return self.chance.choice(NAMES)

    async def pull(self) -> None:
        async with aclosing(self.manager.pull(self.name())) as progress:
            async for _ in progress:
                pass

    async def unload_soon(self) -> None:
        soon: list[int | str] = [0, 1, "2s"]
        await self.manager.load(self.name(), keep_alive=self.chance.choice(soon))

    async def ask_others(self, method: str, path: str, **body: object) -> None:
        with suppress(
            httpx.HTTPError, TimeoutError
        ):  # failures of other clients do not matter
            async with self.server.clock.timeout(300):  # nor do their timeouts
                await self.server.request(method, path, stream=False, **body)

    async def update_offered(self) -> None:
        """Publish another version of a name."""
        alias = {"library/update-me:latest": "library/update-me:v2"}
        self.server.apply(registry={"alias": self.chance.choice([alias, {}])})

    async def step(self) -> None:
        """Run a few actions concurrently, and cancel some of them."""
        chosen = self.chance.choices(ACTS, k=self.chance.choice([1, 1, 2, 3]))
        self.steps.append(" | ".join(act.__name__ for act in chosen))
        tasks = [asyncio.ensure_future(self.run_action(act)) for act in chosen]
        if self.chance.random() < 0.3:
            await self.server.clock.sleep(self.chance.uniform(0, 4))
            self.steps.append(f"cancelled: {tasks[0].cancel()}")
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def run_action(self, act: Act) -> None:
        """Run an action; Herdbook's own errors are permitted, others are not."""
        try:
            await act(self)
        except HerdbookError as error:
            self.steps.append(f"  {error}")

    async def calm(self) -> None:
        """End the faults, start the server, and refresh."""
        self.server.apply(answer=None, registry={}, disk_bytes=None)
        self.server.apply(runner_dies_saying=None)
        if self.server.world.down:
            self.server.apply(server="started")
        await self.manager.refresh()

    async def check(self) -> None:
        """Assert that the state is that of the server and of the log."""
        assert_nothing_held(self.manager)
        statuses = await self.manager.all_statuses()
        assert reported_models(statuses) == true_models(self.server.world)
        assert not any(status.work or status.update for status in statuses)
        await assert_replay_equals_live(self.manager)


async def pull(history: History) -> None:
    await history.pull()


async def ensure(history: History) -> None:
    await history.manager.ensure_available(history.name())


async def load(history: History) -> None:
    context = history.chance.choice([512, 1024, 2048])
    await history.manager.load(history.name(), options={"num_ctx": context})


async def load_with_short_keep_alive(history: History) -> None:
    await history.unload_soon()


async def unload(history: History) -> None:
    await history.manager.unload(history.name())


async def delete(history: History) -> None:
    await history.manager.delete(history.name())


async def use(history: History) -> None:
    await history.manager.mark_used(history.name())


async def configure(history: History) -> None:
    await history.manager.configure(
        history.name(), {"num_ctx": history.chance.choice([256, 4096])}
    )


async def cancel(history: History) -> None:
    await history.server.clock.sleep(history.chance.uniform(0, 2))
    await history.manager.cancel(history.name())


async def look(history: History) -> None:
    await history.manager.refresh()


async def others_pull(history: History) -> None:
    await history.ask_others("POST", "/api/pull", model=history.name())


async def others_load(history: History) -> None:
    await history.ask_others("POST", "/api/generate", model=history.name())


async def others_unload(history: History) -> None:
    await history.ask_others(
        "POST", "/api/generate", model=history.name(), keep_alive=0
    )


async def others_copy(history: History) -> None:
    await history.ask_others(
        "POST", "/api/copy", source=history.name(), destination="Copy:One"
    )


async def others_create(history: History) -> None:
    body = {"from": history.name(), "parameters": {"seed": history.chance.randrange(3)}}
    await history.ask_others("POST", "/api/create", model="made:latest", **body)


async def others_delete(history: History) -> None:
    await history.ask_others("DELETE", "/api/delete", model=history.name())


async def publish(history: History) -> None:
    await history.update_offered()


async def time_passes(history: History) -> None:
    await history.server.clock.sleep(history.chance.choice([1, 60, 200, 4000]))


async def restart(history: History) -> None:
    await history.server.clock.sleep(history.chance.uniform(0, 2))
    history.server.apply(server=history.chance.choice(["killed", "stopped"]))
    await history.server.clock.sleep(history.chance.choice([0.1, 5]))
    history.server.apply(server="started")


async def runners_die(history: History) -> None:
    history.server.apply(runner="killed")


async def loads_fail(history: History) -> None:
    history.server.apply(runner_dies_saying="CUDA error: out of memory")


async def registry_fails(history: History) -> None:
    history.server.apply(registry=history.chance.choice(REGISTRY))


async def disk_fills(history: History) -> None:
    history.server.apply(disk_bytes=history.server.world.store.used_bytes() + 100)


async def nonsense_comes(history: History) -> None:
    path = history.chance.choice(["/api/tags", "/api/ps", "/api/show", "/api/pull"])
    answers: list[dict[str, object]] = [
        {"body": "<html>"},
        {"status": 500, "body": '{"error":"boom"}'},
        {"cut": True},
    ]
    answer = history.chance.choice(answers)
    history.server.apply(answer={"path": path, **answer})


ACTS: tuple[Act, ...] = (
    *(pull, ensure, load, load_with_short_keep_alive, unload, delete, use, configure),
    *(cancel, look, others_pull, others_load, others_unload, others_copy),
    *(others_create, others_delete, publish, time_passes, restart, runners_die),
    *(loads_fail, registry_fails, disk_fills, nonsense_comes),
)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_random_history_matches_the_server(seed: int, tmp_path: Path) -> None:
    async with serve_sandbox("herd", settings=SERVER) as server:
        history = History(server, seed)
        try:
            for _ in range(LIVES):
                await history.run(tmp_path / "herd.db")
        except BaseException as error:
            error.add_note("\n".join(history.steps))
            raise
