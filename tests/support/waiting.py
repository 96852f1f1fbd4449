"""Wait in real time for what another thread or process does."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

POLL_S = 0.02
"""Interval between two checks, seconds."""


def wait_until(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait until a condition holds; fail the test if it does not in time.

    Args:
        holds: The condition.
        within_s: Longest time to wait; the default is enough on a busy machine for
            what takes a fraction of a second on an idle one.
    """
    deadline = monotonic() + within_s
    while not holds():
        assert monotonic() < deadline, f"not within {within_s} s"
        sleep(POLL_S)
