"""Instances, nodes and a database that are killed: nothing is lost or doubled.

``HERDBOOK_CAMPAIGN_MINUTES`` sets the duration, ``HERDBOOK_CAMPAIGN_SEED`` the seed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from campaign.fleet.campaign import Campaign, minutes
from support.postgres.fixture import NAMED

SEED = int(os.environ.get("HERDBOOK_CAMPAIGN_SEED", "1"))
SHORT_S = 3.0
MINUTES = minutes()


@pytest.mark.slow
@pytest.mark.timeout(int(MINUTES * 60) + 400)
@pytest.mark.skipif(
    NAMED is not None, reason="HERDBOOK_POSTGRES names a server, which is not killed"
)
async def test_fleet_loses_and_doubles_nothing(tmp_path: Path) -> None:
    instances, nodes, clients = (3, 3, 12) if MINUTES else (2, 2, 4)
    async with Campaign.opened(
        SEED, tmp_path, instances=instances, nodes=nodes
    ) as campaign:
        await campaign.run(MINUTES * 60 or SHORT_S, clients)
        summary = f"seed {SEED}, {campaign.summary()}"
        sys.stdout.write(f"{summary}\n")
        assert not campaign.wrong, "\n".join(
            [summary, *campaign.wrong[:50], campaign.outputs()]
        )
        assert campaign.journal.acknowledged
