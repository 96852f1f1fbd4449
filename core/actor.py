"""The current actor and correlation id, carried in context variables.

A task inherits them from the code that starts it, so its events name the same actor.
The correlation id is bound into the logs as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

from herdbook.core.logging import bound as bound_in_logs
from herdbook.events.recorded import new_id

RECONCILER = "reconciler"
"""The actor of changes that the background reconciler makes."""

_actor: ContextVar[str | None] = ContextVar("herdbook_actor", default=None)
_correlation: ContextVar[str | None] = ContextVar("herdbook_correlation", default=None)


@contextmanager
def acting_as(actor: str, *, correlation_id: str | None = None) -> Iterator[None]:
    """Record everything inside the block with this actor.

    Args:
        actor: Who requests the changes, such as ``cli:alice``.
        correlation_id: The correlation id of all events in the block, bound into the
            logs as well; by default each operation has its own.
    """
    shared = (
        _correlated(correlation_id) if correlation_id is not None else nullcontext()
    )
    token = _actor.set(actor)
    try:
        with shared:
            yield
    finally:
        _actor.reset(token)


def current_actor(default: str) -> str:
    """Return the current actor, or ``default`` if none is set."""
    return _actor.get() or default


@contextmanager
def operation(**bound: str) -> Iterator[str]:
    """Give all events in the block one correlation id, and bind it into the logs.

    A nested operation uses the id of the outer one.
    """
    outer = _correlation.get()
    correlation_id = new_id() if outer is None else outer
    with _correlated(correlation_id, **bound):
        yield correlation_id


@contextmanager
def no_operation() -> Iterator[None]:
    """Give the events in the block no correlation id, also within an operation."""
    token = _correlation.set(None)
    try:
        yield
    finally:
        _correlation.reset(token)


@contextmanager
def _correlated(correlation_id: str, **bound: str) -> Iterator[None]:
    token = _correlation.set(correlation_id)
    try:
        with bound_in_logs(correlation_id=correlation_id, **bound):
            yield
    finally:
        _correlation.reset(token)


def current_correlation() -> str | None:
    """Return the correlation id of the current operation; None outside of one."""
    return _correlation.get()
