"""Logging of the service to stderr, as JSON objects or plain lines.

Secrets are removed from every line: values whose key looks like a secret, and texts
that look like a token, also in tracebacks.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from enum import StrEnum
from typing import Any, Final

import msgspec
import structlog

from herdbook.core.logging import configure_later
from herdbook.service.auth.tokens import SECRET_PATTERN

REMOVED: Final = "[removed]"
"""The replacement for a secret."""

_SECRET_NAMES: Final = re.compile(
    r"authorization|cookie|token|passw|secret", re.IGNORECASE
)
_BEARER: Final = re.compile(r"(bearer\s+)\S+", re.IGNORECASE)
_SESSION: Final = re.compile(r"(herdbook_session=)[^;\s]+")
_FOREIGN: Final = ("uvicorn", "litestar", "asyncio", "httpx")
_FIRST: Final = ("timestamp", "level", "logger", "event")


class LogFormat(StrEnum):
    """The format of log lines."""

    PLAIN = "plain"
    JSON = "json"


def configure(log_format: str, *, verbose: bool = False) -> None:
    """Log to stderr, including the standard logging of libraries.

    Args:
        log_format: ``plain`` or ``json``.
        verbose: Include debug messages.
    """
    level = logging.DEBUG if verbose else logging.INFO
    render = _json if LogFormat(log_format) is LogFormat.JSON else _plain
    configure_later(None)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _named,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            without_secrets,
            render,
        ],
        logger_factory=_Stderr,
        cache_logger_on_first_use=False,
    )
    _redirect_other_loggers()


def _redirect_other_loggers() -> None:
    """Pass warnings and errors of the standard ``logging`` on to structlog."""
    logging.basicConfig(handlers=[_Handler()], level=logging.WARNING, force=True)
    for name in _FOREIGN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)


def _named(
    logger: _Stderr, _: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Add the name of the logger, if it has one."""
    return {"logger": logger.name, **event} if logger.name else event


def without_secrets(
    _: object, __: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Remove secrets from all keys and values of a log line."""
    return {_text(key): _cleaned(value, str(key)) for key, value in event.items()}


def _cleaned(value: object, key: str = "") -> object:
    """Remove secrets from a value; numbers stay, whatever their key is."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if _SECRET_NAMES.search(key):
        return REMOVED
    if isinstance(value, Mapping):
        return {_text(k): _cleaned(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(element) for element in value]
    return _text(value)


def _text(value: object) -> str:
    # Surrogates come from file names that are not UTF-8; streams cannot encode them.
    text = str(value).encode("utf-8", "backslashreplace").decode()
    text = SECRET_PATTERN.sub(f"hb_{REMOVED}", text)
    text = _BEARER.sub(rf"\1{REMOVED}", text)
    return _SESSION.sub(rf"\1{REMOVED}", text)


def _in_order(event: Mapping[str, Any]) -> dict[str, Any]:
    first = {key: event[key] for key in _FIRST if key in event}
    return first | {key: value for key, value in event.items() if key not in first}


def _json(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(_in_order(event)).decode()


def _plain(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    """Return ``2026-01-02T03:04:05Z info request method=GET path=/``, and a trace."""
    fields = _in_order(event)
    trace = fields.pop("exception", None)
    head = [str(fields.pop(key)) for key in _FIRST if key in fields]
    values = [f"{key}={value}" for key, value in fields.items()]
    line = _printable(" ".join([*head, *values]))
    return line if trace is None else f"{line}\n{_printable(str(trace), keep=chr(10))}"


def _printable(text: str, keep: str = "") -> str:
    """Escape control characters, so that a text cannot control the terminal."""
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


class _Stderr:
    """Writes to the current ``sys.stderr``.

    Args:
        name: The name of the logger, for the field ``logger``.
    """

    def __init__(self, *name: str) -> None:
        self.name = name[0] if name else ""

    def msg(self, message: str) -> None:
        """Write a line; a failure to write it is ignored."""
        with suppress(OSError, ValueError):  # a full disk, a closed pipe
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = msg


class _Handler(logging.Handler):
    """Passes records of the standard ``logging`` on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record; if its arguments do not fit its format, log the format."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        level = logging.getLevelName(record.levelno).lower()
        values = {"exc_info": record.exc_info} if record.exc_info else {}
        logger = structlog.get_logger(record.name)
        getattr(logger, level, logger.warning)(message, **values)
