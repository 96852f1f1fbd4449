"""The sandbox as a program of its own, for as long as a block runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

#: In seconds; it takes a fraction of one where nothing else runs.
LONGEST_STOP = 10.0


@contextmanager
def sandbox_process(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the sandbox, and tell its address; no variable of the person reaches it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OLLAMA_")}
    command = [sys.executable, "-m", "herdbook.sandbox", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=kept | dict(environment or {})
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
            process.terminate()
            process.wait(LONGEST_STOP)
        finally:
            process.kill()
