"""Twenty clients at once: each does what it likes to the same models.

A seed decides what each client asks for, and how long requests to the server and its
answers are under way. What is asked goes through one manager or one service, or
through several on one log.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Protocol

import httpx
from campaign.crowd.commands import BY_OTHERS, BY_US, Caller, Command
from campaign.crowd.journal import Journal
from campaign.crowd.judge import Judge

from herdbook.core import HerdbookError
from herdbook.sandbox import World

CLIENTS = 20
HOT = 8
"""How many models most of the clients want most of the time."""

PATIENCE_S = 900.0
"""After so many seconds a command counts as hung."""

STALE_S = 20.0
"""How old Herdbook's knowledge of a server may be, in seconds: refreshes take time."""

FAIR = ("busy", "cancelled")
"""Refusals that any command may meet where others are at work."""


class WaitingClock(Protocol):
    """What the clients need of time."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a block that raises ``TimeoutError`` if it takes longer."""


class Surroundings(Protocol):
    """A sandbox's server, and the ways to it.

    Attributes:
        world: the server's inside.
        clock: the time of all.
    """

    world: World

    @property
    def clock(self) -> WaitingClock:
        """The time of all."""

    async def request(self, method: str, path: str, **body: object) -> httpx.Response:
        """Ask the server as another program would."""


class RefusedError(Exception):
    """A service refused, or its operation failed.

    Attributes:
        code: the error's stable word.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        super().__init__(detail)


class Crowd:
    """Clients of callers that share one log.

    Args:
        place: the server.
        names: its models, the wanted ones first.
        seed: decides everything that chance decides.
        others: whether other programs change the server as well.
        slowest_s: how long a request or its answer is under way at most, seconds.
        max_repeated_changes: how many changes of a model Herdbook records before it
            holds some back, and may be late; None where it never does.

    Attributes:
        asked: how many commands ended, by name and how.
        hung: the commands that did not end in time.
        unexpected: the errors that no caller should get.
        acknowledged: what was acknowledged, by the tag that its event carries.
    """

    def __init__(
        self,
        server: Surroundings,
        names: Sequence[str],
        seed: int,
        *,
        others: bool = False,
        slowest_s: float = 3.0,
        max_repeated_changes: int | None = None,
    ) -> None:
        self.server = server
        self.names = names
        self.chance = Random(seed)
        self.journal = Journal(server.world)
        self.judge = Judge(self.journal)
        self.asked: Counter[str] = Counter()
        self.hung: list[str] = []
        self.lost: list[str] = []
        self.unexpected: list[str] = []
        self.acknowledged: set[str] = set()
        self._others = others
        self._slowest_s = slowest_s
        self._changes_at_once = max_repeated_changes
        self._tags = 0

    @property
    def found(self) -> list[str]:
        """Everything that is wrong, the worst first."""
        return [*self.judge.invented, *self.lost, *self.hung, *self.unexpected]

    def summary(self) -> str:
        """Return the counts in one line."""
        commands, events = self.asked.total(), self.judge.counts.total()
        return (
            f"{CLIENTS} clients, {len(self.names)} models, {commands} commands, "
            f"{events} events: {len(self.judge.invented)} invented, "
            f"{len(self.lost)} lost, {len(self.hung)} hung, "
            f"{len(self.unexpected)} unexpected errors"
        )

    def tag(self) -> str:
        """Return a word that no other command carries."""
        self._tags += 1
        return f"tag-{self._tags}"

    async def run(self, callers: Sequence[Caller], commands: int) -> None:
        """Have all clients ask for so many commands together."""
        self.server.world.delays = lambda _path: (self._delay(), self._delay())
        left = iter(range(commands))

        async def client(number: int) -> None:
            caller = callers[number % len(callers)]
            for _ in left:
                await self._one(caller)
                if self.chance.random() < 0.5:
                    await self.server.clock.sleep(self.chance.uniform(0.0, 2.0))

        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(number))

    async def rest(self, callers: Sequence[Caller], log: Path) -> None:
        """End all work, refresh, and hold the log and all callers against the truth."""
        self.server.world.delays = lambda _path: (0.0, 0.0)
        for caller in callers:
            await caller.end_all()
        for caller in callers:
            await caller.refresh()
        self.judge.read(log)
        self.lost += [
            f"{tag} is {self.judge.tags[tag]} times in the log"
            for tag in sorted(self.acknowledged)
            if self.judge.tags[tag] != 1
        ]
        self.acknowledged.clear()
        self.judge.forget()
        for caller in callers:
            self.lost += await self._differing(caller)
            self.lost += [f"{name} is busy at rest" for name in await caller.busy()]

    async def _differing(self, caller: Caller) -> list[str]:
        """Return what a caller is told at rest that is not so."""
        while True:
            truth = self.journal.truth()
            await caller.refresh()
            told = await caller.told()
            if self.journal.truth() == truth:  # no runner has expired meanwhile
                return [
                    f"{name}: told {told.get(name)}, true is {truth.get(name)}"
                    for name in sorted(truth.keys() | told.keys())
                    if told.get(name) != truth.get(name) and not self._is_late(name)
                ]

    def _is_late(self, name: str) -> bool:
        """Return whether changes of a model may have been held back."""
        most = self._changes_at_once
        return most is not None and self.judge.drifts[name] >= most

    def _delay(self) -> float:
        if self.chance.random() < 0.6:
            return 0.0
        slowest = self.chance.choice([0.01, 0.2, 1.0]) * self._slowest_s
        return self.chance.uniform(0.0, slowest)

    async def _one(self, caller: Caller) -> None:
        """Ask for one thing, and judge how that ends."""
        others = self._others and self.chance.random() < 0.15
        command: Command = self.chance.choice(BY_OTHERS if others else BY_US)
        hot = self.chance.random() < 0.7
        name = self.chance.choice(self.names[:HOT] if hot else self.names)
        began = self.journal.now()
        what = command.__name__
        try:
            async with self.server.clock.timeout(PATIENCE_S):
                await command(self, caller, name)
        except TimeoutError:
            self.hung.append(f"{what} {name} from {began:%H:%M:%S.%f}")
        except (HerdbookError, RefusedError) as error:
            self.asked[f"{what}: {error.code}"] += 1
            if not self._is_fair(error, what, name, began):
                told = f"{error.code}: {error}"
                self.unexpected.append(f"{what} {name} at {began:%H:%M:%S.%f}: {told}")
        else:
            self.asked[what] += 1

    def _is_fair(
        self,
        error: HerdbookError | RefusedError,
        what: str,
        name: str,
        began: datetime,
    ) -> bool:
        """Return whether a command may end so, by what truly happened."""
        if error.code == "model_not_found":
            since = began - timedelta(seconds=STALE_S)
            return self.journal.was_absent(name, since) or self._is_late(name)
        if error.code == "load_failed":  # and its event is judged
            return self.journal.was_unloaded(name, began)
        if error.code in {"bad_answer", "pull_failed"}:  # deleted right after its pull
            is_gone = "although the pull succeeded" in str(error)
            return is_gone and self.journal.was_absent(name, began)
        if error.code == "illegal_transition":  # what is in error is not used
            return what == "use" and "is error" in str(error)
        return error.code in FAIR
