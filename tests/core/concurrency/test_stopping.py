"""A program ends within a limited time after a signal, whatever it is doing."""

from __future__ import annotations

import signal
import subprocess
import sys
from time import monotonic
from typing import Final

import pytest

PROGRAM: Final = """
import asyncio, sys, time
from herdbook.core.concurrency.stopping import stoppable

async def endless():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(60)

async def main():
    with stoppable(within_s=0.5) as stop:
        print("begun", flush=True)
        {body}
    print("ended", stop.requested.is_set(), flush=True)

asyncio.run(main())
"""


TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize(
    ("number", "body", "code"),
    [
        pytest.param(TERM, "await asyncio.sleep(60)", 0, id="start"),
        pytest.param(
            INT, "stop.started(); await stop.requested.wait()", 0, id="serves"
        ),
        pytest.param(TERM, "await endless()", 1, id="slow-end"),
        pytest.param(INT, "while True: pass", 1, id="one-long-step"),
    ],
)
def test_program_ends_after_a_signal(number: int, body: str, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "begun\n"
        sent = monotonic()
        program.send_signal(number)
        output, _ = program.communicate(timeout=20)

    assert program.returncode == code
    assert ("ended True" in output) == (code == 0)
    assert monotonic() - sent < 10
