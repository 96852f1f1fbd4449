"""How operations end when a server hangs, or a cancel comes late."""

from __future__ import annotations

from pathlib import Path

import pytest
from desk import ANN, BEN, HERE, SLOW, Desk, desk
from herd import told

from herdbook.service.operations import (
    Kind,
    OperationRequest,
)


def hang(at: Desk, path: str) -> None:
    """Have the server answer nothing any more at a path."""
    at.place.did(answer={"path": path, "hang": True, "times": 0})


@pytest.mark.parametrize("way", ["cancel", "stop"])
async def test_pull_whose_model_cannot_be_seen_ends_at_once_when_it_is_to(
    tmp_path: Path, way: str
) -> None:
    async with desk(tmp_path / "herd.db") as at:
        hang(at, "/api/tags")
        pull = await at.begin(Kind.PULL, SLOW)
        before = at.place.asked("/api/tags")
        await at.place.until(lambda: at.place.asked("/api/tags") > before)
        asked_at = at.place.clock.monotonic()

        if way == "cancel":
            await at.operations.cancel(pull.id, BEN)
        else:
            await at.operations.close()

        assert at.place.clock.monotonic() - asked_at < 1
        assert not pull.running
        at.place.did(answer=None)
        await at.herd.refresh()
        assert (await told(at.herd, SLOW))[-1] == "CapabilitiesDetected"
        assert await at.herd.is_available(SLOW)


async def test_load_whose_runner_was_lost_ends_at_once_when_it_is_to(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path / "herd.db") as at:
        await at.ended(await at.begin(Kind.LOAD, HERE))
        at.place.did(runner_dies_saying="out of memory")
        hang(at, "/api/ps")
        before = at.place.asked("/api/ps")
        request = OperationRequest(kind=Kind.LOAD, model=HERE, options={"num_ctx": 64})
        await at.operations.start(request, ANN)
        await at.place.until(lambda: at.place.asked("/api/ps") > before)
        asked_at = at.place.clock.monotonic()

        await at.operations.close()

        assert at.place.clock.monotonic() - asked_at < 1
