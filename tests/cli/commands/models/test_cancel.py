"""The verb ``cancel``: operations of this and other processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.cli_runner import Herdbook, SandboxThread


def test_pull_of_another_process_is_cancelled(
    herdbook: Herdbook, server: SandboxThread, log: Path
) -> None:
    server.apply(registry={"rate": 1e4})
    with subprocess.Popen(
        [sys.executable, "-m", "herdbook.cli", "pull", "gemma3:27b", "--json"],
        env={**os.environ, "OLLAMA_HOST": server.address, "HERDBOOK_DB": str(log)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()

        answer = herdbook("cancel", "gemma3:27b")

        _, errors = other.communicate(timeout=20)
    assert (answer.code, answer.out) == (
        0,
        "pull of gemma3:27b cancelled. Pull it again to resume\n",
    )
    assert other.returncode == 1
    assert json.loads(errors)["code"] == "cancelled"
    history = herdbook("history", "gemma3:27b", "--json").json
    assert [entry["type"] for entry in history][:2] == [
        "PullCancelled",
        "CancelRequested",
    ]


def test_nothing_to_cancel_is_not_a_failure(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("cancel", "smollm2:135m")

    assert (answer.code, answer.out) == (
        0,
        "smollm2:135m has no running operation\n",
    )
    assert herdbook("cancel", "smollm2:135m", "--json").json == {
        "name": "smollm2:135m",
        "activity": None,
        "result": "not_running",
    }
