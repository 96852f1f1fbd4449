"""Where faults enter a process: kills at a step, and failing calls to the disk."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from herdbook.events.sqlite import session

FILE_CALLS = ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir", "link")
WRITES, SYNCS, READS = 1, 2, 4
ONCE, FROM_THEN_ON, SHORT, KILL, KILL_WITHIN = range(5)
"""The kinds of calls, and what happens at them: the same numbers as in ``shim.c``."""


class KillAtStep:
    """Kill this process at a step.

    A step is before or after a statement of SQL or a change of a file.
    """

    def __init__(self, step: int) -> None:
        self._left = step

    def install(self) -> None:
        """Count every statement and every change of a file, before and after it."""
        for name in ("execute", "execute_many"):
            statement = getattr(session.Session, name)
            setattr(session.Session, name, self._counted_statement(statement))
        for name in FILE_CALLS:
            setattr(os, name, self._counted(getattr(os, name)))

    def _take(self) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)

    def _counted_statement(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(*given: Any, **named: Any) -> Any:
            self._take()
            found = await call(*given, **named)
            self._take()
            return found

        return counted

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            self._take()
            found = call(*given, **named)
            self._take()
            return found

        return counted


def with_shim(folder: Path) -> dict[str, str]:
    """Compile the shim; return the environment of a process that has it.

    Without a C compiler the environment has no shim, and ``shim`` is None.
    """
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    build = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    try:
        subprocess.run(build, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"errors of the disk are skipped, no C compiler: {error}\n")
        return {}
    return {"LD_PRELOAD": str(library)}


def shim() -> Any | None:
    """Return the shim of this process; None if it runs without one."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "fault_arm") else None


def fail_call(folder: Path, calls: int, nth: int, error: int, mode: int) -> None:
    """Make the n-th call to the disk below a folder fail, in this process."""
    library = shim()
    assert library is not None
    library.fault_arm(bytes(folder), calls, ctypes.c_long(nth), error, mode)


def failed_calls() -> int:
    """Stop failing; return how many calls failed."""
    library = shim()
    assert library is not None
    hits = int(library.fault_hits())
    library.fault_arm(b"/", 0, ctypes.c_long(0), 0, ONCE)
    return hits
