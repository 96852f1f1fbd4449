"""The sandbox as a process, while a block runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

#: Maximum seconds for a stop; on an idle machine it takes a fraction of one.
LONGEST_STOP = 10.0


@contextmanager
def sandbox_process(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the sandbox; yield its process and address. OLLAMA_* is not inherited."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("OLLAMA_")}
    variables = inherited | dict(environment or {})
    command = [sys.executable, "-m", "herdbook.sandbox", *arguments]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=variables,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
            process.terminate()
            process.wait(LONGEST_STOP)
        finally:
            process.kill()
