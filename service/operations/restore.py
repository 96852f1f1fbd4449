"""Restore an operation from the events that it recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Final

import msgspec

from herdbook.core import Cause, PullProgress, ReadModel, RecordedEvent
from herdbook.events import facts
from herdbook.events.facts import Setting
from herdbook.events.streams import ModelKey, model_of
from herdbook.service.problems import Problem

STARTS: Final = {
    facts.PullStarted: "pull",
    facts.UpdateStarted: "update",
    facts.LoadStarted: "load",
    facts.ReloadStarted: "load",
    facts.ModelUnloaded: "unload",
}
"""Events that start an operation, and the kind of the operation."""

_ENDS_OF: Final[Mapping[str, Mapping[type, str]]] = {
    "pull": {
        facts.PullCompleted: "succeeded",
        facts.PullFailed: "failed",
        facts.PullCancelled: "cancelled",
        facts.PullInterrupted: "interrupted",
    },
    "update": {
        facts.ModelUpdated: "succeeded",
        facts.UpdateUnchanged: "succeeded",
        facts.UpdateFailed: "failed",
        facts.UpdateCancelled: "cancelled",
        facts.UpdateInterrupted: "interrupted",
    },
    "load": {
        facts.ModelLoaded: "succeeded",
        facts.LoadFailed: "failed",
        facts.LoadCancelled: "cancelled",
        facts.LoadInterrupted: "interrupted",
        facts.ReloadCompleted: "succeeded",
        facts.ReloadUnchanged: "succeeded",
        facts.ReloadFailed: "failed",
        facts.ReloadCancelled: "cancelled",
        facts.ReloadInterrupted: "interrupted",
    },
    "unload": {facts.ModelUnloaded: "succeeded"},
}
"""Events that end an operation, and the outcome. The refresh that follows an operation
records other events under the same id; they are not listed here."""

ENDS: Final = frozenset(fact for ends in _ENDS_OF.values() for fact in ends)
"""All events that end an operation."""


class RestoredOperation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation as far as the log shows it.

    Attributes:
        kind: The kind of operation.
        model: The model.
        node: Its node.
        actor: The user who started it.
        started_at: Time of its first event.
        ended_at: Time of its last event; None if no end was recorded.
        state: The outcome; ``running`` if another process is running it.
        progress: The last recorded progress.
        result: Result of an unload.
        error: The error of a failed operation.
        insecure: Whether a registry without TLS was allowed.
        options: The options of a load.
        keep_alive: The keep-alive of a load.
    """

    kind: str
    model: str
    node: str
    actor: str
    started_at: datetime
    ended_at: datetime | None
    state: str
    progress: PullProgress | None
    result: str | None
    error: Problem | None
    insecure: bool
    options: Mapping[str, Setting]
    keep_alive: str | int | float | None


def starts_operation(event: RecordedEvent) -> bool:
    """Return whether an event starts an operation.

    ``ModelUnloaded`` does so only with the cause ``command``: a refresh records it too
    when the server has unloaded a model by itself.
    """
    if isinstance(event.data, facts.ModelUnloaded):
        return event.cause is Cause.COMMAND
    return type(event.data) in STARTS


def restored(
    events: Sequence[RecordedEvent], read_model: ReadModel
) -> RestoredOperation | None:
    """Return the operation that recorded some events, or None.

    Args:
        events: All events of its correlation id, in order.
        read_model: The current state, of any node. An operation without a recorded end
            that is not running now was interrupted by a crash.
    """
    # A load with new options whose runner never appeared is recorded as a whole after
    # the previous runner was unloaded, so ModelUnloaded comes before LoadStarted.
    start = min(
        filter(starts_operation, events),
        key=lambda event: isinstance(event.data, facts.ModelUnloaded),
        default=None,
    )
    key = model_of(start.stream) if start else None
    if start is None or key is None:
        return None
    fact, kind = start.data, STARTS[type(start.data)]
    load = fact if isinstance(fact, facts.LoadStarted | facts.ReloadStarted) else None
    own = [event for event in events if event.stream == start.stream]
    ends = _ENDS_OF[kind]
    end = next((event for event in own if type(event.data) in ends), None)
    return RestoredOperation(
        kind=kind,
        model=key.name,
        node=key.node,
        actor=start.actor,
        started_at=start.occurred_at,
        ended_at=end.occurred_at if end else None,
        state=ends[type(end.data)] if end else _open_state(start, key, read_model),
        progress=_progress(own),
        result="unloaded" if isinstance(fact, facts.ModelUnloaded) else None,
        error=_error(end),
        insecure=isinstance(fact, facts.PullStarted | facts.UpdateStarted)
        and fact.insecure,
        options=load.options if load else {},
        keep_alive=load.keep_alive if load else None,
    )


def _open_state(start: RecordedEvent, key: ModelKey, read_model: ReadModel) -> str:
    status = read_model.of(key.node).status(key.name)
    works = (status.work, status.update)
    running = any(work and work.since == start.occurred_at for work in works)
    return "running" if running else "interrupted"


def _progress(events: Sequence[RecordedEvent]) -> PullProgress | None:
    for event in reversed(events):
        fact = event.data
        if isinstance(fact, facts.PullProgressed | facts.UpdateProgressed):
            return PullProgress.recorded(fact.completed_bytes, fact.total_bytes)
    return None


def _error(end: RecordedEvent | None) -> Problem | None:
    fact = end.data if end else None
    if not isinstance(
        fact,
        facts.PullFailed | facts.UpdateFailed | facts.LoadFailed | facts.ReloadFailed,
    ):
        return None
    return Problem(
        title=HTTPStatus.BAD_GATEWAY.phrase,
        status=HTTPStatus.BAD_GATEWAY.value,
        code=fact.kind,
        detail=fact.message,
        subject="",
        state=fact.message,
        remedy="",
    )
