"""Simulate a kill of a manager in this process by copying its files.

A killed process leaves its files unchanged, its lock released and its connections
closed. So the file and its write-ahead log are copied between two turns of the event
loop, while SQLite's own threads run; locks are not copied. What the manager records
when it is cancelled afterwards goes to a file that is never read.
``proof/test_killed_processes.py`` kills real processes with SIGKILL.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path


def copy_as_killed(log: Path, left: Path) -> None:
    """Copy a log in use, as a kill at this time would leave it."""
    with closing(sqlite3.connect(log)) as reader:
        reader.execute("BEGIN")
        # While a reader is open, the write-ahead log only grows: no event is missed.
        reader.execute("SELECT position FROM head").fetchone()
        shutil.copy(log, left)
        shutil.copy(f"{log}-wal", f"{left}-wal")
    shutil.copytree(f"{log}-instances", f"{left}-instances")
