"""An hour of a herd's life, and a day in which its server is away.

A seed decides everything. All that can happen is a deck of cards: shuffled, dealt
one a turn, shuffled again, so that no hour is without any of it.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from campaign.hour.actions import AT_ONCE, BY_OTHERS, BY_US, NAMES, ActionRequest
from campaign.hour.faults import NONSENSE, answer_nonsense, calm, is_well
from campaign.hour.killing import leave_as_killed
from campaign.hour.oracle import Oracle, Seen
from proof.oracle import (
    assert_live_is_replayed,
    assert_nothing_held,
    assert_sound,
    our_tasks,
    told_by,
)
from support.manager_fixture import SandboxServer

from herdbook.core import HerdbookError, ManagerSettings, ModelManager, OllamaError

HOUR_S = 3600.0
DAY_S = 86400.0
PAUSES = ((0.0, 0.2), (0.0, 2.0), (0.0, 10.0), (10.0, 60.0))
"""From and to how many seconds may pass between two turns."""

AT_MOST = 6
"""How much may be under way before some of it is waited for."""

DAY_AWAY = "the server is away for a day"
KILLED = "Herdbook is killed"
CLOSED = "Herdbook is closed and opened"

LIVING = ("reconciler", "pinned_models", "writer")
"""The tasks that live as long as a manager."""


class Hour:
    """One hour: a seed, a server, a log, and one manager after another.

    Attributes:
        told: What was done, step by step.
    """

    manager: ModelManager

    def __init__(self, server: SandboxServer, seed: int, folder: Path) -> None:
        self.server = server
        self.chance = Random(seed)
        self.told: list[str] = []
        self.oracle = Oracle(server.world)
        self._folder = folder
        self._lives = 0
        self._life = AsyncExitStack()
        self._deck: list[ActionRequest | str] = []
        self._running: list[asyncio.Task[None]] = []
        self._until = server.time.now() + HOUR_S
        self._threads = threading.active_count()

    @property
    def log(self) -> Path:
        """The log's file; after each kill it is the copy that was left."""
        return self._folder / f"herd-{self._lives}.db"

    async def pass_by(self) -> None:
        """Live it."""
        async with self._life:
            await self._open()
            await self._live()
            await self._rest()
            await self._close()
        self.oracle.assert_log_tells_it(self.log)

    async def _live(self) -> None:
        first = [DAY_AWAY]
        while first or self.server.time.now() < self._until:
            await self._turn(first.pop() if self._lives > 1 and first else self._deal())

    def _deal(self) -> ActionRequest | str:
        if not self._deck:
            nonsense = list(NONSENSE)
            lives = [KILLED, KILLED, KILLED, CLOSED]
            self._deck = [*BY_US, *BY_OTHERS, *AT_ONCE, *nonsense, *lives]
            self.chance.shuffle(self._deck)
        return self._deck.pop()

    async def _turn(self, card: ActionRequest | str) -> None:
        name = card if isinstance(card, str) else card.__name__
        self.told.append(f"{self.server.time.now():9.2f} s  {name}")
        await self._play(card)
        await self._pause(self.chance.uniform(*self.chance.choice(PAUSES)))
        self._raise_failures()
        await self._look()
        if self.chance.random() < 0.3:
            await self._rest()

    async def _play(self, card: ActionRequest | str) -> None:
        if card == KILLED:
            await self._begin(*self.chance.choices(BY_US, k=3))
            await self._pause(self.chance.uniform(0.0, self.chance.choice([0.1, 3.0])))
            await self._kill()
        elif card == CLOSED:
            await self._rest()
            await self._close()
            await self._open()
        elif card == DAY_AWAY:
            await self._be_away_for_a_day()
        elif isinstance(card, str):
            self.told.append(f"  {answer_nonsense(self.server, self.chance, card)}")
        elif card in AT_ONCE:
            await self._careful(card)
        else:
            await self._begin(card, *self.chance.choices(BY_US + BY_OTHERS, k=2))

    async def _begin(self, *doings: ActionRequest) -> None:
        """Begin what may take its time; where much is under way, end the oldest."""
        for doing in doings:
            self.told.append(f"  {doing.__name__} begins")
            self._running.append(asyncio.create_task(self._careful(doing)))
        while len(self._running) > AT_MOST:
            await self._ended(self._running.pop(0))

    async def _careful(self, doing: ActionRequest) -> None:
        """Do it; what we raise on purpose is fine, anything else is not."""
        try:
            await doing(self)
        except (HerdbookError, TimeoutError) as error:
            self.told.append(f"  {doing.__name__}: {error}")

    async def _ended(self, *tasks: asyncio.Task[None]) -> None:
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
            max_repeated_changes=10_000,  # each is held against the truth
            max_stalls=1,
            silence_timeout_s=120.0,
            reconcile_every_s=300.0,
            lost_wait_max_s=300.0,  # a day away is long
            resume_pulls=self.chance.random() < 0.5,
            snapshot_every=40,
        )
        self.manager = await self._life.enter_async_context(
            self.server.open_manager(self.log, settings=settings)
        )

    async def _close(self) -> None:
        """Close the manager: nothing of it is left."""
        gone = weakref.ref(self.manager)
        await self._life.aclose()
        del self.manager
        gc.collect()
        assert gone() is None, gc.get_referrers(gone())
        assert our_tasks() == set()
        assert threading.active_count() == self._threads

    async def _kill(self) -> None:
        """Kill the manager in the midst of what it does, and start the next."""
        for _ in range(self.chance.randrange(40)):
            await asyncio.sleep(0)
        acknowledged = self.manager._repository.views
        end, last = acknowledged.position, acknowledged.hash
        self._leave_files()
        await self._ended(*self._running)
        self._running.clear()
        await self._close()
        await self._pause(self.chance.choice([0.0, 20.0]))
        if self.chance.random() < 0.3:
            await self._die_on_opening()
        await self._open()
        (kept,) = [
            event.hash
            async for event in self.manager._storage.store.read_stored(
                after=end - 1, limit=1
            )
        ]
        assert kept == last, "what was acknowledged is lost"

    def _leave_files(self) -> None:
        old = self.log
        self._lives += 1
        leave_as_killed(old, self.log)

    async def _die_on_opening(self) -> None:
        """Kill the next manager while it recovers from what the last one left."""
        opening = asyncio.create_task(self._open())
        for _ in range(self.chance.randrange(200)):
            await asyncio.sleep(0)
        self._leave_files()
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled():
            opening.result()
        await self._life.aclose()

    async def _be_away_for_a_day(self) -> None:
        stride_s = self.server.time.stride_s
        if not self.server.world.down:
            self.server.apply(server="killed")
        self.server.time.stride_s = HOUR_S
        await self._pause(DAY_S)
        self.server.time.stride_s = stride_s
        self._until += DAY_S

    async def _look(self) -> None:
        """Look, and hold what is told against the truth, unless that moves."""
        for _ in range(5):
            before = self.oracle.now()
            if await self._refused():
                if await self._is_stale():
                    return
                continue
            seen, look = await self._seen(), self.manager._reconciler.last_state
            if look is not None and (look.unreadable or look.undecided):
                continue  # nothing is concluded from what may be hidden there
            if self.oracle.now() == before == seen.truth:
                await self._compare(seen)
                return
        self.told.append("  look: the truth moves, or is hidden")

    async def _refused(self) -> bool:
        """Look once; tell whether that failed, as it may where something is wrong."""
        well, last = is_well(self.server), self.manager._reconciler.last_state
        try:
            await self.manager.refresh()
        except OllamaError as error:
            if well:
                raise
            self.told.append(f"  look: {error}")
        else:
            return False
        reached = (await self.manager.node_status()).reached
        now = self.manager._reconciler.last_state
        assert not reached or last is not now, "unrecorded"
        return True

    async def _is_stale(self) -> bool:
        """Tell whether all statuses say that they are old; if not, none does."""
        now = await self.manager.now()
        names = {*NAMES, *(status.name for status in now.statuses())}
        old = {now.status(name).stale_since is not None for name in names}
        reached = now.node_status().reached
        assert old == {not reached}, now.statuses()
        return not reached

    async def _seen(self) -> Seen:
        """Return the truth with what this manager says to be at work on."""
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
        assert not seen.differing(told_by(statuses)), seen.differing(told_by(statuses))
        assert not any(status.stale_since for status in statuses)
        self.oracle.story.append(seen)

    async def _rest(self) -> None:
        """End all trouble and all work; then everything has to be right."""
        calm(self.server, self.chance)
        await self._ended(*self._running)
        self._running.clear()
        await self._pause(self.chance.uniform(12.0, 20.0))
        await self._look()
        for running in [*self.manager._pulls.all(), *self.manager._loads.all()]:
            await self.manager.cancel(running.name)
        await self._look()
        assert_nothing_held(self.manager)
        statuses = await self.manager.all_statuses()
        assert not any(status.work or status.update for status in statuses)
        await assert_live_is_replayed(self.manager)
        await assert_sound(self.manager._storage.store)
        left = {task.get_name() for task in our_tasks()}
        left.discard("herdbook kept head")  # lives while there are commits to keep
        assert left == {f"herdbook {each}" for each in LIVING}, left
