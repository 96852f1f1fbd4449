"""A random hour with a server, and a day in which the server is away.

A seed decides everything. All actions are in a list that is shuffled and run through
again and again, so that each hour has all of them.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from campaign.hour.actions import BY_OTHERS, BY_US, INSTANT, NAMES, Action
from campaign.hour.faults import (
    INVALID_ANSWERS,
    end_faults,
    is_healthy,
    script_invalid_answers,
)
from campaign.hour.killing import copy_as_killed
from campaign.hour.oracle import Oracle, Seen
from proof.oracle import (
    assert_nothing_held,
    assert_replay_equals_live,
    assert_sound,
    herdbook_tasks,
    reported_models,
)
from support.manager_fixture import SandboxServer

from herdbook.core import HerdbookError, ManagerSettings, ModelManager, OllamaError

MINUTE_S = 60.0
HOUR_S = 3600.0
DAY_S = 86400.0
PAUSES = ((0.0, 0.2), (0.0, 2.0), (0.0, 10.0), (10.0, 60.0))
"""Minimum and maximum seconds between two turns."""

MAX_RUNNING = 6
"""Maximum number of running actions before some are awaited."""

SERVER_AWAY = "the server is away for a day"
KILLED = "Herdbook is killed"
CLOSED = "Herdbook is closed and opened"

BACKGROUND_TASKS = ("past_snapshots", "pinned_models", "reconciler", "writer")
"""The tasks that run as long as a manager."""


class Hour:
    """One hour: a seed, a server, a log, and one manager after another.

    Attributes:
        steps: The actions so far, for the report of a failure.
    """

    manager: ModelManager

    def __init__(self, server: SandboxServer, seed: int, folder: Path) -> None:
        self.server = server
        self.chance = Random(seed)
        self.steps: list[str] = []
        self.oracle = Oracle(server.world)
        self._folder = folder
        self._kills = 0
        self._stack = AsyncExitStack()
        self._pending: list[Action | str] = []
        self._running: list[asyncio.Task[None]] = []
        self._until = server.time.now() + HOUR_S
        self._threads = threading.active_count()

    @property
    def log(self) -> Path:
        """The log file; after each kill, the copy that was left."""
        return self._folder / f"herd-{self._kills}.db"

    async def run(self) -> None:
        """Run the hour."""
        async with self._stack:
            await self._open()
            await self._run_actions()
            await self._settle()
            await self._close()
        self.oracle.assert_log_agrees(self.log)

    async def _run_actions(self) -> None:
        first = [SERVER_AWAY]
        while first or self.server.time.now() < self._until:
            await self._turn(
                first.pop() if self._kills > 1 and first else self._next_action()
            )

    def _next_action(self) -> Action | str:
        if not self._pending:
            nonsense = list(INVALID_ANSWERS)
            lives = [KILLED, KILLED, KILLED, CLOSED]
            self._pending = [*BY_US, *BY_OTHERS, *INSTANT, *nonsense, *lives]
            self.chance.shuffle(self._pending)
        return self._pending.pop()

    async def _turn(self, action: Action | str) -> None:
        name = action if isinstance(action, str) else action.__name__
        self.steps.append(f"{self.server.time.now():9.2f} s  {name}")
        await self._perform(action)
        await self._pause(self.chance.uniform(*self.chance.choice(PAUSES)))
        self._raise_failures()
        await self._refresh_and_compare()
        if self.chance.random() < 0.3:
            await self._settle()

    async def _perform(self, action: Action | str) -> None:
        if action == KILLED:
            await self._start(*self.chance.choices(BY_US, k=3))
            await self._pause(self.chance.uniform(0.0, self.chance.choice([0.1, 3.0])))
            await self._kill()
        elif action == CLOSED:
            await self._settle()
            await self._close()
            await self._open()
        elif action == SERVER_AWAY:
            await self._stop_server_for_a_day()
        elif isinstance(action, str):
            self.steps.append(
                f"  {script_invalid_answers(self.server, self.chance, action)}"
            )
        elif action in INSTANT:
            await self._run_action(action)
        else:
            await self._start(action, *self.chance.choices(BY_US + BY_OTHERS, k=2))

    async def _start(self, *actions: Action) -> None:
        """Start an action that takes time; if too many run, end the oldest."""
        for action in actions:
            self.steps.append(f"  {action.__name__} starts")
            self._running.append(asyncio.create_task(self._run_action(action)))
        while len(self._running) > MAX_RUNNING:
            await self._cancel_tasks(self._running.pop(0))

    async def _run_action(self, action: Action) -> None:
        """Run an action; Herdbook's own errors are permitted, others are not."""
        try:
            await action(self)
        except (HerdbookError, TimeoutError) as error:
            self.steps.append(f"  {action.__name__}: {error}")

    async def _cancel_tasks(self, *tasks: asyncio.Task[None]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    def _raise_failures(self) -> None:
        for task in [task for task in self._running if task.done()]:
            self._running.remove(task)
            task.result()

    async def _pause(self, seconds: float) -> None:
        await self.server.clock.sleep(seconds)

    async def _open(self) -> None:
        settings = ManagerSettings(
            progress_every_s=0.5,
            max_repeated_changes=10_000,  # each is compared with the server
            max_stalls=1,
            silence_timeout_s=120.0,
            reconcile_every_s=300.0,
            lost_wait_max_s=300.0,  # the server is away for a day
            resume_pulls=self.chance.random() < 0.5,
            snapshot_every=40,
        )
        self.manager = await self._stack.enter_async_context(
            self.server.open_manager(self.log, settings=settings)
        )

    async def _close(self) -> None:
        """Close the manager, and check that nothing is left of it."""
        gone = weakref.ref(self.manager)
        await self._stack.aclose()
        del self.manager
        gc.collect()
        assert gone() is None, gc.get_referrers(gone())
        assert herdbook_tasks() == set()
        assert threading.active_count() == self._threads

    async def _kill(self) -> None:
        """Kill the manager during its work, and start the next one."""
        for _ in range(self.chance.randrange(40)):
            await asyncio.sleep(0)
        acknowledged = self.manager._repository.views
        end, last = acknowledged.position, acknowledged.hash
        self._copy_files()
        await self._cancel_tasks(*self._running)
        self._running.clear()
        await self._close()
        await self._pause(self.chance.choice([0.0, 20.0]))
        if self.chance.random() < 0.3:
            await self._kill_while_opening()
        await self._open()
        (kept,) = [
            event.hash
            async for event in self.manager._storage.store.read_stored(
                after=end - 1, limit=1
            )
        ]
        assert kept == last, "an acknowledged event is lost"

    def _copy_files(self) -> None:
        old = self.log
        self._kills += 1
        copy_as_killed(old, self.log)

    async def _kill_while_opening(self) -> None:
        """Kill the next manager during its recovery."""
        opening = asyncio.create_task(self._open())
        for _ in range(self.chance.randrange(200)):
            await asyncio.sleep(0)
        self._copy_files()
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled():
            opening.result()
        await self._stack.aclose()

    async def _stop_server_for_a_day(self) -> None:
        time = self.server.time
        stride_s = time.stride_s
        if not self.server.world.down:
            self.server.apply(server="killed")
        time.stride_s, time.min_stride_s = HOUR_S, MINUTE_S
        await self._pause(DAY_S)
        time.stride_s, time.min_stride_s = stride_s, 0.0
        self._until += DAY_S

    async def _refresh_and_compare(self) -> None:
        """Refresh, and compare with the server, unless the state is changing."""
        for _ in range(5):
            before = self.oracle.now()
            if await self._refresh_fails():
                if await self._is_stale():
                    return
                continue
            seen, state = await self._true_state(), self.manager._reconciler.last_state
            if state is not None and (state.unreadable or state.undecided):
                continue  # an unreadable entry may hide the model
            if state is not None and not state.reports_runners:
                continue  # a fault hides which models are loaded
            if self.oracle.now() == before == seen.truth:
                await self._compare(seen)
                return
        self.steps.append("  refresh: the state is changing, or hidden")

    async def _refresh_fails(self) -> bool:
        """Refresh once; return whether that failed, which faults may cause."""
        well, last = is_healthy(self.server), self.manager._reconciler.last_state
        try:
            await self.manager.refresh()
        except OllamaError as error:
            if well:
                raise
            self.steps.append(f"  refresh: {error}")
        else:
            return False
        reached = (await self.manager.node_status()).reached
        now = self.manager._reconciler.last_state
        assert not reached or last is not now, "unrecorded"
        return True

    async def _is_stale(self) -> bool:
        """Return whether all statuses are stale; if not, none may be."""
        now = await self.manager.now()
        names = {*NAMES, *(status.name for status in now.statuses())}
        old = {now.status(name).stale_since is not None for name in names}
        reached = now.node_status().reached
        assert old == {not reached}, now.statuses()
        return not reached

    async def _true_state(self) -> Seen:
        """Return the true state, with the models that this manager is changing."""
        own = self.manager._storage.instances.own
        at_work = {
            status.name
            for status in await self.manager.all_statuses()
            for work in (status.work, status.update)
            if work is not None and work.instance == own
        }
        return Seen(
            self.manager._repository.views.position,
            self.oracle.now(),
            at_work | set(self.manager._changes.active),
        )

    async def _compare(self, seen: Seen) -> None:
        statuses = self.manager._repository.statuses()
        assert not seen.differences(reported_models(statuses)), seen.differences(
            reported_models(statuses)
        )
        assert not any(status.stale_since for status in statuses)
        self.oracle.refreshes.append(seen)

    async def _settle(self) -> None:
        """End all faults and operations; then everything must be right."""
        end_faults(self.server, self.chance)
        await self._cancel_tasks(*self._running)
        self._running.clear()
        await self._pause(self.chance.uniform(12.0, 20.0))
        await self._refresh_and_compare()
        for running in [*self.manager._pulls.all(), *self.manager._loads.all()]:
            await self.manager.cancel(running.name)
        await self._refresh_and_compare()
        assert_nothing_held(self.manager)
        statuses = await self.manager.all_statuses()
        assert not any(status.work or status.update for status in statuses)
        await assert_replay_equals_live(self.manager)
        await assert_sound(self.manager._storage.store)
        left = {task.get_name() for task in herdbook_tasks()}
        left.discard("herdbook kept head")  # runs while there are commits to save
        left.discard("herdbook watch")  # from the first operation to the end of the log
        assert left == {f"herdbook {each}" for each in BACKGROUND_TASKS}, left
