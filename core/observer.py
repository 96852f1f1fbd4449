"""Observers: callbacks that measure appends to the log and requests to the server.

An observer receives durations, counts and error codes, never content.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from herdbook.core.clock import Clock
from herdbook.core.errors import HerdbookError, kind_of

CANCELLED: Final = "cancelled"
"""The failure of a request that Herdbook ended before the answer: the caller was
cancelled or timed out."""


class Observer(Protocol):
    """Callbacks for measurements. They run inline: return at once, raise nothing.

    Durations are in seconds of the manager's clock.
    """

    def appended(self, *, events: int, seconds: float) -> None:
        """Handle a durable append to the log.

        Args:
            events: Number of events of the append.
            seconds: Duration, including the wait for other appends.
        """
        ...

    def asked(
        self, *, method: str, path: str, seconds: float, failure: str | None
    ) -> None:
        """Handle the end of a request to the server.

        Args:
            method: HTTP method.
            path: Path of the endpoint, without the query.
            seconds: Duration until the end of the answer; for a pull, the whole stream.
            failure: Error code, or ``cancelled``; None if the request succeeded.
        """
        ...


class NoObserver:
    """An observer that ignores everything."""

    def appended(self, *, events: int, seconds: float) -> None:
        """Ignore the measurement."""

    def asked(
        self, *, method: str, path: str, seconds: float, failure: str | None
    ) -> None:
        """Ignore the measurement."""


NO_OBSERVER: Final[Observer] = NoObserver()
"""The default observer."""


@contextmanager
def observed_request(
    observer: Observer, clock: Clock, method: str, path: str
) -> Iterator[None]:
    """Report the request made in the block to an observer when it ends."""
    began = clock.monotonic()
    failure: str | None = CANCELLED
    try:
        yield
        failure = None
    except HerdbookError as error:
        failure = kind_of(error)
        raise
    finally:
        seconds = clock.monotonic() - began
        observer.asked(method=method, path=path, seconds=seconds, failure=failure)
