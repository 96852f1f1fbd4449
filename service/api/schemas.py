"""The JSON shapes of the API that the command line does not have."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from herdbook.core import (
    Cause,
    DeleteCost,
    LoadCost,
    PullCost,
    ReadModel,
    RecordedEvent,
    RunningOperation,
    UnloadCost,
)
from herdbook.core.concurrency.supervisor import TaskStatus
from herdbook.events.facts import Setting
from herdbook.events.streams import model_of
from herdbook.presentation import shapes
from herdbook.projections.sentences import describe
from herdbook.service.operations.operation import Kind, OperationState
from herdbook.service.operations.operation import Operation as ServiceOperation
from herdbook.service.problems import Problem


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation.

    Attributes:
        id: Its id; the events that it records have it as their correlation id.
        kind: What it does.
        model: The model; null for a refresh.
        state: ``running``, or how it ended.
        actor: Who asked.
        started_at: When.
        ended_at: When it was over.
        progress: How far a pull or an update is.
        result: How an unload went.
        error: What went wrong.
    """

    id: str
    kind: Kind
    model: str | None
    state: OperationState
    actor: str
    started_at: datetime
    ended_at: datetime | None
    progress: shapes.Progress | None
    result: str | None
    error: Problem | None


def operation(known: ServiceOperation) -> Operation:
    """Return an operation as it is told."""
    progress = None
    if known.progress is not None and known.model is not None:
        progress = shapes.progress(known.model, known.state.value, known.progress)
    return Operation(
        id=known.id,
        kind=known.kind,
        model=known.model,
        state=known.state,
        actor=known.actor,
        started_at=known.started_at,
        ended_at=known.ended_at,
        progress=progress,
        result=known.result,
        error=known.error,
    )


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the log: its envelope, its data, and what it says.

    Attributes:
        position: Place in the whole log.
        stream: Whose event it is.
        version: Place in the stream.
        event_id: Its identity.
        type: Name of the fact.
        schema: Number of the form that the data have.
        data: The fact.
        occurred_at: When it became true.
        recorded_at: When it was recorded.
        actor: Who asked.
        cause: Why it was recorded.
        correlation_id: What all events of one operation share.
        causation_id: The id of the event that led to this one.
        hash: SHA-256 over the hash before and this event; 64 hexadecimal digits.
        model: Name of the model; null for a node's own event.
        sentence: What it says, for people.
    """

    position: int
    stream: str
    version: int
    event_id: str
    type: str
    schema: int
    data: dict[str, Any]
    occurred_at: datetime
    recorded_at: datetime
    actor: str
    cause: Cause
    correlation_id: str | None
    causation_id: str | None
    hash: str
    model: str | None
    sentence: str


def event(recorded: RecordedEvent) -> Event:
    """Return an event as it is told."""
    key = model_of(recorded.stream)
    return Event(
        **{name: getattr(recorded, name) for name in _ENVELOPE},
        data=msgspec.to_builtins(recorded.data),
        model=key.name if key else None,
        sentence=describe(recorded),
    )


_ENVELOPE = tuple(
    name
    for name in Event.__struct_fields__
    if name not in ("data", "model", "sentence")
)


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the log.

    Attributes:
        events: The events that the filter takes.
        next: The ``after`` (or, newest first, the ``before``) to go on with; null
            where there is nothing more. A page may be short, even empty, and have one:
            so many events were looked at that the filter did not take.
        head: Position of the newest event.
    """

    events: list[Event]
    next: int | None
    head: int


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the log: what to write down to prove later that nothing was altered.

    Attributes:
        position: Position of the newest event; 0 in an empty log.
        hash: Its hash.
    """

    position: int
    hash: str


class Progressing(msgspec.Struct, frozen=True, kw_only=True):
    """Work under way, as the stream tells it: not history, so it has no position.

    Attributes:
        activity: ``pull``, ``update`` or ``load``.
        actor: Who asked.
        since: When.
        waiting: Whether it waits for its turn.
        progress: How far it is.
    """

    activity: str
    actor: str
    since: datetime
    waiting: bool
    progress: shapes.Progress


def progressing(work: RunningOperation) -> Progressing:
    """Return work under way as it is told."""
    return Progressing(
        activity=work.activity.value,
        actor=work.actor,
        since=work.since,
        waiting=work.waiting,
        progress=shapes.progress(work.name, "loading", work.progress),
    )


class SettingsChange(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """The whole configuration that a model is to have.

    Attributes:
        settings: Settings by name; one that is not here has no value of ours any more.
        note: Why.
    """

    settings: dict[str, Setting]
    note: str = ""


class Use(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That a model was used.

    Attributes:
        purpose: What for.
    """

    purpose: str = ""


class Configuration(shapes.Config, frozen=True, kw_only=True):
    """A model's configuration.

    Attributes:
        version: Version of its stream: what ``If-Match`` has to name.
    """

    version: int


def configuration(read_model: ReadModel, name: str) -> Configuration:
    """Return a model's configuration as it is told."""
    status, given = read_model.status(name), read_model.options_for(name)
    return Configuration(
        name=status.name,
        settings=status.settings,
        options=given.options,
        keep_alive=given.keep_alive,
        version=status.version,
    )


Cost = PullCost | LoadCost | UnloadCost | DeleteCost


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``/healthz``.

    Attributes:
        status: ``ok``.
        version: Herdbook's version.
    """

    status: str
    version: str


class FailingTask(msgspec.Struct, frozen=True, kw_only=True):
    """A background task that does not work now.

    Attributes:
        task: Its name.
        code: A stable word for the reason. The log output has the whole error.
        since: When it began to fail; null where that is not known.
    """

    task: str
    code: str
    since: datetime | None


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``/readyz``.

    Attributes:
        status: ``ok``, ``stopping``, ``task_failing``, or the word of what is wrong
            with the log.
        position: Position of the newest event.
        node_reached: Whether the Ollama server answers; the service works without.
            Null if the last refreshes failed, so that it is not known.
        failing: Background tasks that do not work now; they are tried again.
    """

    status: str
    position: int | None
    node_reached: bool | None
    failing: tuple[FailingTask, ...] = ()


def failing(tasks: Iterable[TaskStatus]) -> tuple[FailingTask, ...]:
    """Return the tasks that do not work now."""
    return tuple(
        FailingTask(task=task.name, code=task.code, since=task.failing_since)
        for task in tasks
        if not task.up
    )
