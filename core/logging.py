"""Logging through structlog, which is imported when the first line is logged.

structlog imports Rich if that is installed; importing the library alone should not
load either of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Logger:
    """A structlog logger by name, created when something is logged."""

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, event: str, **values: object) -> None:
        """Log details for developers."""
        self._log("debug", event, values)

    def info(self, event: str, **values: object) -> None:
        """Log a normal event."""
        self._log("info", event, values)

    def warning(self, event: str, **values: object) -> None:
        """Log a problem that may need attention."""
        self._log("warning", event, values)

    def _log(self, level: str, event: str, values: dict[str, object]) -> None:
        import structlog  # noqa: PLC0415 - see the module

        getattr(structlog.get_logger(self._name), level)(event, **values)


@contextmanager
def bound(**values: str) -> Iterator[None]:
    """Bind values to every line that is logged in the block."""
    from structlog.contextvars import bound_contextvars  # noqa: PLC0415 - see above

    with bound_contextvars(**values):
        yield
