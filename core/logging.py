"""What is logged, through structlog: imported with the first line, not before.

Where Rich is installed, structlog brings it along, and whoever only imports the
library should pay for neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Logger:
    """A logger of structlog by its name, made when something is logged."""

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, event: str, **values: object) -> None:
        """Log what only a developer wants to know."""
        self._log("debug", event, values)

    def info(self, event: str, **values: object) -> None:
        """Log what went as it should."""
        self._log("info", event, values)

    def warning(self, event: str, **values: object) -> None:
        """Log what somebody should look at."""
        self._log("warning", event, values)

    def _log(self, level: str, event: str, values: dict[str, object]) -> None:
        import structlog  # noqa: PLC0415 - see the module

        getattr(structlog.get_logger(self._name), level)(event, **values)


@contextmanager
def bound(**values: str) -> Iterator[None]:
    """Bind values to every line that is logged inside."""
    from structlog.contextvars import bound_contextvars  # noqa: PLC0415 - see above

    with bound_contextvars(**values):
        yield
