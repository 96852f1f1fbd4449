"""Herdbook or the server is killed at a random point: the log matches the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
from proof import killing
from proof.oracle import assert_replay_equals_live, assert_sound
from support.sandbox_program import sandbox_process

from herdbook.core import Cause, ModelManager, NodeUnreachableError, PullCutError
from herdbook.events.facts import PullInterrupted, PullProgressed, PullStarted

TESTS = Path(__file__).parent.parent
EMPTY = ("--models", "none")
"""Options of a sandbox without models."""


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([f"{TESTS}", *sys.path])}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_log_is_recovered_after_a_kill_of_the_manager(
    seed: int, tmp_path: Path
) -> None:
    with sandbox_process(*EMPTY, "--speed", "20") as (_, url):
        done = subprocess.run(
            [
                sys.executable,
                killing.__file__,
                tmp_path / "herd.db",
                url,
                f"{seed}",
                "12",
            ],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env=ENVIRONMENT,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PullInterrupted" in done.stdout, done.stdout


async def pull_until(
    manager: ModelManager, share: float, process: subprocess.Popen[str]
) -> None:
    """Pull, and kill the server once it has an amount of data."""
    async for progress in manager.pull(killing.MODEL):
        if (
            progress.total_bytes
            and progress.completed_bytes > share * progress.total_bytes
        ):
            process.send_signal(signal.SIGKILL)


async def test_state_is_correct_after_a_kill_of_the_server(tmp_path: Path) -> None:
    path, state = tmp_path / "herd.db", str(tmp_path / "store")
    fast = ("--speed", "20")
    with sandbox_process(*EMPTY, *fast, "--state", state) as (process, url):
        async with ModelManager.open(path, ollama=url) as manager:
            with pytest.raises((PullCutError, NodeUnreachableError)):
                await pull_until(manager, 0.3, process)
            with pytest.raises(NodeUnreachableError):
                await manager.refresh()
            assert (await manager.get_status(killing.MODEL)).stale_since is not None
    port = url.rpartition(":")[2]
    again = sandbox_process(*EMPTY, *fast, "--state", state, "--port", port)
    with again as (_, url):
        async with ModelManager.open(path, ollama=url) as manager:
            assert (await manager.ensure_available(killing.MODEL)).stale_since is None
            await assert_replay_equals_live(manager)
            await assert_sound(manager._storage.store)


def manager_process(path: Path, url: str) -> subprocess.Popen[bytes]:
    """Start a manager in a separate process."""
    words = [sys.executable, killing.__file__, str(path), url]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, env=ENVIRONMENT)


async def kill_in_pull(manager: ModelManager, process: subprocess.Popen[bytes]) -> None:
    """Kill a manager after it has recorded a part of its pull."""
    async with aclosing(manager.events(after=0)) as events:
        async for event in events:
            if isinstance(event.data, PullProgressed):
                break
    process.kill()
    process.wait()


async def test_manager_continues_the_pull_of_a_killed_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "herd.db"
    with sandbox_process(*EMPTY, "--speed", "3") as (_, url):
        async with ModelManager.open(path, ollama=url) as manager:
            await kill_in_pull(manager, manager_process(path, url))
            assert (await manager.ensure_available(killing.MODEL)).present
            log = [event async for event in manager._storage.store.read_all()]
            started, restarted = [e for e in log if isinstance(e.data, PullStarted)]
            (ended,) = [e for e in log if isinstance(e.data, PullInterrupted)]
            assert started.position < ended.position < restarted.position
            assert ended.cause is Cause.RECOVERY
            await assert_replay_equals_live(manager)
            await assert_sound(manager._storage.store)
