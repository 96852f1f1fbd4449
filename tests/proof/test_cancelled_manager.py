"""Every public coroutine of the manager, cancelled at every turn of the loop.

After each cancellation: the caller gets a CancelledError, nothing is held, no task is
left, the recorded events are one of the outcomes listed here, the views equal a replay,
and a next command on the same model succeeds.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from proof.oracle import (
    assert_nothing_held,
    assert_replay_equals_live,
    assert_sound,
    facts_after,
    herdbook_tasks,
    replayed,
    reported_models,
    true_models,
)
from proof.stepping import TIMEOUT_S, cancelled_at_every_turn, run

from herdbook import sandbox
from herdbook.core import ManagerSettings, ModelManager, ModelState
from herdbook.core.reconcile import reconciler
from herdbook.events.facts import AnchorReceived
from herdbook.events.sqlite.store import SQLiteEventStore
from herdbook.sandbox import World
from herdbook.sandbox.go_time import FOREVER_S
from herdbook.sandbox.models.names import Name

MODEL = "smollm2:135m"
SETTINGS = ManagerSettings(
    poll_every_s=0.001,
    log_poll_every_s=0.001,
    progress_every_s=0.0,
    progress_every_share=0.2,
    max_repeated_changes=10_000,
)
BACKGROUND = {"herdbook writer", "herdbook watch", "herdbook kept head"}
"""Tasks that run as long as the log is open."""


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again at once for runners that disappeared: each step unloads some."""
    monkeypatch.setattr(reconciler, "RECHECK_WAIT_S", 0.0)


Do = Callable[[ModelManager], Coroutine[Any, Any, object]]
Prepare = Callable[[World, ModelManager], Awaitable[None]]


class Case(NamedTuple):
    """A command, the state before it, and the events that it may have recorded."""

    do: Do
    prepare: Prepare
    outcomes: str


@asynccontextmanager
async def fast_sandbox(tmp_path: Path) -> AsyncIterator[tuple[World, str]]:
    """A fast sandbox with a few models, which stay loaded until they are unloaded."""
    settings = sandbox.Settings(keep_alive_s=FOREVER_S)
    world = World(models="some", clock=sandbox.RealClock(speed=400), settings=settings)
    async with sandbox.serve(world) as url:
        yield world, url


def remove_model(world: World) -> None:
    """Remove the model as another client, with its downloaded data."""
    name = Name.parse(MODEL)
    assert name is not None
    world.runners.clear()
    if world.store.find(name):
        world.store.remove(name)
    world.store.partials.clear()


async def absent(world: World, manager: ModelManager) -> None:
    remove_model(world)
    await manager.refresh()
    assert not await manager.is_available(MODEL)


async def present(world: World, manager: ModelManager) -> None:
    world.runners.clear()
    await manager.ensure_available(MODEL)
    assert (await manager.get_status(MODEL)).state is ModelState.AVAILABLE


async def loaded(world: World, manager: ModelManager) -> None:
    await manager.ensure_available(MODEL)
    await manager.load(MODEL)


async def drifted(world: World, manager: ModelManager) -> None:
    await absent(world, manager)
    async for _ in pull_outside(world):
        pass


async def pull_outside(world: World) -> AsyncIterator[object]:
    name = Name.parse(MODEL)
    assert name is not None
    under_way = world.pull(name, insecure=False)
    async for line in under_way.lines.read():
        yield line
    world.end_pull(under_way)


async def follow_pull(manager: ModelManager) -> None:
    async with aclosing(manager.pull(MODEL)) as progress:
        async for _ in progress:
            pass


@asynccontextmanager
async def pull_under_way(manager: ModelManager) -> AsyncIterator[None]:
    pulling = asyncio.create_task(follow_pull(manager), name="the pull")
    try:
        while not manager.under_way():
            await asyncio.sleep(0)
        yield
    finally:
        pulling.cancel()
        await asyncio.wait({pulling})


async def cancel_pull(manager: ModelManager) -> None:
    async with pull_under_way(manager):
        await manager.cancel(MODEL)


async def interrupt_pull(manager: ModelManager) -> None:
    async with pull_under_way(manager):
        await manager.interrupt()


async def position_of_the_start(manager: ModelManager) -> None:
    (first,) = (await manager.read_log(limit=1)).events
    await manager.position_at(first.recorded_at)


async def some_events(manager: ModelManager) -> None:
    async with aclosing(manager.events(after=0)) as events:
        for _ in range(5):
            await anext(events)


def statuses_as_of_the_start(manager: ModelManager) -> Coroutine[Any, Any, object]:
    return manager.as_of(3)


async def freeze_and_plan(manager: ModelManager) -> None:
    await manager.plan(await manager.freeze())


LATER = datetime(2100, 1, 1, tzinfo=UTC)
ANCHOR = AnchorReceived(origin="herdbook/other", position=1, text="an anchor")
"""An anchor of another log; it is recorded in the stream of the node."""

PULLED = (
    "(PullStarted (PullProgressed )*"
    "(PullCancelled |PullCompleted (CapabilitiesDetected )?))?"
)
LOADED = "(LoadStarted (LoadCancelled |ModelLoaded ))?"
RELOADED = "(ReloadStarted (ReloadCancelled |ReloadCompleted ))?"
CASES = {
    "move_node": Case(ModelManager.move_node, present, ""),
    "refresh": Case(
        ModelManager.refresh, drifted, "(ModelDiscovered (CapabilitiesDetected )?)?"
    ),
    "pull": Case(follow_pull, absent, PULLED),
    "ensure_available": Case(lambda h: h.ensure_available(MODEL), absent, PULLED),
    "update": Case(
        follow_pull,
        present,
        "(UpdateStarted (UpdateProgressed )*(UpdateCancelled |UpdateUnchanged ))?",
    ),
    "cancel": Case(cancel_pull, absent, PULLED),
    "interrupt": Case(
        interrupt_pull, absent, PULLED.replace("Cancelled", "(Cancelled|Interrupted)")
    ),
    "load": Case(lambda h: h.load(MODEL), present, LOADED),
    "reload": Case(
        lambda h: h.load(MODEL, options={"num_ctx": 1024}), loaded, RELOADED
    ),
    "unload": Case(lambda h: h.unload(MODEL), loaded, "(ModelUnloaded )?"),
    "delete": Case(
        lambda h: h.delete(MODEL), loaded, "(ModelUnloaded )?(ModelDeleted )?"
    ),
    "mark_used": Case(lambda h: h.mark_used(MODEL), loaded, "(ModelUsed )?"),
    "configure": Case(
        lambda h: h.configure(MODEL, {"num_ctx": 4096}, note="why"),
        present,
        "(ConfigurationChanged )?",
    ),
    "get_status": Case(lambda h: h.get_status(MODEL), present, ""),
    "all_statuses": Case(ModelManager.all_statuses, present, ""),
    "is_available": Case(lambda h: h.is_available(MODEL), present, ""),
    "node_status": Case(ModelManager.node_status, present, ""),
    "now": Case(ModelManager.now, present, ""),
    "options_for": Case(lambda h: h.options_for(MODEL), present, ""),
    "capabilities": Case(lambda h: h.capabilities(MODEL), present, ""),
    "recommend": Case(lambda h: h.recommend("general"), present, ""),
    "explain": Case(lambda h: h.explain("general"), present, ""),
    "suggest": Case(lambda h: h.suggest("vision"), present, ""),
    "statistics": Case(lambda h: h.statistics(MODEL), present, ""),
    "usage": Case(ModelManager.usage, present, ""),
    "levels": Case(lambda h: h.levels("memory", end=LATER), present, ""),
    "record_anchor": Case(
        lambda h: h.record_anchor(ANCHOR, made_at=LATER), present, ""
    ),
    "history": Case(ModelManager.history, present, ""),
    "available_history": Case(ModelManager.available_history, present, ""),
    "as_of": Case(statuses_as_of_the_start, present, ""),
    "events": Case(some_events, present, ""),
    "verify": Case(ModelManager.verify, present, ""),
    "diff": Case(lambda h: h.diff(0), present, ""),
    "why": Case(lambda h: h.why(MODEL), present, ""),
    "doctor": Case(ModelManager.doctor, present, ""),
    "freeze": Case(ModelManager.freeze, present, ""),
    "plan": Case(freeze_and_plan, present, ""),
    "cost_of_pull": Case(lambda h: h.cost_of_pull(MODEL), present, ""),
    "cost_of_load": Case(lambda h: h.cost_of_load(MODEL), present, ""),
    "cost_of_delete": Case(lambda h: h.cost_of_delete(MODEL), present, ""),
    "cost_of_unload": Case(lambda h: h.cost_of_unload(MODEL), loaded, ""),
    "head": Case(ModelManager.head, present, ""),
    "lag": Case(ModelManager.lag, present, ""),
    "get": Case(lambda h: h.get("/api/tags"), present, ""),
    "read_log": Case(lambda h: h.read_log(newest_first=True), present, ""),
    "position_at": Case(position_of_the_start, present, ""),
}


async def check(case: Case, manager: ModelManager, world: World, position: int) -> None:
    """Assert that nothing is held or left, and that the outcome is a listed one."""
    await quiet(manager)
    assert_nothing_held(manager)
    happened = "".join(
        f"{type(fact).__name__} "
        for fact in await facts_after(manager, position, MODEL)
    )
    assert re.fullmatch(case.outcomes, happened), happened
    await assert_replay_equals_live(manager)
    await assert_agrees(manager, world)


async def assert_agrees(manager: ModelManager, world: World) -> None:
    """Assert that a refresh finds the state of the server."""
    while True:
        before = true_models(world)
        await manager.refresh()
        reported = reported_models(await manager.all_statuses())
        if before == true_models(world):  # no load or download ended meanwhile
            break
    assert reported == before


async def quiet(manager: ModelManager) -> None:
    """Wait for cancelled work to end; no other work may be left."""
    left = {t for t in herdbook_tasks() if t.get_name() not in BACKGROUND}
    if left:
        _, left = await asyncio.wait(left, timeout=TIMEOUT_S)
    assert left == set(), left


async def sweep(case: Case, tmp_path: Path, again: int = 0) -> None:
    """Cancel a command at every turn, and check the state after each."""
    async with (
        fast_sandbox(tmp_path) as (world, url),
        ModelManager.open(
            tmp_path / "herd.db", ollama=url, settings=SETTINGS
        ) as manager,
    ):
        await case.prepare(world, manager)
        position = (await manager.now()).position
        sweep = cancelled_at_every_turn(lambda: case.do(manager), again=again)
        async for task in sweep:
            if not task.cancelled():
                task.result()
            await check(case, manager, world, position)
            await case.prepare(world, manager)
            position = (await manager.now()).position
        await assert_sound(manager._storage.store)


def test_every_public_coroutine_is_cancelled() -> None:
    public = {
        name
        for name, member in inspect.getmembers(ModelManager)
        if not name.startswith("_")
        and (inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member))
    }
    assert public == CASES.keys() - {"update", "reload"}


LONG = "HERDBOOK_CAMPAIGN" in os.environ
SWEPT = [name for name in CASES if name != "reload" or LONG]
"""A reload differs from a load only in what is recorded; the campaign has both."""


@pytest.mark.parametrize("name", SWEPT)
def test_cancelled_command_has_a_listed_outcome(name: str, tmp_path: Path) -> None:
    run(sweep(CASES[name], tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pull", "load", "unload", "delete", "refresh"])
def test_repeatedly_cancelled_command_has_a_listed_outcome(
    name: str, tmp_path: Path
) -> None:
    run(sweep(CASES[name], tmp_path, again=1000))


BUSY = msgspec.structs.replace(SETTINGS, reconcile_every_s=0.001)


async def opened(path: Path, url: str) -> None:
    async with ModelManager.open(path, ollama=url, settings=BUSY):
        pass


async def opened_and_left_in_a_pull(path: Path, url: str) -> None:
    async with ModelManager.open(path, ollama=url, settings=BUSY) as manager:
        pulling = asyncio.create_task(follow_pull(manager), name="the pull")
        try:
            while not manager.under_way() and not pulling.done():
                await asyncio.sleep(0)
        finally:
            pulling.cancel()


LIVES = {"opened": opened, "left in a pull": opened_and_left_in_a_pull}


async def loading_models(path: Path) -> list[str]:
    """Return the models that are loading in the log."""
    async with await SQLiteEventStore.open(path) as store:
        views = await replayed(store)
    return [status.name for status in views.status.all() if status.work]


async def sweep_open_and_close(name: str, tmp_path: Path, again: int) -> None:
    """Cancel opening and closing at every turn: nothing is left, the log is sound."""
    path = tmp_path / "herd.db"
    threads = set(threading.enumerate())
    async with fast_sandbox(tmp_path) as (world, url):
        remove_model(world)
        sweep = cancelled_at_every_turn(lambda: LIVES[name](path, url), again=again)
        async for task in sweep:
            if not task.cancelled():
                task.result()
            assert herdbook_tasks() == set()
            left = list(tmp_path.glob("herd.db-instances/*"))
            assert [one for one in left if one.suffix != ".lease"] == []  # kept: empty
            assert await loading_models(path) == []
            remove_model(world)
        for thread in set(threading.enumerate()) - threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()
        async with ModelManager.open(path, ollama=url) as manager:
            assert reported_models(await manager.all_statuses()) == true_models(world)
            await assert_replay_equals_live(manager)
            await assert_sound(manager._storage.store)


@pytest.mark.parametrize("again", [0, 1000])
@pytest.mark.parametrize("name", LIVES)
def test_cancelled_open_and_close_leave_nothing_behind(
    name: str, again: int, tmp_path: Path
) -> None:
    run(sweep_open_and_close(name, tmp_path, again))
