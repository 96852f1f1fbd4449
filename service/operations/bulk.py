"""Do the same with several models; a model that fails does not stop the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from herdbook.core import HerdbookError, ModelManager
from herdbook.core.desired.plan import deletions
from herdbook.service.auth.tokens import Principal
from herdbook.service.operations.client_operations import ClientOperations
from herdbook.service.operations.operation import (
    Kind,
    OperationRequest,
    OperationState,
)
from herdbook.service.problems import Problem, problem_of

MOST_MODELS: Final = 100
"""Models of one request at most."""

UNLOAD_TIMEOUT_S: Final = 30.0
"""Seconds after which an unload is reported as running."""


class BulkAction(StrEnum):
    """What is done with several models."""

    DELETE = "delete"
    UNLOAD = "unload"
    PULL = "pull"


class BulkResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one model.

    Attributes:
        name: The model.
        done: Whether it succeeded; a pull has succeeded when it has started.
        running: Whether it is still running.
        freed_bytes: Disk space that its deletion freed, bytes.
        error: Why it failed.
    """

    name: str
    done: bool
    running: bool = False
    freed_bytes: int = 0
    error: Problem | None = None


async def delete_models(
    manager: ModelManager, names: Iterable[str]
) -> list[BulkResult]:
    """Delete some models, one after the other, as the current actor."""
    results = []
    for name in names:
        try:
            # Asked again for each: a failure leaves a model that shares the weights.
            steps = deletions((await manager.now()).statuses(), [name])
            await manager.delete(name)
        except HerdbookError as error:
            results.append(_failed(name, error))
        else:
            freed = sum(step.frees_bytes for step in steps)
            results.append(BulkResult(name=name, done=True, freed_bytes=freed))
    return results


async def start_operations(
    operations: ClientOperations,
    manager: ModelManager,
    action: BulkAction,
    names: Sequence[str],
    principal: Principal,
) -> list[BulkResult]:
    """Pull or unload some models. Pulls continue; unloads are awaited.

    Args:
        operations: The operations of the service.
        manager: The manager.
        action: Pull or unload; a model that is present is updated.
        names: The models.
        principal: Who asks.
    """
    results: dict[str, BulkResult] = {}
    started = {}
    for name in names:
        present = (await manager.get_status(name)).present
        kind = Kind.UPDATE if present else Kind.PULL
        if action is BulkAction.UNLOAD:
            kind = Kind.UNLOAD
        try:
            node = manager.latest().node
            wanted = OperationRequest(kind=kind, model=name, node=node)
            started[name] = await operations.start(wanted, principal)
        except HerdbookError as error:
            results[name] = _failed(name, error)
        else:
            results[name] = BulkResult(name=name, done=True, running=True)
    if action is BulkAction.UNLOAD:
        tasks = [each.task for each in started.values() if each.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=UNLOAD_TIMEOUT_S)
        for name, operation in started.items():
            results[name] = BulkResult(
                name=name,
                done=operation.state
                in (OperationState.SUCCEEDED, OperationState.RUNNING),
                running=operation.running,
                error=operation.error,
            )
    return [results[name] for name in names]


def _failed(name: str, error: HerdbookError) -> BulkResult:
    return BulkResult(name=name, done=False, error=problem_of(error))
