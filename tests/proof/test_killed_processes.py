"""Herdbook or the server is killed at any moment: the log and the server agree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from proof import dying
from proof.truth import assert_live_is_replayed, assert_sound

from herdbook.core import ModelManager, NodeUnreachableError, PullCutError

TESTS = Path(__file__).parent.parent


@contextmanager
def sandbox_process(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a sandbox as a program of its own; give its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "herdbook.sandbox", "--models", "none", *words],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_manager_is_recovered_from(seed: int, tmp_path: Path) -> None:
    with sandbox_process("--speed", "20") as (_, url):
        done = subprocess.run(
            [
                sys.executable,
                dying.__file__,
                tmp_path / "herd.db",
                url,
                f"{seed}",
                "12",
            ],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([f"{TESTS}", *sys.path])},
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PullInterrupted" in done.stdout, done.stdout


async def pull_until(
    herd: ModelManager, share: float, process: subprocess.Popen[str]
) -> None:
    """Pull, and kill the server when so much is there."""
    async for progress in herd.pull(dying.MODEL):
        if (
            progress.total_bytes
            and progress.completed_bytes > share * progress.total_bytes
        ):
            process.send_signal(signal.SIGKILL)


async def test_killed_server_is_recovered_from(tmp_path: Path) -> None:
    path, state = tmp_path / "herd.db", str(tmp_path / "store")
    with sandbox_process("--speed", "20", "--state", state) as (process, url):
        async with ModelManager.open(path, ollama=url) as herd:
            with pytest.raises((PullCutError, NodeUnreachableError)):
                await pull_until(herd, 0.3, process)
            with pytest.raises(NodeUnreachableError):
                await herd.refresh()
            assert (await herd.get_status(dying.MODEL)).stale_since is not None
    port = url.rpartition(":")[2]
    again = sandbox_process("--speed", "20", "--state", state, "--port", port)
    with again as (_, url):
        async with ModelManager.open(path, ollama=url) as herd:
            assert (await herd.ensure_available(dying.MODEL)).stale_since is None
            await assert_live_is_replayed(herd)
            await assert_sound(herd._storage.store)
