"""What a caller may measure of the library's work, told as it happens.

An observer sees figures and no content: how long the log took to append, and how
long the server took to answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from herdbook.core.clock import Clock
from herdbook.core.errors import HerdbookError, kind_of

CANCELLED: Final = "cancelled"
"""The failure of a request that was ended from this side, before it was answered: its
caller was cancelled, or would wait no longer."""


class Observer(Protocol):
    """Is told what was done, from inside the work: it returns at once, raises nothing.

    All seconds are those of the manager's clock.
    """

    def appended(self, *, events: int, seconds: float) -> None:
        """Take in that the log has new events, durably.

        Args:
            events: How many, of one append.
            seconds: How long that took, the wait for other appends included.
        """
        ...

    def asked(
        self, *, method: str, path: str, seconds: float, failure: str | None
    ) -> None:
        """Take in that a request to the server is over.

        Args:
            method: Of HTTP.
            path: Of the endpoint, without a query.
            seconds: From asking to the end of the answer; of a pull, all of it.
            failure: The stable word of the error that it ended with, or
                ``cancelled``; None if it was answered.
        """
        ...


class NoObserver:
    """Looks at nothing."""

    def appended(self, *, events: int, seconds: float) -> None:
        """Do nothing."""

    def asked(
        self, *, method: str, path: str, seconds: float, failure: str | None
    ) -> None:
        """Do nothing."""


NO_OBSERVER: Final[Observer] = NoObserver()
"""Who observes where nobody was named."""


@contextmanager
def observed_request(
    observer: Observer, clock: Clock, method: str, path: str
) -> Iterator[None]:
    """Tell an observer of the request that is made inside, once it is over."""
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
