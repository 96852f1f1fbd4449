"""Twenty clients that send random commands for the same models at the same time.

A seed decides what each client sends, and how long requests and answers take. The
commands go through one manager or service, or through several on one log.
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
from campaign.crowd.log_checker import LogChecker

from herdbook.core import HerdbookError
from herdbook.sandbox import World

CLIENTS = 20
POPULAR = 8
"""Number of models that most commands are about."""

TIMEOUT_S = 900.0
"""Seconds after which a command counts as hung."""

STALE_S = 20.0
"""Maximum age of Herdbook's knowledge of a server, in seconds: refreshes take time."""

EXPECTED_ERRORS = ("busy", "cancelled")
"""Errors that any command may get while other clients use the model."""


class WaitingClock(Protocol):
    """The part of a clock that the clients need."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Return a block that raises ``TimeoutError`` if it takes longer."""


class ServerAccess(Protocol):
    """A sandbox server and access to it.

    Attributes:
        world: The state of the server.
        clock: The clock that all use.
    """

    world: World

    @property
    def clock(self) -> WaitingClock:
        """The clock that all use."""

    async def request(self, method: str, path: str, **body: object) -> httpx.Response:
        """Send a request to the server as another program would."""


class RefusedError(Exception):
    """A service refused a request, or its operation failed.

    Attributes:
        code: The code of the error.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        super().__init__(detail)


class Crowd:
    """Clients of callers that share one log.

    Args:
        server: The server.
        names: Its models, the frequently used ones first.
        seed: The seed of all random choices.
        others: Whether other programs change the server too.
        slowest_s: Maximum duration of a request or its answer, seconds.
        max_repeated_changes: Number of changes of a model that Herdbook records before
            it holds some back and may be late; None if it never does.

    Attributes:
        outcomes: Number of commands that ended, by name and outcome.
        hung: Commands that did not end in time.
        lost: Acknowledged changes that the log lacks, and differences at rest.
        unexpected: Errors that no caller should get.
        acknowledged: Tags of the uses and changes that were acknowledged.
    """

    def __init__(
        self,
        server: ServerAccess,
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
        self.checker = LogChecker(self.journal)
        self.outcomes: Counter[str] = Counter()
        self.hung: list[str] = []
        self.lost: list[str] = []
        self.unexpected: list[str] = []
        self.acknowledged: set[str] = set()
        self._others = others
        self._slowest_s = slowest_s
        self._max_repeated_changes = max_repeated_changes
        self._tags = 0

    @property
    def found(self) -> list[str]:
        """All problems, the most serious first."""
        return [*self.checker.invented, *self.lost, *self.hung, *self.unexpected]

    def summary(self) -> str:
        """Return the counts in one line."""
        commands, events = self.outcomes.total(), self.checker.counts.total()
        return (
            f"{CLIENTS} clients, {len(self.names)} models, {commands} commands, "
            f"{events} events: {len(self.checker.invented)} invented, "
            f"{len(self.lost)} lost, {len(self.hung)} hung, "
            f"{len(self.unexpected)} unexpected errors"
        )

    def tag(self) -> str:
        """Return a text that no other command uses."""
        self._tags += 1
        return f"tag-{self._tags}"

    async def run(self, callers: Sequence[Caller], commands: int) -> None:
        """Let all clients send a number of commands concurrently."""
        self.server.world.delays = lambda _path: (self._delay(), self._delay())
        left = iter(range(commands))

        async def client(number: int) -> None:
            caller = callers[number % len(callers)]
            for _ in left:
                await self._send_one(caller)
                if self.chance.random() < 0.5:
                    await self.server.clock.sleep(self.chance.uniform(0.0, 2.0))

        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(client(number))

    async def settle(self, callers: Sequence[Caller], log: Path) -> None:
        """End all operations, refresh, and compare log and callers with the server."""
        self.server.world.delays = lambda _path: (0.0, 0.0)
        for caller in callers:
            await caller.end_all()
        for caller in callers:
            await caller.refresh()
        self.checker.read(log)
        self.lost += [
            f"{tag} is {self.checker.tags[tag]} times in the log"
            for tag in sorted(self.acknowledged)
            if self.checker.tags[tag] != 1
        ]
        self.acknowledged.clear()
        self.checker.forget()
        for caller in callers:
            self.lost += await self._differences(caller)
            self.lost += [f"{name} is busy at rest" for name in await caller.busy()]

    async def _differences(self, caller: Caller) -> list[str]:
        """Return the differences between a caller's answers and the server."""
        while True:
            true = self.journal.present_models()
            await caller.refresh()
            reported = await caller.models()
            if self.journal.present_models() == true:  # before a runner expires
                return [
                    f"{name}: reported {reported.get(name)}, true {true.get(name)}"
                    for name in sorted(true.keys() | reported.keys())
                    if reported.get(name) != true.get(name) and not self._is_late(name)
                ]

    def _is_late(self, name: str) -> bool:
        """Return whether changes of a model may have been held back."""
        most = self._max_repeated_changes
        return most is not None and self.checker.drifts[name] >= most

    def _delay(self) -> float:
        if self.chance.random() < 0.6:
            return 0.0
        slowest = self.chance.choice([0.01, 0.2, 1.0]) * self._slowest_s
        return self.chance.uniform(0.0, slowest)

    async def _send_one(self, caller: Caller) -> None:
        """Send one command, and check how it ends."""
        others = self._others and self.chance.random() < 0.15
        command: Command = self.chance.choice(BY_OTHERS if others else BY_US)
        popular = self.chance.random() < 0.7
        name = self.chance.choice(self.names[:POPULAR] if popular else self.names)
        began = self.journal.now()
        what = command.__name__
        try:
            async with self.server.clock.timeout(TIMEOUT_S):
                await command(self, caller, name)
        except TimeoutError:
            self.hung.append(f"{what} {name} from {began:%H:%M:%S.%f}")
        except (HerdbookError, RefusedError) as error:
            self.outcomes[f"{what}: {error.code}"] += 1
            if not self._is_expected(error, what, name, began):
                problem = f"{error.code}: {error}"
                self.unexpected.append(
                    f"{what} {name} at {began:%H:%M:%S.%f}: {problem}"
                )
        else:
            self.outcomes[what] += 1

    def _is_expected(
        self,
        error: HerdbookError | RefusedError,
        what: str,
        name: str,
        began: datetime,
    ) -> bool:
        """Return whether a command may end with an error, given what happened."""
        if error.code == "model_not_found":
            since = began - timedelta(seconds=STALE_S)
            return self.journal.was_absent(name, since) or self._is_late(name)
        if error.code == "load_failed":  # and its event is checked
            return self.journal.was_unloaded(name, began)
        if error.code in {"bad_answer", "pull_failed"}:  # deleted right after its pull
            is_gone = "although the pull succeeded" in str(error)
            return is_gone and self.journal.was_absent(name, began)
        if error.code == "illegal_transition":  # a model in error cannot be used
            return what == "use" and "is error" in str(error)
        return error.code in EXPECTED_ERRORS
