"""Run a sandbox as a program until a signal arrives.

Invariant: standard output holds only the address, so that a script can read it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import msgspec

from herdbook.sandbox.clock import Clock, ManualClock, RealClock
from herdbook.sandbox.persistence import persist
from herdbook.sandbox.registry.registry import Behaviour
from herdbook.sandbox.server import serve
from herdbook.sandbox.settings import PROFILES, Settings
from herdbook.sandbox.world import World


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a sandbox.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
        models: Initial content of the store: ``none``, ``herd``, ``some`` or ``use``.
        clock: ``real``, or ``manual``, which only ``/sandbox/clock`` moves.
        speed: Simulated seconds per real second of a real clock.
        token_s: Simulated seconds per token of an answer.
        memory: Bytes for all runners together; None for no limit.
        vram: Bytes of these on a graphics card.
        registry_rate: Bytes per second of one connection to the registry.
        profile: The version to simulate: ``current`` or ``older``.
        state: Folder that holds the store between runs.
        environment: Variables of the real server, such as ``OLLAMA_KEEP_ALIVE``.
    """

    host: str = "127.0.0.1"
    port: int = 0
    models: str = "some"
    clock: str = "real"
    speed: float = 1.0
    token_s: float = Settings().token_s
    memory: int | None = None
    vram: int = 0
    registry_rate: float | None = None
    profile: str = "current"
    state: Path | None = None
    environment: dict[str, str] = {}


def run_sandbox(options: Options) -> None:
    """Serve a sandbox until SIGTERM or SIGINT."""
    asyncio.run(_serve(options))


def world_of(options: Options, clock: Clock | None = None) -> World:
    """Make the world that the options describe.

    Args:
        options: The options.
        clock: Clock to use in place of the one that the options name.
    """
    world = World(
        models=options.models,
        clock=clock or _clock(options),
        settings=Settings.from_environment(
            options.environment,
            memory_bytes=options.memory,
            vram_bytes=options.vram,
            token_s=options.token_s,
        ),
        profile=PROFILES[options.profile],
        usual=Behaviour(rate=options.registry_rate),
    )
    if options.state is not None:
        persist(options.state, world)
    return world


def _clock(options: Options) -> Clock:
    if options.clock == "manual":
        return ManualClock()
    return RealClock(speed=options.speed)


async def _serve(options: Options) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    world = world_of(options)
    async with serve(world, host=options.host, port=options.port) as address:
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        await stopped.wait()
