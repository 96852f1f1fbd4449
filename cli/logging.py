"""Log messages of the library, as plain lines on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

from herdbook.cli.output import clean, folded
from herdbook.core.logging import configure_later

_QUIET = frozenset({"event", "level", "correlation_id"})
SENTENCES: Final = {
    "entry_unreadable": "skipped an entry in the server's lists: {name} "
    "({source}: {reason})",
    "more_entries_unreadable": "other skipped entries in the server's lists: {entries}",
    "show_failed": "the details of {model} cannot be read: {reason}",
    "details_late": "models whose details no time was left to read: {models}; the next "
    "refresh reads them",
    "more_shows_failed": "other models whose details cannot be read: {models}",
    "log_not_writable": "{log} cannot be written: {effect}",
}
"""Sentences for the warnings that commands print most often."""


def configure(*, verbose: bool) -> None:
    """Log warnings; with ``verbose`` all messages."""
    level = logging.DEBUG if verbose else logging.WARNING
    configure_later(lambda: _configure(level), level=level)


def _configure(level: int) -> None:
    import structlog  # noqa: PLC0415 - imports Rich, which few calls need

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _plain,
        ],
        logger_factory=lambda *_: _Stderr(),
        cache_logger_on_first_use=False,
    )


def _plain(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    """Return ``herdbook: warning: pull stalled (model x)``, or a sentence."""
    if sentence := SENTENCES.get(event["event"]):
        return f"herdbook: {event['level']}: {clean(sentence.format_map(event))}"
    details = ", ".join(f"{k} {v}" for k, v in event.items() if k not in _QUIET)
    message = str(event["event"]).replace("_", " ")
    text = f"{message} ({details})" if details else message
    return f"herdbook: {event['level']}: {clean(text)}"


class _Stderr:
    """A logger that writes to the current ``sys.stderr``."""

    def msg(self, message: str) -> None:
        """Write one line."""
        sys.stderr.write(f"{folded(message, sys.stderr)}\n")

    debug = info = warning = error = critical = msg
