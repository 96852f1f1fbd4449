"""Operations of a manager of a sandbox server, on a clock that advances by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.manager_fixture import SandboxServer, serve_sandbox

from herdbook.core import Fleet
from herdbook.service.auth.tokens import Principal, Role
from herdbook.service.operations.client_operations import ClientOperations
from herdbook.service.operations.operation import Kind, Operation, OperationRequest

ANN = Principal(name="ann", role=Role.OPERATE)
BEN = Principal(name="ben", role=Role.OPERATE)
INSTALLED = "gemma3:4b"
SLOW = "llama3.1:8b"


class OperationsFixture:
    """The only node of a log with its operations, and the bytes they downloaded."""

    def __init__(self, server: SandboxServer, fleet: Fleet) -> None:
        self.server = server
        self.fleet = fleet
        self.manager = fleet.home
        self.fetched = 0
        self.operations = ClientOperations(fleet, server.clock, fetched=self._count)

    def _count(self, more: int) -> None:
        self.fetched += more

    async def start(
        self,
        kind: Kind,
        model: str | None = None,
        *,
        by: Principal = ANN,
        key: str | None = None,
    ) -> Operation:
        request = OperationRequest(kind=kind, model=model)
        return await self.operations.start(request, by, key=key)

    def restarted(self, fleet: Fleet | None = None) -> ClientOperations:
        """Return operations that know what the log knows.

        Args:
            fleet: The nodes as another instance opened them; None for this one.
        """
        return ClientOperations(
            fleet or self.fleet, self.server.clock, fetched=lambda _: None
        )

    async def wait_for(self, operation: Operation) -> Operation:
        """Wait for the end of an operation."""
        await self.server.wait_until(lambda: not operation.running)
        return operation


@asynccontextmanager
async def open_operations(log: Path) -> AsyncIterator[OperationsFixture]:
    """Open the node of a server with models, with its log in a file."""
    async with serve_sandbox("some") as server, server.open_fleet(log) as fleet:
        opened = OperationsFixture(server, fleet)
        yield opened
        await opened.operations.close()


@asynccontextmanager
async def open_two_instances(
    log: Path,
) -> AsyncIterator[tuple[OperationsFixture, ClientOperations]]:
    """Open the node twice; yield the first, and the operations of the second."""
    async with (
        open_operations(log) as fixture,
        fixture.server.open_fleet(log, refresh=False) as other,
    ):
        yield fixture, fixture.restarted(other)
