"""Changes that come too often are held back, and are right in the end."""

from __future__ import annotations

import pytest
from support.manager_fixture import recorded_events, serve_manager, serve_sandbox

from herdbook.core import ManagerSettings
from herdbook.core.clock import ManualClock
from herdbook.core.reconcile.flap_damping import (
    FIRST_HOLD_S,
    LASTING_SHARE,
    LONGEST_HOLD_S,
    SWEPT_EVERY,
    Change,
    Damper,
)
from herdbook.events import facts
from herdbook.events.facts import HeldBack

NAME, SOURCE = "llava:7b", "plain:latest"
EVERY_S = 5


class Flapping:
    """A thing that changes as a test says, refreshed every few seconds."""

    def __init__(self, budget: int = 3) -> None:
        self.clock = ManualClock()
        self.damper = Damper(self.clock, budget=budget)
        self.taken: list[tuple[float, object, HeldBack | None]] = []
        self.known: object = None

    async def refresh(self, state: object) -> bool:
        """See a state; return whether it is recorded."""
        await self.clock.advance(EVERY_S)
        self.damper.begin()
        change = Change("a:1", "presence", state)
        if state == self.known or not self.damper.may_record(change):
            return False
        held = self.damper.held_back(change)
        self.taken.append((self.clock.monotonic(), state, held))
        self.damper.recorded(change)
        self.known = state
        return True


async def test_changes_within_the_budget_are_recorded_immediately() -> None:
    thing = Flapping()
    assert [await thing.refresh(state) for state in "aba"] == [True] * 3
    assert [held for _, _, held in thing.taken] == [None] * 3


async def test_flapping_is_recorded_with_growing_delays_and_a_count() -> None:
    thing = Flapping()
    day = 24 * 3600
    for number in range(day // EVERY_S):
        await thing.refresh(number)
    assert len(thing.taken) < 3 + 4 + day / LONGEST_HOLD_S + 1
    _, _, held = thing.taken[-1]
    assert held == HeldBack(changes=int(LONGEST_HOLD_S) // EVERY_S - 1, seconds=3840.0)
    left_out = sum(held.changes for _, _, held in thing.taken if held)
    assert left_out + len(thing.taken) <= day // EVERY_S


async def test_flapping_between_two_states_is_held_back() -> None:
    thing = Flapping()
    for number in range(1000):
        await thing.refresh(number % 2)
    assert len(thing.taken) < 12


async def test_lasting_state_is_recorded_soon() -> None:
    thing = Flapping()
    for number in range(10):
        await thing.refresh(number)
    since = thing.clock.monotonic()
    while not await thing.refresh("in the end"):
        assert (
            thing.clock.monotonic() - since < FIRST_HOLD_S * LASTING_SHARE + 2 * EVERY_S
        )
    assert thing.known == "in the end"


async def test_budget_recovers_after_a_quiet_time() -> None:
    thing = Flapping()
    for number in range(10):
        await thing.refresh(number)
    while thing.known != "rest":
        await thing.refresh("rest")
    await thing.clock.advance(LONGEST_HOLD_S)
    assert [await thing.refresh(state) for state in "aba"] == [True] * 3


async def test_idle_things_are_forgotten() -> None:
    clock = ManualClock()
    damper = Damper(clock, budget=3)
    for number in range(1500):
        change = Change(f"m{number}:1", "memory", 1)
        assert damper.may_record(change)
        damper.recorded(change)
    await clock.advance(LONGEST_HOLD_S)
    for _ in range(SWEPT_EVERY):
        damper.begin()
    assert not damper._tracks


async def test_flapping_model_does_not_fill_the_log_and_ends_correct() -> None:
    async with serve_manager(settings=ManagerSettings(max_repeated_changes=4)) as (
        server,
        manager,
    ):
        before = (await manager.now()).position
        for number in range(60):
            if number % 2:
                await server.delete("flap:1")
            else:
                await server.copy(SOURCE, "flap:1")
            await manager.refresh()
            await server.clock.sleep(EVERY_S)
        events = await recorded_events(manager, after=before)
        assert len(events) < 20
        await server.copy(SOURCE, "flap:1")
        for _ in range(30):
            await manager.refresh()
            await server.clock.sleep(EVERY_S)
        status = await manager.get_status("flap:1")
        assert status.present
        assert status.can("completion")
        counts = [
            one.data.held_back
            for one in await recorded_events(manager, after=before)
            if isinstance(one.data, facts.DriftFact)
        ]
        assert any(isinstance(one, HeldBack) and one.changes > 9 for one in counts)


async def test_flapping_runner_does_not_fill_the_log() -> None:
    async with serve_manager(settings=ManagerSettings(max_repeated_changes=4)) as (
        server,
        manager,
    ):
        before = (await manager.now()).position
        for _ in range(30):
            await server.load(NAME)
            await manager.refresh()
            await server.unload(NAME)
            await server.clock.sleep(1)
            await manager.refresh()
            status = await manager.get_status(NAME)
            assert status.state == "available" or status.stale_since, "or it says so"
        assert len(await recorded_events(manager, after=before)) < 12
        for _ in range(30):
            await manager.refresh()
            await server.clock.sleep(EVERY_S)
        settled = await manager.get_status(NAME)
        assert (settled.state, settled.stale_since) == ("available", None)


async def test_flapping_version_does_not_fill_the_log() -> None:
    async with serve_sandbox("herd") as server:
        settings = ManagerSettings(max_repeated_changes=4)
        async with server.open_manager(settings=settings) as manager:
            before = (await manager.now()).position
            for number in range(40):
                body = f'{{"version":"{number}"}}'
                server.apply(
                    answer={"path": "/api/version", "status": 200, "body": body}
                )
                await manager.refresh()
                await server.clock.sleep(EVERY_S)
            assert len(await recorded_events(manager, after=before)) < 8


@pytest.mark.parametrize("version", ['"' + "x" * 10**6 + '"', "7", "null", '"a\\nb"'])
async def test_version_that_is_not_a_short_text_is_not_recorded(version: str) -> None:
    async with serve_manager() as (server, manager):
        known = (await manager.node_status()).server_version
        body = f'{{"version":{version}}}'
        server.apply(answer={"path": "/api/version", "status": 200, "body": body})
        before = (await manager.now()).position
        await manager.refresh()
        assert await recorded_events(manager, after=before) == []
        assert (await manager.node_status()).server_version == known
