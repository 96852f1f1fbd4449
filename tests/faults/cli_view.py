"""What the command line shows about a scenario, during it and afterwards."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol

from support.cli_runner import CommandResult
from support.manager_fixture import SandboxServer

from herdbook import sandbox
from herdbook.cli.app import Verb
from herdbook.cli.invocation import Invocation
from herdbook.cli.output import Screen
from herdbook.core import Fleet, ManagerSettings, ModelManager, ModelStatus

Scenario = Callable[[SandboxServer, ModelManager], Awaitable[None]]


class ScenarioResult(NamedTuple):
    """The results of a scenario that has ended.

    Attributes:
        herdbook: Runs the command on its log.
        statuses: The models as the manager's view had them at the end, by name.
    """

    herdbook: Callable[..., CommandResult]
    statuses: dict[str, ModelStatus]

    def screen(self, name: str) -> str:
        """Return what ``history`` shows a person of the newest event of a model."""
        shown = self.herdbook("history", name, "--limit", "1", "--no-refresh")
        return " ".join(shown.out.split())

    def sentences(self, name: str) -> list[str]:
        """Return the sentences of ``history``, the oldest first."""
        return [entry["sentence"] for entry in self._entries(name)]

    def last(self, name: str) -> tuple[str, str]:
        """Return the newest sentence and its cause."""
        entry = self._entries(name)[-1]
        return entry["sentence"], entry["cause"]

    def shown(self, name: str) -> Any:
        """Return a model as ``show`` prints it."""
        return self.herdbook("show", name, "--json", "--no-refresh").json

    def _entries(self, name: str) -> list[Any]:
        answer = self.herdbook("history", name, "--json", "--no-refresh")
        return sorted(answer.json, key=lambda entry: int(entry["position"]))


class InProcessInvocation(Invocation):
    """A call of the command in this process and at the time of a server."""

    def __init__(self, server: SandboxServer) -> None:
        self.said = io.StringIO()
        super().__init__(screen=Screen(self.said))
        self._server = server

    @asynccontextmanager
    async def acting(self) -> AsyncIterator[Fleet]:
        """Open the fleet of the log on the clock of the server."""
        opened = Fleet.open(self.log, ollama=self._server.url, clock=self._server.clock)
        async with opened as fleet:
            yield fleet


async def output_lines(
    server: SandboxServer, verb: Verb[[list[str]]], name: str
) -> list[str]:
    """Return the lines that a verb says of a model."""
    call = InProcessInvocation(server)
    await verb(call, [name])
    return call.said.getvalue().splitlines()


class RunScenario(Protocol):
    """Lives a story against a server; see the fixture ``lived``."""

    def __call__(
        self,
        scenario: Scenario,
        *,
        models: str = "herd",
        sandbox_settings: sandbox.Settings | None = None,
        settings: ManagerSettings | None = None,
    ) -> ScenarioResult:
        """Live it to its end."""
