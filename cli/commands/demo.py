"""The verb demo: the main job in one walk, with the commands that one would type.

Every step is a real call of the command in a process of its own, on a log of its
own. A real server is asked only at a terminal and with consent, and only models
that the walk pulls itself are touched there.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from herdbook.cli.app import TRY, verb
from herdbook.cli.invocation import PATIENCE_TO_READ_S, Invocation
from herdbook.cli.walkthrough import Stage, Walk, sandbox_server
from herdbook.core import ManagerSettings, ModelManager
from herdbook.projections.sentences import bytes_text

SMALL = {
    "smollm2:135m": 270_885_216,
    "qwen3:0.6b": 522_640_096,
    "tinyllama:1.1b": 637_699_456,
    "llama3.2:1b": 1_321_082_688,
}
"""Small models of Ollama's library with their sizes, bytes (its pages, 2025-11)."""

PRETEND = ("qwen3:0.6b", "llama3.1:8b")
"""What is pulled from a sandbox, where nothing is really fetched."""

PRETEND_RATE = 20e6
"""Bytes per second of each of the sandbox's connections: slow enough that progress
gets recorded, which takes 10 s, and fast enough that nobody gets bored."""


@verb("demo", TRY)
async def demo(invocation: Invocation) -> int:
    """Walk through the main job, a crash included.

    At a terminal it offers to use the Ollama that answers; else, and without one,
    it starts a sandbox. It has a log of its own.
    """
    folder = Path(tempfile.mkdtemp(prefix="herdbook-demo-"))
    async with _stage(invocation, folder / "demo.db") as stage:
        return await _walk(Walk(invocation, stage))


@asynccontextmanager
async def _stage(invocation: Invocation, log: Path) -> AsyncIterator[Stage]:
    """Choose the server: the one that answers, if we may, else a sandbox."""
    found = await _real(invocation, log) if invocation.attended else None
    if found is not None:
        yield found
        return
    async with sandbox_server(rate=PRETEND_RATE) as address:
        quick, slow = PRETEND
        yield Stage(
            address=address,
            what="a sandbox that pretends to be Ollama",
            log=log,
            quick=quick,
            slow=slow,
            kill_at=72,
            afterwards="To go on with your own Ollama: herdbook ls. To play on: "
            "herdbook sandbox --port 11500, and beside it "
            "herdbook --ollama 127.0.0.1:11500 --db play.db ls",
        )


async def _real(invocation: Invocation, log: Path) -> Stage | None:
    """Return the real server, if one answers and the person agrees."""
    settings = ManagerSettings(refresh_timeout_s=PATIENCE_TO_READ_S)
    opened = ModelManager.open(
        ":memory:", ollama=invocation.ollama, settings=settings, node="demo"
    )
    async with opened as manager:
        node = await manager.node_status()
        there = {status.name for status in await manager.all_statuses()}
    absent = [name for name in SMALL if name not in there]
    if not node.reached or len(absent) < 2:
        return None
    quick, slow = absent[:2]
    size = bytes_text(SMALL[quick] + SMALL[slow])
    question = (
        f"Ollama {node.server_version} answers at {node.url}. May the demo pull "
        f"{quick} and {slow} there ({size})? Otherwise it uses a sandbox"
    )
    if not invocation.agreed(question):
        return None
    return Stage(
        address=node.url,
        what=f"the Ollama {node.server_version} at {node.url}",
        log=log,
        quick=quick,
        slow=slow,
        kill_at=50,
        afterwards=f"To remove what was pulled: herdbook rm {quick}, "
        f"herdbook rm {slow}. To go on: herdbook ls",
    )


async def _walk(walk: Walk) -> int:
    stage = walk.stage
    walk.say(f"This runs against {stage.what}, with the log {stage.log}.")
    await walk.step("What is there?", "ls")
    await walk.step("Which model for code?", "recommend", "coding")
    await walk.step("Fetch a small one.", "pull", stage.quick)
    await walk.step("Into memory.", "load", stage.quick)
    await walk.step("Say that it was used.", "use", stage.quick, "--for", "a demo")
    await walk.step("What happened to it?", "history", stage.quick)
    await _crash(walk)
    code = await walk.step("Has anybody altered the log?", "verify")
    walk.say(stage.afterwards)
    return code


async def _crash(walk: Walk) -> None:
    slow = walk.stage.slow
    killed = await walk.pull_and_kill(
        "Now a crash: this pull is killed in the middle (kill -9).", slow
    )
    if not killed:
        walk.say("It was over before it could be killed.")
        return
    then = await walk.position()
    await walk.step("The next start finds out.", "history", slow)
    await walk.step("A later pull goes on from there.", "pull", slow)
    await walk.step("The whole story:", "history", slow)
    await walk.step(
        "And the moment of the crash, replayed from the log.", "as-of", f"#{then}"
    )
