"""What observes a gateway, for metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from herdbook.gateway.recording.uses import Use


class GatewayObserver(Protocol):
    """Receives what the gateway does, for metrics."""

    def follow(self, in_flight: Callable[[], int]) -> None:
        """Take what returns the number of running requests, from any thread."""

    def used(self, use: Use) -> None:
        """Receive a request to a model that has ended."""


class _NoObserver:
    """Observes nothing."""

    def follow(self, in_flight: Callable[[], int]) -> None:
        """Ignore the number."""

    def used(self, use: Use) -> None:
        """Ignore the use."""


NO_OBSERVER: Final[GatewayObserver] = _NoObserver()
"""The observer of a gateway without metrics."""
