"""One operation: its request, its progress and its outcome."""

from __future__ import annotations

import asyncio
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec

from herdbook.core import PullProgress
from herdbook.events.facts import Setting
from herdbook.service.problems import Problem


class Kind(StrEnum):
    """The kind of an operation."""

    PULL = "pull"
    UPDATE = "update"
    LOAD = "load"
    UNLOAD = "unload"
    REFRESH = "refresh"


class OperationState(StrEnum):
    """The state of an operation."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class OperationRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """A request to start an operation.

    Attributes:
        kind: The kind of operation.
        model: The model; required for all kinds except refresh.
        node: The node; by default the only one, or the one that has the model. A pull
            of a model that no node has goes to the node with the most free memory.
        insecure: Allow a registry without TLS (pull, update).
        options: Ollama options for this load, in addition to the configured ones.
        keep_alive: How long the model stays loaded (load), in the format of Ollama.
    """

    kind: Kind
    model: str | None = None
    node: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    insecure: bool = False
    options: dict[str, Setting] = {}
    keep_alive: str | int | float | None = None


class Operation:
    """An operation that is running or has ended.

    Attributes:
        id: The id, and the correlation id of the events that it records.
        request: The request, with the canonical name of the model.
        actor: The user who started it.
        started_at: Start time.
        ended_at: End time; None while it runs.
        state: The state.
        progress: The latest progress of a pull or an update.
        result: Result of an unload: ``unloaded``, ``deferred`` or ``not_loaded``.
        error: The error of a failed operation.
        after: Position of the last event before its start.
        cancelled: Whether a client asked to cancel it.
        task: The task that runs it; None if it was read from the log.
    """

    def __init__(
        self, operation_id: str, request: OperationRequest, actor: str, at: datetime
    ) -> None:
        self.id = operation_id
        self.request = request
        self.actor = actor
        self.started_at = at
        self.ended_at: datetime | None = None
        self.state = OperationState.RUNNING
        self.progress: PullProgress | None = None
        self.result: str | None = None
        self.error: Problem | None = None
        self.after = 0
        self.cancelled = False
        self.task: asyncio.Task[None] | None = None

    @property
    def kind(self) -> Kind:
        """The kind of operation."""
        return self.request.kind

    @property
    def model(self) -> str | None:
        """The canonical name of the model; None for a refresh."""
        return self.request.model

    @property
    def node(self) -> str:
        """The name of the node."""
        return self.request.node or ""

    @property
    def running(self) -> bool:
        """Whether it is still running."""
        return self.state is OperationState.RUNNING

    def end(self, state: OperationState, at: datetime) -> None:
        """Set the outcome and the end time."""
        self.state, self.ended_at = state, at
