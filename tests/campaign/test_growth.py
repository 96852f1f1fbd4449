"""A manager that refreshes endlessly uses no more memory and tasks."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from campaign.hour.faults import INVALID_ANSWERS
from proof.oracle import herdbook_tasks
from support.manager_fixture import SandboxServer, serve_sandbox

from herdbook.core import ManagerSettings, ModelManager, OllamaError

NAME = "plain:latest"
ROUNDS = 20
BLOCKS_PER_ROUND = 20
"""Permitted blocks of memory per round; the events of a round would be about 100."""


async def run_round(server: SandboxServer, manager: ModelManager) -> None:
    """Load, unload, delete and recreate through another client, with one failure."""
    await server.load(NAME)
    await manager.refresh()
    server.apply(answer={"path": "/api/tags", **INVALID_ANSWERS["HTML from a proxy"]})
    with suppress(OllamaError):
        await manager.refresh()
    await server.unload(NAME)
    await server.copy(NAME, "Copy:One")
    await manager.refresh()
    await server.delete("Copy:One")
    await manager.refresh()


async def blocks_after(
    rounds: int, server: SandboxServer, manager: ModelManager
) -> int:
    """Count the blocks of memory in use after a number of rounds."""
    for _ in range(rounds):
        await run_round(server, manager)
    server.world.seen.clear()  # the sandbox server lists all requests
    gc.collect()
    return sys.getallocatedblocks()


@pytest.mark.slow
async def test_memory_and_tasks_do_not_grow(tmp_path: Path) -> None:
    settings = ManagerSettings(snapshot_every=100)
    async with (
        serve_sandbox() as server,
        server.open_manager(tmp_path / "herd.db", settings=settings) as manager,
    ):
        before = await blocks_after(ROUNDS, server, manager)
        tasks = len(herdbook_tasks())

        after = await blocks_after(ROUNDS, server, manager)

        assert after - before < BLOCKS_PER_ROUND * ROUNDS
        assert len(herdbook_tasks()) == tasks
