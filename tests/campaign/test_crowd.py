"""Twenty concurrent clients: no event is invented or lost, no command hangs.

``HERDBOOK_CAMPAIGN`` sets the number of seeds; with more than one, each has 300
models.
"""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from campaign.crowd.callers import LocalCaller
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
    max_repeated_changes=10_000,  # held-back changes are late
)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("others", [False, True], ids=["alone", "among others"])
@pytest.mark.parametrize("managers", [1, 2])
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_crowd_finds_no_invented_or_lost_event(
    seed: int, managers: int, others: bool, tmp_path: Path
) -> None:
    log = tmp_path / "herd.db"
    async with (
        serve_sandbox("none", settings=SERVER) as server,
        AsyncExitStack() as stack,
    ):
        crowd = Crowd(server, fill(server.world, MODELS), seed, others=others)
        callers = [
            LocalCaller(
                await stack.enter_async_context(
                    server.open_manager(log, settings=SETTINGS)
                )
            )
            for _ in range(managers)
        ]
        await crowd.run(callers, COMMANDS)
        await crowd.settle(callers, log)
    summary = f"seed {seed}, {managers} managers, {crowd.summary()}"
    sys.stdout.write(f"{summary}\n")
    assert not crowd.found, "\n".join([summary, *crowd.found])
