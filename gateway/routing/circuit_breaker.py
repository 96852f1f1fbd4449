"""A circuit breaker: keep requests away from a node that fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

FAILURES: Final = 3
"""Failures in a row after which a node gets no requests for some time."""

FIRST_PAUSE_S: Final = 5.0
"""Seconds without requests after these; doubled each time that the next one fails."""

LONGEST_PAUSE_S: Final = 60.0


class CircuitBreaker:
    """Keeps requests away from a node that fails, and lets one at a time try again.

    Args:
        now: Returns seconds of a monotonic clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._until = 0.0
        self._trying = False

    @property
    def closed(self) -> bool:
        """Whether the node gets requests as usual."""
        return self._failures < FAILURES

    @property
    def allows(self) -> bool:
        """Whether the node may get a request now."""
        return self.closed or (not self._trying and self._now() >= self._until)

    def begin(self) -> None:
        """Note that a request is sent."""
        self._trying = not self.closed

    def succeeded(self) -> None:
        """Note that the node answered."""
        self._failures, self._pause_s, self._trying = 0, FIRST_PAUSE_S, False

    def failed(self) -> None:
        """Note that the node failed to answer a request."""
        now = self._now()
        again = not self.closed and now >= self._until
        self._trying = False
        self._failures += 1
        if self.closed:
            return
        if again:
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._until = now + self._pause_s

    def ended(self) -> None:
        """Note that a request ended without showing whether the node answers."""
        self._trying = False
