"""Kill a manager that lives in this process: its file stays as it was that moment.

A killed process leaves its files as they are, its lock let go and its connections
closed. So the file and its write-ahead log are copied between two turns of the
loop, while SQLite's own threads go on; locks are not copied. What the manager then
does on being cancelled goes into a file that nobody reads again. That a process of
its own survives SIGKILL is shown in ``proof/test_killed_processes.py``.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path


def leave_as_killed(log: Path, left: Path) -> None:
    """Copy a log that is in use, as a kill would leave it now."""
    with closing(sqlite3.connect(log)) as reader:
        reader.execute("BEGIN")
        # While somebody reads, the write-ahead log only grows: no copy misses any.
        reader.execute("SELECT position FROM head").fetchone()
        shutil.copy(log, left)
        shutil.copy(f"{log}-wal", f"{left}-wal")
    shutil.copytree(f"{log}-instances", f"{left}-instances")
