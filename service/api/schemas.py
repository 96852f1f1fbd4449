"""JSON schemas of the API that the command line does not share."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from herdbook.core import (
    Cause,
    DeleteCost,
    LoadCost,
    ModelRole,
    PullCost,
    ReadModel,
    RecordedEvent,
    RunningOperation,
    UnloadCost,
)
from herdbook.core.concurrency.supervisor import TaskStatus
from herdbook.core.upkeep.recurring import UpkeepStatus
from herdbook.events.facts import Setting
from herdbook.events.streams import model_of, node_of
from herdbook.presentation import shapes
from herdbook.projections.sentences import describe
from herdbook.service.operations.operation import Kind, OperationState
from herdbook.service.operations.operation import Operation as ServiceOperation
from herdbook.service.problems import Problem


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation.

    Attributes:
        id: The id, and the correlation id of the events that the operation records.
        kind: The kind of operation.
        model: The model; null for a refresh.
        node: The node.
        state: ``running``, or the outcome.
        actor: The user who started it.
        started_at: Start time.
        ended_at: End time; null while it runs.
        progress: Progress of a pull or an update.
        result: Result of an unload.
        error: The error of a failed operation.
    """

    id: str
    kind: Kind
    model: str | None
    node: str
    state: OperationState
    actor: str
    started_at: datetime
    ended_at: datetime | None
    progress: shapes.Progress | None
    result: str | None
    error: Problem | None


def operation(known: ServiceOperation) -> Operation:
    """Convert an operation to its JSON schema."""
    progress = None
    if known.progress is not None and known.model is not None:
        progress = shapes.progress(known.model, known.state.value, known.progress)
    return Operation(
        id=known.id,
        kind=known.kind,
        model=known.model,
        node=known.node,
        state=known.state,
        actor=known.actor,
        started_at=known.started_at,
        ended_at=known.ended_at,
        progress=progress,
        result=known.result,
        error=known.error,
    )


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the log: envelope, data and a sentence about it.

    Attributes:
        position: Number of the event in the log.
        stream: The stream of the event.
        version: Number of the event in its stream.
        event_id: Unique id of the event.
        type: Type of the event.
        schema: Version of the schema of the data.
        data: The data of the event.
        occurred_at: Time of the event.
        recorded_at: Time at which it was recorded.
        actor: The user or program that caused it.
        cause: The reason why it was recorded.
        correlation_id: The id of the operation that recorded it.
        causation_id: The id of the event that led to this one.
        hash: SHA-256 of this event and the previous hash, 64 hexadecimal digits.
        model: The model; null for an event of a node.
        node: The node; null if the event does not belong to a node.
        sentence: The event in one sentence.
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
    node: str | None
    sentence: str


def event(recorded: RecordedEvent) -> Event:
    """Convert an event to its JSON schema."""
    key = model_of(recorded.stream)
    return Event(
        **{name: getattr(recorded, name) for name in _ENVELOPE},
        data=msgspec.to_builtins(recorded.data),
        model=key.name if key else None,
        node=key.node if key else node_of(recorded.stream),
        sentence=describe(recorded),
    )


_ENVELOPE = tuple(
    name
    for name in Event.__struct_fields__
    if name not in ("data", "model", "node", "sentence")
)


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the log.

    Attributes:
        events: The events that match the filter.
        next: Value of ``after`` for the next page, or of ``before`` if the newest come
            first; null on the last page. More pages can follow a short or empty one,
            because each request scans a limited number of events.
        head: Position of the last event of the log.
    """

    events: list[Event]
    next: int | None
    head: int


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The head of the log. Store it to verify later that the log was not altered.

    Attributes:
        position: Position of the last event; 0 in an empty log.
        hash: Hash of the last event.
    """

    position: int
    hash: str


class Progressing(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a running operation. It is not an event, so it has no position.

    Attributes:
        activity: ``pull``, ``update``, ``load`` or ``reload``.
        node: The node of the model.
        actor: The user who started it.
        since: Start time.
        waiting: Whether it waits for other operations.
        progress: The progress.
    """

    activity: str
    node: str
    actor: str
    since: datetime
    waiting: bool
    progress: shapes.Progress


def progressing(work: RunningOperation) -> Progressing:
    """Convert a running operation to a progress message."""
    return Progressing(
        activity=work.activity.value,
        node=work.node,
        actor=work.actor,
        since=work.since,
        waiting=work.waiting,
        progress=shapes.progress(work.name, "loading", work.progress),
    )


class SettingsChange(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """The new configuration of a model.

    Attributes:
        settings: All settings by name; omitted settings are removed.
        note: A note about the reason.
    """

    settings: dict[str, Setting]
    note: str = ""


class Use(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A use of a model.

    Attributes:
        purpose: The purpose.
        role: The role that the model was used for; the use counts for it only.
    """

    purpose: str = ""
    role: ModelRole | None = None


class Configuration(shapes.Config, frozen=True, kw_only=True):
    """The configuration of a model.

    Attributes:
        version: Version of its stream, for ``If-Match``.
    """

    version: int


def configuration(read_model: ReadModel, name: str) -> Configuration:
    """Return the configuration of a model as its JSON schema."""
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
    """The response of ``/healthz``.

    Attributes:
        status: ``ok``.
        version: Herdbook's version.
    """

    status: str
    version: str


class FailingTask(msgspec.Struct, frozen=True, kw_only=True):
    """A background task that is failing.

    Attributes:
        task: Name of the task; ``token_file`` if that file could not be reloaded;
            ``node/NAME`` if the log has another address for that node.
        code: Identifier of the error. The log output has the details.
        since: Time of the first failure; null if unknown.
    """

    task: str
    code: str
    since: datetime | None


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The response of ``/readyz``.

    Attributes:
        status: ``ok``, ``stopping``, ``task_failing``, or the code of an error of the
            log.
        position: Position of the last event.
        node_reached: Whether the Ollama server (with several nodes, every server)
            responds; the service works without it. Null if unknown because the last
            refreshes failed.
        lost: Names of the nodes whose server does not respond.
        refreshes: Names of the nodes that this process refreshes periodically.
        refreshed_elsewhere: Names of the nodes that other processes refresh.
        failing: Background tasks that are failing; they are retried.
        upkeep: Backups and anchors at intervals: when they were made, and when the next
            one is due.
    """

    status: str
    position: int | None
    node_reached: bool | None
    lost: tuple[str, ...] = ()
    refreshes: tuple[str, ...] = ()
    refreshed_elsewhere: tuple[str, ...] = ()
    failing: tuple[FailingTask, ...] = ()
    upkeep: tuple[UpkeepStatus, ...] = ()


def failing(tasks: Iterable[TaskStatus]) -> tuple[FailingTask, ...]:
    """Return the background tasks that are failing."""
    return tuple(
        FailingTask(task=task.name, code=task.code, since=task.failing_since)
        for task in tasks
        if not task.up
    )
