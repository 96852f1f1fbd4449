"""A whole command: load the model, decide, append durably, know the result.

Ours is ``await manager.mark_used(name)``. The peer is synchronous, so an asynchronous
program calls it in a thread; one thread is the fastest, since SQLite has one writer.
With few models the callers wait for each other: commands on one model are decided one
after another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

import msgspec

from benchmarks.dataset import first_facts, names, open_manager
from benchmarks.measure import Row, at_least, at_most, interleave, percentile
from benchmarks.peer import PeerManager, default_peer, tuned_peer
from benchmarks.sizes import Sizes
from herdbook.core import ModelManager
from herdbook.events.recorded import Cause

Command: TypeAlias = Callable[[str], Awaitable[object]]

FEW = 5
"""A number of models that is small for a hundred callers."""

PEERS = ("eventsourcing, tuned", "eventsourcing")

GOALS = {10: at_least(9), 100: at_least(15)}
"""Goals compared with the tuned peer, by number of callers."""

LATE_GOALS = {100: at_most(6)}
"""Goals for the slowest of a hundred commands, by number of callers, ms."""


class Load:
    """Callers that send commands one after another.

    Attributes:
        latencies: Duration of each command in all runs, s.
    """

    def __init__(
        self, command: Command, models: list[str], callers: int, each: int
    ) -> None:
        self.latencies: list[float] = []
        self._command = command
        self._models = models
        self._callers = callers
        self._each = each
        self._turn = 0

    async def run(self) -> float:
        """Return the seconds per command over all callers."""
        started = perf_counter()
        await asyncio.gather(*(self._call(number) for number in range(self._callers)))
        self._turn += self._each
        return (perf_counter() - started) / (self._callers * self._each)

    async def _call(self, number: int) -> None:
        for turn in range(self._turn, self._turn + self._each):
            # A single caller alternates between models; many use one each.
            place = turn if self._callers == 1 else number
            started = perf_counter()
            await self._command(self._models[place % len(self._models)])
            self.latencies.append(perf_counter() - started)


async def run(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure commands by one caller and by many."""
    models = names(sizes.models)
    async with AsyncExitStack() as stack:
        manager = await stack.enter_async_context(open_manager(folder / "commands.db"))
        await _discover(manager, models)
        peers: list[Command] = []
        for make, file in ((tuned_peer, "tuned.db"), (default_peer, "default.db")):
            peer = make(folder / file)
            stack.callback(peer.close)
            thread = stack.enter_context(ThreadPoolExecutor(1))
            peers.append(_threaded(peer, thread))
            for name in models:
                peer.discover(name)
        commands: Sequence[Command] = (manager.mark_used, *peers)
        rows: list[Row] = []
        for callers, each in sizes.commands:
            rows += await _compare(commands, models, callers, each, sizes.rounds)
        callers, each = max(sizes.commands)
        # Without a cache the peer would read longer and longer streams here.
        few, cached = models[:FEW], commands[:2]
        rows += await _compare(cached, few, callers, each, sizes.rounds)
    return rows


async def _discover(manager: ModelManager, models: list[str]) -> None:
    for name in models:
        await manager._repository.record(name, first_facts(name), cause=Cause.OBSERVED)  # noqa: SLF001 - no server is needed


def _threaded(peer: PeerManager, thread: ThreadPoolExecutor) -> Command:
    loop = asyncio.get_running_loop()

    def use(name: str) -> Awaitable[object]:
        return loop.run_in_executor(thread, peer.use, name)

    return use


async def _compare(
    commands: Sequence[Command],
    models: list[str],
    callers: int,
    each: int,
    rounds: int,
) -> list[Row]:
    loads = [Load(command, models, callers, each) for command in commands]
    ours, *theirs = await interleave(rounds, *(load.run for load in loads))
    late, *theirs_late = (percentile(load.latencies, 99) for load in loads)
    what, goal, late_goal = _subject(callers, len(models)), None, None
    if len(models) >= callers:
        goal, late_goal = GOALS.get(callers), LATE_GOALS.get(callers)
    rows = [
        Row(what=what, unit="µs", ours=ours * 1e6, beside=peer, theirs=figure * 1e6)
        for peer, figure in zip(PEERS, theirs, strict=False)
    ]
    rows[0] = msgspec.structs.replace(rows[0], goal=goal)
    if callers > 1:
        rows.append(
            Row(
                what=f"{what}, p99",
                unit="ms",
                ours=late * 1e3,
                beside=PEERS[0],
                theirs=theirs_late[0] * 1e3,
                goal=late_goal,
            )
        )
    return rows


def _subject(callers: int, models: int) -> str:
    if callers == 1:
        return "command, alone"
    on_few = f" on {models} models" if models < callers else ""
    return f"command, {callers} callers{on_few}"
