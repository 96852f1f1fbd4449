"""Who asks, and which operation an event belongs to: carried along the call.

Both travel in context variables, so that a task started for somebody records in
their name; the correlation id is bound into the logs as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

from herdbook.core.logging import bound as bound_in_logs
from herdbook.events.recorded import new_id

RECONCILER = "reconciler"
"""The actor of what nobody asked for."""

_actor: ContextVar[str | None] = ContextVar("herdbook_actor", default=None)
_correlation: ContextVar[str | None] = ContextVar("herdbook_correlation", default=None)


@contextmanager
def acting_as(actor: str, *, correlation_id: str | None = None) -> Iterator[None]:
    """Record what happens inside in the name of ``actor``.

    Args:
        actor: Who asks.
        correlation_id: What all that is recorded inside is to share, bound into the
            logs too; by default each operation inside has an id of its own.
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
    """Return who acts here, or ``default`` if nobody said."""
    return _actor.get() or default


@contextmanager
def operation(**bound: str) -> Iterator[str]:
    """Give all events inside one correlation id, and bind it into the logs.

    An operation inside another one is part of it.
    """
    around = _correlation.get()
    correlation_id = new_id() if around is None else around
    with _correlated(correlation_id, **bound):
        yield correlation_id


@contextmanager
def _correlated(correlation_id: str, **bound: str) -> Iterator[None]:
    token = _correlation.set(correlation_id)
    try:
        with bound_in_logs(correlation_id=correlation_id, **bound):
            yield
    finally:
        _correlation.reset(token)


def current_correlation() -> str | None:
    """Return the id of the operation here, if there is one."""
    return _correlation.get()
