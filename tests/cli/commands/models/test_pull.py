from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from support.cli_runner import Herdbook, SandboxThread

from herdbook.cli.commands.models.pull import PullFollower, left_behind
from herdbook.cli.invocation import Invocation
from herdbook.cli.output import Screen
from herdbook.cli.render.progress import JsonMeter, PlainMeter, bar_line, figures
from herdbook.core import ModelManager, PullProgress

HALF = PullProgress(
    completed_bytes=6_600_000_000,
    total_bytes=17_400_000_000,
    rate_bytes_s=41_000_000,
    eta_s=263,
)


def test_pull_shows_how_it_ended(herdbook: Herdbook, server: SandboxThread) -> None:
    answer = herdbook("pull", "qwen3:0.6b")

    assert answer.code == 0
    assert answer.out.splitlines()[-1].startswith("qwen3:0.6b pulled in ")


def test_pull_of_a_present_model_is_an_update(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    answer = herdbook("pull", "smollm2:135m")

    assert answer.out.splitlines()[-1] == "smollm2:135m up to date"


def test_pull_in_json_prints_one_object_per_line(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    lines = herdbook("pull", "qwen3:0.6b", "--json").json_lines

    assert lines[0]["state"] == "pulling"
    assert lines[-1]["state"] == "done"
    assert {*lines[-1]} == {
        "name",
        "state",
        "completed_bytes",
        "total_bytes",
        "fetched_bytes",
        "rate_bytes_s",
        "eta_s",
        "status",
    }


def test_pull_that_fails_says_what_to_do(
    herdbook: Herdbook, server: SandboxThread
) -> None:
    server.apply(disk_bytes=1_000_000)

    answer = herdbook("pull", "mistral:7b")

    assert answer.code == 1
    assert answer.err == (
        "herdbook: mistral:7b cannot be pulled: the server's disk is full. "
        "Free space on the server, then pull it again   (exit 1)\n"
    )


def test_pull_without_a_server_records_nothing(
    herdbook: Herdbook, no_server: None
) -> None:
    assert herdbook("pull", "qwen3:0.6b").code == 5
    assert herdbook("log", "--json").json == []


def stopped_in_the_middle(
    server: SandboxThread, log: Path, *words: str
) -> tuple[int, str]:
    """Return exit code and output of a pull that got Ctrl-C after its first byte."""
    process = subprocess.Popen(
        [sys.executable, "-m", "herdbook.cli", "pull", "gemma3:27b", "--json"],
        env={**os.environ, "OLLAMA_HOST": server.address, "HERDBOOK_DB": str(log)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["completed_bytes"]:
            break
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    process.stdout.close()
    return process.wait(20), rest


def test_ctrl_c_cancels_a_pull_and_reports_the_downloaded_part(
    serving: Callable[..., SandboxThread], log: Path, herdbook: Herdbook
) -> None:
    server = serving(speed=1.0, rate=2e7)

    code, rest = stopped_in_the_middle(server, log)

    result = json.loads(rest.splitlines()[-1])
    assert code == 1
    assert result["state"] == "cancelled"
    assert 0 < result["completed_bytes"] < result["total_bytes"]
    assert "pull cancelled at " in herdbook("history", "gemma3:27b", "--no-refresh").out


def test_cancelled_pull_shows_what_the_server_keeps() -> None:
    assert left_behind(HALF) == (
        "cancelled at 6.6 of 17.4 GB (37%). "
        "The server keeps the downloaded part. Run the pull again to resume."
    )
    assert left_behind(None) == "cancelled before the first byte."


async def test_leaving_the_pull_of_another_instance_reports_that_it_continues(
    serving: Callable[..., SandboxThread], log: Path
) -> None:
    address = serving(speed=1.0, rate=1e5).address
    stream = io.StringIO()
    leaving = Invocation(screen=Screen(stream))
    async with (
        ModelManager.open(log, ollama=address, actor="api:agents") as other,
        ModelManager.open(log, ollama=address) as mine,
        aclosing(other.pull("gemma3:27b")) as pulling,
    ):
        await anext(pulling)

        await PullFollower(leaving, mine, "gemma3:27b").write_cancelled()

    assert stream.getvalue() == (
        "no longer following; the pull continues for api:agents\n"
    )


def test_progress_shows_share_size_rate_and_time_left() -> None:
    assert figures(HALF) == "37%   6.6 of 17.4 GB   41 MB/s   4 min left"


def test_progress_shows_what_the_server_does_at_the_end() -> None:
    done = PullProgress(
        completed_bytes=10, total_bytes=10, status="verifying sha256 digest"
    )

    assert figures(done) == "100%   10 of 10 B   verifying sha256 digest"


def test_progress_before_the_first_layer_is_the_status_of_the_server() -> None:
    begun = PullProgress(completed_bytes=0, status="pulling manifest")

    assert figures(begun) == "pulling manifest"


@pytest.mark.parametrize(
    ("width", "drawn"),
    [
        (
            100,
            "a:1b  ━━━━━━━━━━━━────────────────────  37%   6.6 of 17.4 GB   41 MB/s",
        ),
        (64, "a:1b  ━━━━━──────"),
        (52, "a:1b   37%   6.6 of 17.4 GB   41 MB/s   4 min left"),
        (31, "a:1b   37%   6.6 of 17.4 GB"),
        (5, "a:1b   37%"),
    ],
)
def test_bar_line_fits_the_terminal_and_keeps_the_name(width: int, drawn: str) -> None:
    text = "".join(piece.text for piece in bar_line("a:1b", HALF, width))

    assert text.startswith(drawn[:12])
    assert len(text) < max(width, 12)


def test_plain_progress_prints_a_line_every_few_seconds() -> None:
    stream, times = io.StringIO(), iter([0.0, 1.0, 5.0, 6.0, 10.0])
    meter = PlainMeter(Screen(stream), "a:1b", lambda: next(times))

    for _ in range(4):
        meter.show(HALF)

    line = "a:1b  37%   6.6 of 17.4 GB   41 MB/s   4 min left\n"
    assert stream.getvalue() == line * 2


def test_json_progress_prints_the_first_object_immediately() -> None:
    stream, times = io.StringIO(), iter([0.0, 0.1, 0.6])
    meter = JsonMeter(Screen(stream), "a:1b", lambda: next(times))

    for _ in range(3):
        meter.show(HALF)

    assert len(stream.getvalue().splitlines()) == 2
