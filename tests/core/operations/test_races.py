"""Commands and refreshes that overlap: nothing is recorded that did not happen.

Nobody else changes the server here, so a model never vanishes, a load never fails,
and no command may end in an illegal transition.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from proof.oracle import (
    assert_replay_equals_live,
    assert_sound,
    reported_models,
    true_models,
)
from support.manager_fixture import (
    event_types,
    last_fact,
    pull_to_end,
    recorded_events,
    serve_manager,
    serve_two_managers,
)

from herdbook.core import (
    BusyError,
    ManagerSettings,
    ModelManager,
    ModelNotFoundError,
    ModelState,
    OperationEndedError,
)
from herdbook.events import facts

NAME = "plain:latest"
SIBLING = "update-me:latest"
"""Another name of the same weights."""

Command = Callable[[ModelManager], Awaitable[Any]]

COMMANDS: dict[str, Command] = {
    "load": lambda manager: manager.load(NAME),
    "reload": lambda manager: manager.load(NAME, options={"num_ctx": 2048}),
    "load_sibling": lambda manager: manager.load(SIBLING),
    "unload": lambda manager: manager.unload(NAME),
    "delete": lambda manager: manager.delete(NAME),
    "use": lambda manager: manager.mark_used(NAME),
    "pull": lambda manager: pull_to_end(manager, NAME),
    "refresh": lambda manager: manager.refresh(),
    "configure": lambda manager: manager.configure(NAME, {"num_ctx": 1024}),
    "cancel": lambda manager: manager.cancel(NAME),
}
REFUSALS = (BusyError, ModelNotFoundError, OperationEndedError)
"""How a command may end that met another one."""


class Pause:
    """A place where calls wait, once: before or after the server was asked."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self) -> None:
        if not self.reached.is_set():
            self.reached.set()
            await self.go_on.wait()


@contextmanager
def replaced(owner: object, method: str, by: Callable[..., Any]) -> Iterator[None]:
    """Replace a method of one object for a while."""
    setattr(owner, method, by)
    try:
        yield
    finally:
        delattr(owner, method)


@asynccontextmanager
async def paused_after(owner: object, method: str) -> AsyncIterator[Pause]:
    """Let the next call of a coroutine method wait when it has its result."""
    pause, original = Pause(), getattr(owner, method)

    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = await original(*args, **kwargs)
        await pause()
        return result

    with replaced(owner, method, wrapped):
        try:
            yield pause
        finally:
            pause.go_on.set()


async def types_since(manager: ModelManager, position: int) -> list[str]:
    return [event.type for event in await recorded_events(manager, after=position)]


@pytest.mark.parametrize("command", ["unload", "reload", "delete"])
@pytest.mark.parametrize("ends_first", ["command", "refresh"])
async def test_refresh_skips_models_of_a_running_command(
    command: str, ends_first: str
) -> None:
    async with serve_manager() as (_, manager):
        await manager.load(NAME)
        position = (await manager.now()).position
        step = "delete" if command == "delete" else "unload"
        step = "load" if command == "reload" else step
        async with (
            paused_after(manager._client, "tags") as listing,
            paused_after(manager._client, step) as asked,
        ):
            refresh = asyncio.create_task(manager.refresh())
            await listing.reached.wait()
            running = asyncio.ensure_future(COMMANDS[command](manager))
            await asked.reached.wait()
            first, second = (asked, listing)
            tasks = (running, refresh)
            if ends_first == "refresh":
                first, second = second, first
            first.go_on.set()
            if ends_first == "refresh":
                await refresh
            else:
                await manager._clock.sleep(1)
            second.go_on.set()
            await asyncio.gather(*tasks)

        happened = await types_since(manager, position)
        assert "ModelVanished" not in happened
        assert "ModelDiscovered" not in happened
        assert happened.count("ModelDeleted") == (command == "delete")
        await manager.refresh()
        assert await types_since(manager, position) == happened


@pytest.mark.parametrize("command", ["unload", "delete"])
async def test_refresh_of_another_instance_skips_models_of_a_running_command(
    command: str, tmp_path: Path
) -> None:
    async with serve_two_managers(tmp_path / "herd.db") as (_, one, two):
        await one.load(NAME)
        position = (await one.now()).position
        step = "wait_until_gone" if command == "unload" else "delete"
        owner = one._loader._runners if command == "unload" else one._client
        async with paused_after(owner, step) as done:
            running = asyncio.ensure_future(COMMANDS[command](one))
            await done.reached.wait()  # at the server, and not recorded yet
            await two.refresh()
            assert await event_types(two, NAME, after=position) == []
            done.go_on.set()
            await running

        last = await recorded_events(two, NAME, after=position)
        assert last[-1].type == (
            "ModelUnloaded" if command == "unload" else "ModelDeleted"
        )
        assert {event.actor for event in last} == {"library:one"}


async def test_models_of_a_dead_instance_are_refreshed_again(tmp_path: Path) -> None:
    async with serve_two_managers(tmp_path / "herd.db") as (server, one, two):
        async with one._changes.changing(NAME):
            await server.delete(NAME)
            await two.refresh()
            assert (await two.get_status(NAME)).present
            one._storage.instances.close()  # type: ignore[attr-defined]
            await two.refresh()
            assert not (await two.get_status(NAME)).present


async def test_command_on_a_model_that_another_instance_changes_is_busy(
    tmp_path: Path,
) -> None:
    async with serve_two_managers(tmp_path / "herd.db") as (_, one, two):
        async with one._changes.changing(NAME):
            for command in ("load", "unload", "delete"):
                with pytest.raises(BusyError, match="another instance"):
                    await COMMANDS[command](two)


async def test_use_before_a_load_starts_does_not_fail_it(tmp_path: Path) -> None:
    async with serve_two_managers(tmp_path / "herd.db") as (_, one, two):
        position = (await one.now()).position
        begin = one._loader._record_start

        async def used_first(*args: Any) -> bool:
            await two.mark_used(NAME)
            return await begin(*args)

        with replaced(one._loader, "_record_start", used_first):
            assert (await one.load(NAME)).state is ModelState.LOADED

        assert "LoadFailed" not in await types_since(two, position)
        assert (await last_fact(two, facts.RunnerChanged)) is not None


async def test_use_during_a_load_is_recorded_and_the_load_continues(
    tmp_path: Path,
) -> None:
    async with serve_two_managers(tmp_path / "herd.db") as (_, one, two):
        position = (await one.now()).position
        async with paused_after(one._client, "load") as loaded:
            load = asyncio.create_task(one.load(NAME))
            await loaded.reached.wait()
            assert (await two.mark_used(NAME)).state is ModelState.LOADING
            loaded.go_on.set()
            assert (await load).state is ModelState.LOADED

        assert await event_types(two, NAME, after=position) == [
            "LoadStarted",
            "ModelUsed",
            "ModelLoaded",
        ]


@pytest.mark.parametrize("raised", [OverflowError("10^400"), RecursionError("deep")])
async def test_any_exception_ends_a_load_as_failed(raised: Exception) -> None:
    async with serve_manager() as (_, manager):

        async def fail(*_: object, **__: object) -> None:
            raise raised

        with (
            replaced(manager._client, "load", fail),
            pytest.raises(type(raised)),
        ):
            await manager.load(NAME)

        failed = await last_fact(manager, facts.LoadFailed)
        assert isinstance(failed, facts.LoadFailed)
        assert failed.kind == "internal_error"
        assert str(raised) in failed.message
        assert not manager.under_way()
        assert (await manager.load(NAME)).state is ModelState.LOADED


@pytest.mark.parametrize("name", [NAME, "smollm2:135m"])
async def test_any_exception_ends_a_pull_as_failed(name: str) -> None:
    async with serve_manager(settings=ManagerSettings()) as (_, manager):

        def fail(*_: object, **__: object) -> AsyncIterator[object]:
            raise OverflowError("10^400")

        with (
            replaced(manager._client, "pull", fail),
            pytest.raises(OverflowError),
        ):
            await pull_to_end(manager, name)

        status = await manager.get_status(name)
        assert status.work is None
        assert status.update is None
        await pull_to_end(manager, name)
        assert await manager.is_available(name)


PAIRS = list(itertools.combinations_with_replacement(COMMANDS, 2))


@pytest.mark.parametrize(("first", "second"), PAIRS, ids="+".join)
@pytest.mark.parametrize("managers", [1, 2])
@pytest.mark.parametrize("loaded", [False, True])
async def test_concurrent_commands_record_only_what_happened(
    first: str, second: str, managers: int, *, loaded: bool, tmp_path: Path
) -> None:
    async with serve_two_managers(tmp_path / "herd.db") as (server, one, two):
        if loaded:
            await one.load(NAME)
        position = (await one.now()).position
        outcomes = await asyncio.gather(
            COMMANDS[first](one),
            COMMANDS[second](two if managers == 2 else one),
            return_exceptions=True,
        )

        failures = [one for one in outcomes if isinstance(one, BaseException)]
        assert all(isinstance(failure, REFUSALS) for failure in failures), failures
        happened = await types_since(one, position)
        assert not {"ModelVanished", "LoadFailed", "PullFailed"} & {*happened}, happened
        for manager in (one, two):
            await manager.refresh()
        later = (await types_since(one, position))[len(happened) :]
        assert "ModelVanished" not in later
        # What was deleted and pulled again may still be in memory by another name.
        assert "ModelLoaded" not in later or "ModelDeleted" in happened
        assert reported_models(await one.all_statuses()) == true_models(server.world)
        await assert_replay_equals_live(two)
        await assert_sound(one._storage.store)
