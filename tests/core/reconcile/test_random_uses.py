"""Observed uses against what happened: random hours, with two managers on one log."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support.manager_fixture import SandboxServer, recorded_events, serve_sandbox

from herdbook.core import Cause, ModelManager
from herdbook.events.facts import ModelUsed
from herdbook.events.recorded import RecordedEvent
from herdbook.sandbox.go_time import FOREVER_S

NAMES = ("llama3.1:8b", "llama3.2:1b")
KEEP_ALIVES = (None, None, None, "30s", "5m", "1h", -1)
ROUNDING = timedelta(microseconds=2)
TOLERANCE = timedelta(milliseconds=2)


class Hour:
    """Random uses, loads and refreshes, and when requests of others ended."""

    def __init__(
        self, server: SandboxServer, managers: list[ModelManager], seed: int
    ) -> None:
        self.ended: dict[str, dict[datetime, datetime]] = {name: {} for name in NAMES}
        self._server = server
        self._managers = managers
        self._random = random.Random(seed)

    async def step(self) -> None:
        choose = self._random.choice
        name, manager = choose(NAMES), choose(self._managers)
        kept = choose(KEEP_ALIVES)
        more = {} if kept is None else {"keep_alive": kept}
        match self._random.randrange(12):
            case 0:
                await manager.load(name, keep_alive=kept)
            case 1:
                await self._server.load(name, **more)  # looks like a use if loaded
                self.note(name)
            case 2:
                await manager.unload(name)
            case 3 | 4 | 5:
                count = self._random.randint(1, 30)
                options = {"num_predict": count}
                await self._server.load(name, prompt="x", options=options, **more)
                self.note(name)
            case 6:
                await manager.mark_used(name, purpose="reported")
            case 7 | 8:
                await self._server.clock.sleep(self._random.uniform(0, 90))
            case _:
                await manager.refresh()

    def note(self, name: str) -> None:
        """Note the expiry that a request of others has led to, and when it ended."""
        for runner in self._server.world.runners.listed():
            if runner.wanted.name == name and runner.expires is not None:
                wall = self._server.time.wall
                ended = runner.expires - min(runner.session_s, FOREVER_S)
                self.ended[name][wall(runner.expires)] = wall(ended)


def observed(events: list[RecordedEvent]) -> list[RecordedEvent]:
    return [
        event
        for event in events
        if event.type == "ModelUsed" and event.cause is Cause.OBSERVED
    ]


@pytest.mark.parametrize("seed", range(6))
async def test_every_observed_use_happened_once(seed: int, tmp_path: Path) -> None:
    log = tmp_path / "herd.db"
    async with (
        serve_sandbox() as server,
        server.open_manager(log) as one,
        server.open_manager(log) as two,
    ):
        hour = Hour(server, [one, two], seed)
        for _ in range(150):
            await hour.step()
        recorded = 0
        for name in NAMES:
            found = observed(await recorded_events(one, name))
            left = dict(hour.ended[name])
            for event in found:
                assert isinstance(event.data, ModelUsed)
                within = timedelta(seconds=float(event.data.uncertainty_s or 0))
                expires_at = event.data.expires_at
                assert isinstance(expires_at, datetime)
                (expiry,) = (at for at in left if abs(at - expires_at) <= ROUNDING)
                ended = left.pop(expiry)
                earliest = event.occurred_at - within
                assert earliest - TOLERANCE <= ended <= event.occurred_at + TOLERANCE
                assert event.occurred_at <= event.recorded_at
            recorded += len(found)
        assert recorded > 1
        assert not (await one.verify()).findings


@pytest.mark.parametrize("seed", range(4))
async def test_last_use_is_always_found_within_its_uncertainty(seed: int) -> None:
    chance = random.Random(seed)
    async with serve_sandbox() as server, server.open_manager() as manager:
        hour = Hour(server, [manager], seed)
        await server.load(NAMES[0], keep_alive="1h")
        await manager.refresh()
        for _ in range(30):
            if chance.random() < 0.5:
                await server.load(NAMES[0], prompt="x", options={"num_predict": 3})
                hour.note(NAMES[0])
            await server.clock.sleep(chance.uniform(1, 10))
            await manager.refresh()
            if chance.random() < 0.2:
                await server.clock.sleep(65)
                await manager.refresh()
                status = await manager.get_status(NAMES[0])
                if not hour.ended[NAMES[0]]:
                    continue
                last = max(hour.ended[NAMES[0]].values())
                assert status.last_used_at is not None
                within = timedelta(seconds=status.last_used_within_s)
                earliest = status.last_used_at - within - TOLERANCE
                assert earliest <= last <= status.last_used_at + TOLERANCE
