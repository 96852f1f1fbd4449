"""Random simulated hours with faults, which test reconciler and recovery.

``HERDBOOK_CAMPAIGN`` sets the number of hours; ``make campaign`` runs twenty.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from campaign.hour.hour import Hour
from support.manager_fixture import serve_sandbox

from herdbook import sandbox

SEEDS = int(os.environ.get("HERDBOOK_CAMPAIGN", "1"))
SERVER = sandbox.Settings(max_loaded=2, keep_alive_s=120.0)
LAST_STEPS = 40


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_random_hour_ends_in_the_true_state(seed: int, tmp_path: Path) -> None:
    async with serve_sandbox("herd", settings=SERVER) as server:
        hour = Hour(server, seed, tmp_path)
        try:
            await hour.run()
        except BaseException as error:
            error.add_note(f"seed {seed}, its last steps:")
            error.add_note("\n".join(hour.steps[-LAST_STEPS:]))
            raise
