"""Run a program that serves while a block runs, and measure its CPU time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def program(*arguments: str) -> Iterator[str]:
    """Run a program that serves, and yield its first line."""
    with program_with_pid(*arguments) as (line, _):
        yield line


@contextmanager
def program_with_pid(*arguments: str) -> Iterator[tuple[str, int]]:
    """Run a program that serves, and yield its first line and its process id."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process, which other programs do not change much."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
