"""Two managers of one server on one log, in one process and in two."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import pytest
from proof.oracle import (
    assert_replay_equals_live,
    assert_sound,
    dumps,
    reported_models,
    true_models,
)
from support.manager_fixture import (
    SandboxServer,
    pull_to_end,
    serve_sandbox,
    serve_two_managers,
)

from herdbook.core import BusyError, HerdbookError, ManagerSettings, ModelManager
from herdbook.core.errors import IllegalTransitionError

MODEL = "smollm2:135m"
HERE = "plain:latest"
SEEDS = int(os.environ.get("HERDBOOK_SEEDS", "6"))
SETTINGS = ManagerSettings(progress_every_s=0.0, progress_every_share=0.05)


@asynccontextmanager
async def two(
    tmp_path: Path,
) -> AsyncIterator[tuple[SandboxServer, ModelManager, ModelManager]]:
    log = tmp_path / "herd.db"
    async with serve_two_managers(log, settings=SETTINGS) as opened:
        yield opened


async def assert_agreed(
    server: SandboxServer, one: ModelManager, other: ModelManager
) -> None:
    """Assert that both report the state of the server and of the log."""
    await one.refresh()
    await other.refresh()
    await one.now()
    assert dumps(one._repository.views) == dumps(other._repository.views)
    assert reported_models(await one.all_statuses()) == true_models(server.world)
    await assert_replay_equals_live(other)
    await assert_sound(one._storage.store)


async def types_of(manager: ModelManager, name: str) -> list[str]:
    """Return the event types of a model."""
    stream = manager._repository.stream(name)
    return [event.type async for event in manager._storage.store.read_stream(stream)]


async def test_uses_of_one_model_are_all_recorded(tmp_path: Path) -> None:
    async with two(tmp_path) as (server, one, other):
        await asyncio.gather(
            *(h.mark_used(HERE) for h in (one, other) for _ in range(20))
        )
        assert (await one.get_status(HERE)).uses == 40
        await assert_agreed(server, one, other)


async def test_commands_on_different_models_do_not_interfere(tmp_path: Path) -> None:
    async with two(tmp_path) as (server, one, other):
        await asyncio.gather(
            one.load(HERE),
            other.load("nomic-embed-text:latest"),
            one.configure("llava:7b", {"num_ctx": 512}),
            other.ensure_available(MODEL),
        )
        await assert_agreed(server, one, other)


async def test_ensure_available_joins_the_pull_of_the_other_manager(
    tmp_path: Path,
) -> None:
    async with two(tmp_path) as (server, one, other):
        first, second = await asyncio.gather(
            pull_to_end(one, MODEL), other.ensure_available(MODEL)
        )
        assert first
        assert second.present
        assert server.request_count("/api/pull") == 1
        assert (await types_of(one, MODEL)).count("PullStarted") == 1
        await assert_agreed(server, one, other)


async def test_concurrent_pulls_are_one_pull(tmp_path: Path) -> None:
    async with two(tmp_path) as (server, one, other):
        await asyncio.gather(pull_to_end(one, MODEL), pull_to_end(other, MODEL))
        assert (await types_of(one, MODEL)).count("PullCompleted") == 1
        await assert_agreed(server, one, other)


async def test_concurrent_loads_load_a_model(tmp_path: Path) -> None:
    async with two(tmp_path) as (server, one, other):
        answers = await asyncio.gather(
            one.load(HERE), other.load(HERE), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, Exception)]
        assert all(isinstance(e, BusyError | IllegalTransitionError) for e in refused)
        assert len(refused) < 2
        await assert_agreed(server, one, other)


async def test_concurrent_deletions_delete_a_model_once(tmp_path: Path) -> None:
    async with two(tmp_path) as (server, one, other):
        answers = await asyncio.gather(
            one.delete(HERE), other.delete(HERE), return_exceptions=True
        )
        assert None in answers
        assert all(a is None or isinstance(a, HerdbookError) for a in answers)
        # The second manager may see that the model is gone before the first records it.
        ends = {"ModelDeleted", "ModelVanished"}
        assert len([t for t in await types_of(one, HERE) if t in ends]) == 1
        await assert_agreed(server, one, other)


async def test_concurrent_configurations_lose_no_setting(tmp_path: Path) -> None:
    async with two(tmp_path) as (server, one, other):
        answers = await asyncio.gather(
            one.configure(HERE, {"num_ctx": 512}),
            other.configure(HERE, {"temperature": 0.5}),
            return_exceptions=True,
        )
        assert all(
            not isinstance(a, Exception) or isinstance(a, HerdbookError)
            for a in answers
        )
        done = [a for a in answers if not isinstance(a, Exception)]
        assert len((await one.get_status(HERE)).settings) == len(done) > 0
        await assert_agreed(server, one, other)


async def test_operations_of_a_running_instance_are_not_interrupted(
    tmp_path: Path,
) -> None:
    async with two(tmp_path) as (server, one, other):
        pulling = asyncio.create_task(pull_to_end(one, MODEL))
        await server.wait_until(lambda: server.request_count("/api/pull") == 1)
        await other.refresh()
        with pytest.raises(BusyError):
            await other.delete(MODEL)
        await pulling
        assert "PullInterrupted" not in await types_of(one, MODEL)
        await assert_agreed(server, one, other)


async def test_manager_is_closed_during_a_pull_that_the_other_follows(
    tmp_path: Path,
) -> None:
    path = tmp_path / "herd.db"
    async with serve_sandbox("herd") as server, server.open_manager(path) as other:
        async with server.open_manager(path) as one:
            pulling = asyncio.create_task(pull_to_end(one, MODEL))
            await server.wait_until(lambda: server.request_count("/api/pull") == 1)
            waiting = asyncio.create_task(other.ensure_available(MODEL))
            await server.clock.sleep(0.2)
        assert (await waiting).present
        with pytest.raises(HerdbookError):
            await pulling
        assert "PullInterrupted" in await types_of(other, MODEL)
        await assert_sound(other._storage.store)


async def command(manager: ModelManager, chance: Random) -> None:
    """Run a random command; it may be refused."""
    name = chance.choice([HERE, MODEL, "llama3.2:1b"])
    what = chance.choice(["pull", "load", "unload", "delete", "use", "refresh"])
    with suppress(HerdbookError):
        match what:
            case "pull":
                await pull_to_end(manager, name)
            case "use":
                await manager.mark_used(name)
            case "refresh":
                await manager.refresh()
            case _:
                await getattr(manager, what)(name)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_random_commands_of_two_managers_make_one_log(
    seed: int, tmp_path: Path
) -> None:
    async with two(tmp_path) as (server, one, other):
        chance = Random(seed)
        for _ in range(8):
            await asyncio.gather(
                *(command(chance.choice([one, other]), chance) for _ in range(4))
            )
            await assert_agreed(server, one, other)
