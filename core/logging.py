"""Logging through structlog, which is imported when the first line is logged.

structlog imports Rich if that is installed; importing the library alone should not
load either of them. A program may leave its own configuration of structlog until
then too, with ``configure_later``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar


class _Later:
    """The configuration that the first line applies, and the least level logged."""

    def __init__(self) -> None:
        self.configure: Callable[[], None] | None = None
        self.level = logging.NOTSET


_later = _Later()
_bound: ContextVar[dict[str, str]] = ContextVar("herdbook_logging")


def configure_later(
    configure: Callable[[], None] | None, *, level: int = logging.NOTSET
) -> None:
    """Configure structlog when the first line is logged, not now.

    Args:
        configure: Called once, before that line; None if structlog is configured.
        level: The least level that is logged, as a number of ``logging``; lines
            below it do not even import structlog.
    """
    _later.configure, _later.level = configure, level


class Logger:
    """A structlog logger by name, created when something is logged."""

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, event: str, **values: object) -> None:
        """Log details for developers."""
        self._log(logging.DEBUG, event, values)

    def info(self, event: str, **values: object) -> None:
        """Log a normal event."""
        self._log(logging.INFO, event, values)

    def warning(self, event: str, **values: object) -> None:
        """Log a problem that may need attention."""
        self._log(logging.WARNING, event, values)

    def _log(self, level: int, event: str, values: dict[str, object]) -> None:
        if level < _later.level:
            return
        import structlog  # noqa: PLC0415 - see the module

        configure, _later.configure = _later.configure, None
        if configure is not None:
            configure()
        logger = structlog.get_logger(self._name)
        logger.log(level, event, **{**_bound.get({}), **values})


@contextmanager
def bound(**values: str) -> Iterator[None]:
    """Bind values to every line that is logged in the block.

    Lines that a program logs itself have them too, if it uses structlog.
    """
    token = _bound.set({**_bound.get({}), **values})
    structlog = sys.modules.get("structlog")
    theirs = structlog.contextvars.bound_contextvars(**values) if structlog else None
    try:
        with theirs or nullcontext():
            yield
    finally:
        _bound.reset(token)
