"""Operations over a manager of a pretend server, on a clock that nobody waits for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.manager_fixture import Place, served

from herdbook.core import ModelManager
from herdbook.service.auth.tokens import Principal, Role
from herdbook.service.operations.operation import Kind, Operation, OperationRequest
from herdbook.service.operations.operations import Operations

ANN = Principal(name="ann", role=Role.OPERATE)
BEN = Principal(name="ben", role=Role.OPERATE)
HERE = "gemma3:4b"
SLOW = "llama3.1:8b"


class Desk:
    """A manager with its operations, and what was fetched."""

    def __init__(self, place: Place, herd: ModelManager) -> None:
        self.place = place
        self.herd = herd
        self.fetched = 0
        self.operations = Operations(herd, place.clock, fetched=self._count)

    def _count(self, more: int) -> None:
        self.fetched += more

    async def begin(
        self,
        kind: Kind,
        model: str | None = None,
        *,
        by: Principal = ANN,
        key: str | None = None,
    ) -> Operation:
        """Begin an operation."""
        request = OperationRequest(kind=kind, model=model)
        return await self.operations.start(request, by, key=key)

    async def ended(self, operation: Operation) -> Operation:
        """Return an operation once it is over."""
        await self.place.until(lambda: not operation.running)
        return operation


@asynccontextmanager
async def desk(log: Path) -> AsyncIterator[Desk]:
    """Open a manager of a server with models, whose log is in a file."""
    async with served("some") as place, place.herd(log) as herd:
        opened = Desk(place, herd)
        yield opened
        await opened.operations.close()
