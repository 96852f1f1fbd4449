"""A manager that looks for ever keeps nothing of it but its log."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from campaign.faults import NONSENSE
from proof.oracle import our_tasks
from support.manager_fixture import Place, served

from herdbook.core import ManagerSettings, ModelManager, OllamaError

NAME = "plain:latest"
ROUNDS = 20
BLOCKS_A_ROUND = 20
"""Blocks of memory; whoever kept the events of a round would keep nearly a hundred."""


async def a_round(place: Place, herd: ModelManager) -> None:
    """Load, unload, delete and make behind its back; fail once between."""
    await place.loads(NAME)
    await herd.refresh()
    place.did(answer={"path": "/api/tags", **NONSENSE["HTML from a proxy"]})
    with suppress(OllamaError):
        await herd.refresh()
    await place.unloads(NAME)
    await place.copies(NAME, "Copy:One")
    await herd.refresh()
    await place.deletes("Copy:One")
    await herd.refresh()


async def blocks_after(rounds: int, place: Place, herd: ModelManager) -> int:
    """Count the blocks of memory in use after so many rounds."""
    for _ in range(rounds):
        await a_round(place, herd)
    place.world.seen.clear()  # the pretend server remembers who asked
    gc.collect()
    return sys.getallocatedblocks()


@pytest.mark.slow
async def test_memory_and_tasks_do_not_grow(tmp_path: Path) -> None:
    settings = ManagerSettings(snapshot_every=100)
    async with (
        served() as place,
        place.herd(tmp_path / "herd.db", settings=settings) as herd,
    ):
        before = await blocks_after(ROUNDS, place, herd)
        tasks = len(our_tasks())

        after = await blocks_after(ROUNDS, place, herd)

        assert after - before < BLOCKS_A_ROUND * ROUNDS
        assert len(our_tasks()) == tasks
