"""Twenty clients of a real service, or of two on one log, over HTTP.

``HERDBOOK_CAMPAIGN_MINUTES`` sets the duration. A longer run also checks that memory
and descriptors of the services do not grow.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import httpx
import pytest
from campaign.crowd.callers import ServiceCaller
from campaign.crowd.crowd import CLIENTS, Crowd
from campaign.crowd.many_models import fill
from support.service_program import ServiceProcess, run_service

from herdbook import sandbox
from herdbook.core import ManagerSettings, SystemClock

MINUTES = float(os.environ.get("HERDBOOK_CAMPAIGN_MINUTES", "0"))
SEED = int(os.environ.get("HERDBOOK_CAMPAIGN_SEED", "1"))
MODELS, COMMANDS = (300, 1000) if MINUTES else (40, 60)
SERVER = sandbox.Settings(max_loaded=3, keep_alive_s=60.0)
MAX_POLL_S = 0.5

WARM_UP = 3
"""Rounds before the memory of a service is measured."""

FEW_DESCRIPTORS = 10
"""Permitted number of additional open descriptors after the warm-up."""

GROWTH = 1.5
"""Permitted memory at the end, relative to that after the warm-up. A service keeps
data for each model of the log, but not for each event."""


class Use(NamedTuple):
    """The resources of a process.

    Attributes:
        memory_bytes: Resident memory.
        descriptors: Number of open files and sockets.
    """

    memory_bytes: int
    descriptors: int


class RealTimeServer:
    """A sandbox server in real time."""

    def __init__(self, world: sandbox.World, http: httpx.AsyncClient) -> None:
        self.world = world
        self.clock = SystemClock()
        self._http = http

    async def request(self, method: str, path: str, **body: object) -> httpx.Response:
        """Send a request to the server as another program would."""
        return await self._http.request(method, path, json=body or None)


def use_of(program: ServiceProcess) -> Use:
    """Return the resources that a service uses."""
    process = Path(f"/proc/{program.process.pid}")
    pages = int((process / "statm").read_text().split()[1])
    descriptors = sum(1 for _ in (process / "fd").iterdir())
    return Use(pages * os.sysconf("SC_PAGE_SIZE"), descriptors)


@asynccontextmanager
async def served(models: int) -> AsyncIterator[tuple[RealTimeServer, str, list[str]]]:
    """Serve many models; yield the server, its address and their names."""
    world = sandbox.World(clock=sandbox.RealClock(), settings=SERVER)
    async with (
        sandbox.serve(world) as url,
        httpx.AsyncClient(base_url=url, timeout=None, trust_env=False) as http,
    ):
        yield RealTimeServer(world, http), url, fill(world, models)


@pytest.mark.slow
@pytest.mark.timeout(int(MINUTES * 60) + 300)
@pytest.mark.parametrize("services", [1, 2] if MINUTES else [2])
async def test_crowd_of_a_service_finds_no_invented_or_lost_event(
    services: int, tmp_path: Path
) -> None:
    log, uses = tmp_path / "herd.db", list[list[Use]]()
    async with served(MODELS) as (server, url, names), AsyncExitStack() as stack:
        crowd = Crowd(
            server,
            names,
            SEED,
            others=True,
            slowest_s=MAX_POLL_S,
            max_repeated_changes=ManagerSettings().max_repeated_changes,
        )
        programs = [await _start(stack, log, url) for _ in range(services)]
        callers = [
            ServiceCaller(await stack.enter_async_context(_client(program)))
            for program in programs
        ]
        until = monotonic() + MINUTES * 60
        while not uses or (monotonic() < until and not crowd.found):
            await crowd.run(callers, COMMANDS)
            await crowd.settle(callers, log)
            uses.append([use_of(program) for program in programs])
    failed = [one for caller in callers for one in caller.failed]
    summary = (
        f"seed {SEED}, {services} services, {len(uses)} rounds, {crowd.summary()}, "
        f"{len(failed)} answers from 500 on; memory and descriptors "
        f"{[tuple(one) for one in uses[0]]} to {[tuple(one) for one in uses[-1]]}"
    )
    sys.stdout.write(f"{summary}\n")
    assert not [*crowd.found, *failed], "\n".join([summary, *crowd.found, *failed])
    _assert_flat(uses)


async def _start(stack: AsyncExitStack, log: Path, url: str) -> ServiceProcess:
    """Start a service without blocking the sandbox, which runs in this loop."""
    running = run_service(log, url)
    program = await asyncio.to_thread(running.__enter__)
    stack.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
    return program


def _client(program: ServiceProcess) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=CLIENTS)
    return httpx.AsyncClient(
        base_url=program.address, timeout=60, trust_env=False, limits=limits
    )


def _assert_flat(uses: list[list[Use]]) -> None:
    """Assert that resources do not grow after the warm-up."""
    if len(uses) <= WARM_UP:
        return
    for at_first, at_last in zip(uses[WARM_UP], uses[-1], strict=True):
        assert at_last.descriptors <= at_first.descriptors + FEW_DESCRIPTORS, uses
        assert at_last.memory_bytes <= at_first.memory_bytes * GROWTH, uses
