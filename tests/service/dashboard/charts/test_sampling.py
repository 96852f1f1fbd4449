"""Samples of a log for the time slider, when the log cannot be read for a while."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.manager_fixture import SandboxServer, serve_sandbox

from herdbook.core import ModelManager, StoreError
from herdbook.service.dashboard.charts.sampling import (
    Samples,
    positions_of,
    recorded_at,
)

MODEL = "plain:latest"


async def use(manager: ModelManager, times: int) -> int:
    """Use a model; return the end of the log."""
    for _ in range(times):
        await manager.mark_used(MODEL)
    return (await manager.head()).position


async def failing_read(
    server: SandboxServer, folder: Path
) -> tuple[list[int], list[int], list[int]]:
    """Return the positions sampled before, and after a read that failed; and all."""
    log, away = folder / "herd.db", folder / "away.db"
    async with server.open_manager(log) as manager:
        samples = Samples()
        first = await samples.read(manager, await use(manager, 5))
        head = await use(manager, 5)
        log.rename(away)
        with pytest.raises(StoreError):
            await samples.read(manager, head)
        away.rename(log)
        second = await samples.read(manager, head)
        times = [await recorded_at(manager, one.position) for one in second]

    assert [one.at for one in second] == times
    return (
        [one.position for one in first],
        [one.position for one in second],
        positions_of(head),
    )


async def test_failed_read_is_complete_when_repeated(tmp_path: Path) -> None:
    async with serve_sandbox("herd") as server:
        first, second, every = await failing_read(server, tmp_path)

    assert second == every
    assert set(first) < set(second)


async def test_empty_log_has_no_samples(tmp_path: Path) -> None:
    async with (
        serve_sandbox("herd") as server,
        server.open_manager(tmp_path / "herd.db", refresh=False) as manager,
    ):
        assert await Samples().read(manager, 0) == []
        assert await recorded_at(manager, 0) is None
        assert await recorded_at(manager, 99) is None
