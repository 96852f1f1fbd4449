"""A manager that looks for ever keeps nothing of it but its log."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from campaign.hour.faults import NONSENSE
from proof.oracle import our_tasks
from support.manager_fixture import SandboxServer, serve_sandbox

from herdbook.core import ManagerSettings, ModelManager, OllamaError

NAME = "plain:latest"
ROUNDS = 20
BLOCKS_A_ROUND = 20
"""Blocks of memory; whoever kept the events of a round would keep nearly a hundred."""


async def a_round(server: SandboxServer, manager: ModelManager) -> None:
    """Load, unload, delete and make behind its back; fail once between."""
    await server.load(NAME)
    await manager.refresh()
    server.apply(answer={"path": "/api/tags", **NONSENSE["HTML from a proxy"]})
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
    """Count the blocks of memory in use after so many rounds."""
    for _ in range(rounds):
        await a_round(server, manager)
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
        tasks = len(our_tasks())

        after = await blocks_after(ROUNDS, server, manager)

        assert after - before < BLOCKS_A_ROUND * ROUNDS
        assert len(our_tasks()) == tasks
