"""Commands killed at each step, not at random times: no file is lost, invented or torn.

``step_program.py`` says what a step is, and checks the files without Herdbook. The gate
takes every seventh step; ``HERDBOOK_STEPS=1`` takes all (``make campaign``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from proof.step_program import CASES

PROGRAM = Path(__file__).with_name("step_program.py")
STRIDE = int(os.environ.get("HERDBOOK_STEPS", "7"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("operation", CASES)
def test_operation_that_is_killed_at_a_step_leaves_sound_files(
    operation: str, tmp_path: Path
) -> None:
    command = [sys.executable, str(PROGRAM), operation, str(tmp_path), str(STRIDE)]
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])}

    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False
    )

    assert done.returncode == 0, done.stderr[-2000:]
    kills = int(done.stdout.split()[-1])
    print(f"{operation}: killed at {kills} steps")  # noqa: T201 - shown by -rP
    assert kills * STRIDE > 30
