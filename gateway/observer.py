"""What observes a gateway, for metrics."""

from __future__ import annotations

from typing import Final, Protocol

from herdbook.gateway.recording.uses import Use


class RunningRequests(Protocol):
    """Receives the number of requests that are being relayed."""

    def set(self, value: float) -> None:
        """Receive the number."""


class GatewayObserver(Protocol):
    """Receives what the gateway does, for metrics."""

    @property
    def in_flight(self) -> RunningRequests:
        """Receives the number of requests that are being relayed."""
        ...

    def used(self, use: Use) -> None:
        """Receive a request to a model that has ended."""


class _NoObserver:
    """Observes nothing."""

    @property
    def in_flight(self) -> _NoObserver:
        return self

    def set(self, value: float) -> None:
        """Ignore the number."""

    def used(self, use: Use) -> None:
        """Ignore the use."""


NO_OBSERVER: Final[GatewayObserver] = _NoObserver()
"""The observer of a gateway without metrics."""
