"""Helpers of the contract's cases: openers, events and refusals.

``herdbook.events.testing`` is the public module.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec

from herdbook.events.facts import ConfigurationChanged, Fact
from herdbook.events.recorded import Cause, NewEvent, RecordedEvent
from herdbook.events.snapshots import SnapshotStore
from herdbook.events.store import EventStore
from herdbook.events.verify import verify

K = TypeVar("K", bound=BaseException)

OCCURRED_AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
"""When all events of the cases occurred."""


class Store(EventStore, SnapshotStore, Protocol):
    """A store of events and snapshots of views."""


Opener: TypeAlias = Callable[[], AbstractAsyncContextManager[Store]]
"""Opens the log of the case."""

Case: TypeAlias = Callable[[Opener], Coroutine[Any, Any, None]]
"""One test: it opens the log and asserts what must hold."""


def name_of(case: Case) -> str:
    """Return the name of a case, for the test report."""
    return getattr(case, "__name__", "case")


def fact(note: str = "") -> Fact:
    """Return a fact that is legal in every state."""
    return ConfigurationChanged(note=note)


def event(note: str = "", **fields: Any) -> NewEvent:
    """Return a new event; the fields are those of ``NewEvent``."""
    plain = NewEvent(
        fact=fact(note),
        occurred_at=OCCURRED_AT,
        actor="library:contract",
        cause=Cause.COMMAND,
    )
    return msgspec.structs.replace(plain, **fields)


async def refused(kind: type[K], attempt: Awaitable[object]) -> K:
    """Return the error that a call must raise.

    Raises:
        AssertionError: The call did not raise it.
    """
    try:
        answer = await attempt
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected, not {answer!r}")


async def log_of(store: EventStore) -> list[RecordedEvent]:
    """Return the whole log."""
    return [event async for event in store.read_all()]


async def assert_sound(store: EventStore) -> None:
    """Assert that every check of ``verify`` passes."""
    findings = (await verify(store)).findings
    assert not findings, findings
