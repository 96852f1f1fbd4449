"""The verb ``demo``: a tour of the main commands.

Each step runs the real command in its own process, on a separate log. A real server
is used only with consent, and the demo changes only models that it pulled itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from herdbook.cli.app import TRY, verb
from herdbook.cli.invocation import READ_TIMEOUT_S, Invocation
from herdbook.cli.programs.walkthrough import Stage, Walkthrough, sandbox_server
from herdbook.core import ManagerSettings, ModelManager
from herdbook.projections.sentences import bytes_text

SMALL = {
    "smollm2:135m": 270_885_216,
    "qwen3:0.6b": 522_640_096,
    "tinyllama:1.1b": 637_699_456,
    "llama3.2:1b": 1_321_082_688,
}
"""Small models of Ollama's library, with their sizes in bytes (its pages, 2025-11)."""

SANDBOX_MODELS = ("qwen3:0.6b", "llama3.1:8b")
"""Models that the demo pulls from a sandbox, which downloads nothing."""

SANDBOX_RATE = 20e6
"""Bytes per second of each simulated download connection: slow enough that progress is
recorded, which takes 10 s, and fast enough for a short demo."""


@verb("demo", TRY)
async def demo(invocation: Invocation) -> int:
    """Run a tour of the main commands, including a crash.

    Uses a sandbox with a log of its own. On a terminal, it offers to use your Ollama
    server instead.
    """
    folder = Path(tempfile.mkdtemp(prefix="herdbook-demo-"))
    async with _stage(invocation, folder / "demo.db") as stage:
        return await _walk(Walkthrough(invocation, stage))


@asynccontextmanager
async def _stage(invocation: Invocation, log: Path) -> AsyncIterator[Stage]:
    """Choose the server: the real one with consent, or a sandbox."""
    found = await _real(invocation, log) if invocation.attended else None
    if found is not None:
        yield found
        return
    async with sandbox_server(rate=SANDBOX_RATE) as address:
        quick, slow = SANDBOX_MODELS
        yield Stage(
            address=address,
            server="a sandbox (a simulated Ollama server)",
            log=log,
            quick=quick,
            slow=slow,
            kill_at=72,
            afterwards="To use your own Ollama server: herdbook ls. To try more: "
            "herdbook sandbox --port 11500, and in another terminal "
            "herdbook --ollama 127.0.0.1:11500 --db play.db ls",
        )


async def _real(invocation: Invocation, log: Path) -> Stage | None:
    """Return the real server, if one answers and the user agrees."""
    settings = ManagerSettings(refresh_timeout_s=READ_TIMEOUT_S)
    opened = ModelManager.open(
        ":memory:", ollama=invocation.ollama, settings=settings, node="demo"
    )
    async with opened as manager:
        node = await manager.node_status()
        known = {status.name for status in await manager.all_statuses()}
    absent = [name for name in SMALL if name not in known]
    if not node.reached or len(absent) < 2:
        return None
    quick, slow = absent[:2]
    size = bytes_text(SMALL[quick] + SMALL[slow])
    question = (
        f"Ollama {node.server_version} answers at {node.url}. Pull "
        f"{quick} and {slow} there ({size})? Otherwise the demo uses a sandbox"
    )
    if not invocation.agreed(question):
        return None
    return Stage(
        address=node.url,
        server=f"Ollama {node.server_version} at {node.url}",
        log=log,
        quick=quick,
        slow=slow,
        kill_at=50,
        afterwards=f"To delete the pulled models: herdbook rm {quick} {slow}. "
        "To continue: herdbook ls",
    )


async def _walk(walk: Walkthrough) -> int:
    stage = walk.stage
    walk.say(f"The demo uses {stage.server} and the log {stage.log}.")
    code = await _steps(
        walk,
        ("List the models.", "ls"),
        ("Which model for coding?", "recommend", "coding"),
        ("Pull a small model.", "pull", stage.quick),
        ("Load it into memory.", "load", stage.quick),
        ("Record that it was used.", "use", stage.quick, "--for", "a demo"),
        ("Show its history.", "history", stage.quick),
    )
    code = code or await _crash(walk)
    code = code or await walk.step("Check that the log was not changed.", "verify")
    if code:
        walk.say("The demo ends here, because this command failed.")
    walk.say(stage.afterwards)
    return code


async def _steps(walk: Walkthrough, *steps: tuple[str, *tuple[str, ...]]) -> int:
    """Run commands until one fails; return its exit code, or 0."""
    for text, *words in steps:
        if code := await walk.step(text, *words):
            return code
    return 0


async def _crash(walk: Walkthrough) -> int:
    """Kill a pull and resume it; return the exit code of the command that failed."""
    slow = walk.stage.slow
    code = await walk.pull_and_kill(
        "A crash: this pull is killed halfway (kill -9).", slow
    )
    if code == 0:
        walk.say("The pull completed before it could be killed.")
    if code >= 0:
        return code
    then = await walk.position()
    return await _steps(
        walk,
        ("The next command records the interruption.", "history", slow),
        ("Run the pull again to resume.", "pull", slow),
        ("Its complete history:", "history", slow),
        (
            "The models at the time of the crash, replayed from the log.",
            "as-of",
            f"#{then}",
        ),
    )
