"""Twenty clients at once, seed by seed: nothing invented, lost, hung or unexpected.

``HERDBOOK_CAMPAIGN`` sets how many seeds; with more than one, each has 300 models.
"""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from campaign.crowd.callers import Local
from campaign.crowd.crowd import Crowd
from campaign.crowd.many_models import fill
from support.manager_fixture import serve_sandbox

from herdbook import sandbox
from herdbook.core import ManagerSettings

SEEDS = int(os.environ.get("HERDBOOK_CAMPAIGN", "1"))
MODELS, COMMANDS = (300, 600) if SEEDS > 1 else (40, 100)
SERVER = sandbox.Settings(max_loaded=3, keep_alive_s=60.0)
SETTINGS = ManagerSettings(
    reconcile_every_s=1.0,
    progress_every_s=0.2,
    max_concurrent_pulls=4,
    max_repeated_changes=10_000,  # what is held back is late
)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("others", [False, True], ids=["alone", "among others"])
@pytest.mark.parametrize("managers", [1, 2])
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_crowd_finds_only_what_happened(
    seed: int, managers: int, others: bool, tmp_path: Path
) -> None:
    log = tmp_path / "herd.db"
    async with (
        serve_sandbox("none", settings=SERVER) as server,
        AsyncExitStack() as stack,
    ):
        crowd = Crowd(server, fill(server.world, MODELS), seed, others=others)
        callers = [
            Local(
                await stack.enter_async_context(
                    server.open_manager(log, settings=SETTINGS)
                )
            )
            for _ in range(managers)
        ]
        await crowd.run(callers, COMMANDS)
        await crowd.rest(callers, log)
    told = f"seed {seed}, {managers} managers, {crowd.summary()}"
    sys.stdout.write(f"{told}\n")
    assert not crowd.found, "\n".join([told, *crowd.found])
