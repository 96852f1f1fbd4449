"""One operation: what was asked for, how far it is, and how it ended."""

from __future__ import annotations

import asyncio
from datetime import datetime
from enum import StrEnum

import msgspec

from herdbook.core import PullProgress
from herdbook.events.facts import Setting
from herdbook.service.problems import Problem


class Kind(StrEnum):
    """What can be asked for."""

    PULL = "pull"
    UPDATE = "update"
    LOAD = "load"
    UNLOAD = "unload"
    REFRESH = "refresh"


class OperationState(StrEnum):
    """How far an operation is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class OperationRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """What is asked for.

    Attributes:
        kind: What to do.
        model: Which model; every kind but a refresh needs one.
        insecure: Whether the registry may be asked without TLS (pull, update).
        options: Options of the server for this load, on top of the configured ones.
        keep_alive: How long it is to stay in memory (load), as Ollama takes it.
    """

    kind: Kind
    model: str | None = None
    insecure: bool = False
    options: dict[str, Setting] = {}
    keep_alive: str | int | float | None = None


class Operation:
    """One operation, under way or ended.

    Attributes:
        id: Its id, and the correlation id of what it records.
        request: What was asked for, with the model's canonical name.
        actor: Who asked.
        started_at: When.
        ended_at: When it was over; None while it runs.
        state: How far it is.
        progress: The newest progress of a pull or an update.
        result: How an unload went: ``unloaded``, ``deferred`` or ``not_loaded``.
        error: What went wrong.
        after: The position of the log behind which it began.
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
        """What it does."""
        return self.request.kind

    @property
    def model(self) -> str | None:
        """The model that it is about."""
        return self.request.model

    @property
    def running(self) -> bool:
        """Whether it still goes on."""
        return self.state is OperationState.RUNNING

    def end(self, state: OperationState, at: datetime) -> None:
        """Say how it ended."""
        self.state, self.ended_at = state, at
