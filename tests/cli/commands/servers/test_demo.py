"""The verb demo: a stopped demo leaves no process behind."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from herdbook.cli.invocation import Invocation
from herdbook.cli.programs import walkthrough
from herdbook.cli.programs.walkthrough import Stage, Walkthrough

STUBBORN = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1] + ".new").write_text(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(60)
"""
"""A command that does not stop when it is asked to."""


async def test_stopped_demo_ends_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walkthrough, "COMMAND", (sys.executable, "-c", STUBBORN))
    monkeypatch.setattr(walkthrough, "END_WITHIN_S", 0.1)
    stage = Stage(
        address="127.0.0.1:9",
        server="none",
        log=tmp_path / "demo.db",
        quick="",
        slow="",
        kill_at=50,
        afterwards="",
    )
    invocation = Invocation()
    invocation.json = True
    started = tmp_path / "pid"
    step = asyncio.create_task(
        Walkthrough(invocation, stage).step("Wait.", str(started))
    )
    while not started.exists():
        await asyncio.sleep(0.01)

    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step

    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
