"""Long work as others ask for it over HTTP: begun at once, followed, cancelled.

An operation's id is the correlation id of all that it records, so the log alone can
tell what became of it after a restart. The id of one that was asked for with an
idempotency key is made of that key: asking again, even after a restart, finds the
same operation and begins nothing. The service owns the tasks; a graceful stop ends
them, and what they were at is recorded as interrupted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Final
from uuid import UUID, uuid5

import msgspec

from herdbook.core import (
    Activity,
    BusyError,
    Clock,
    HerdbookError,
    ModelManager,
    ModelNotFoundError,
    OperationEndedError,
    ReadModel,
)
from herdbook.core.concurrency.cancellation import finish
from herdbook.core.logging import Logger
from herdbook.core.models.configuration import check_load
from herdbook.events.recorded import new_id
from herdbook.service.auth.tokens import Principal
from herdbook.service.errors import (
    BadRequestError,
    KeyReusedError,
    StoppingError,
    UnknownOperationError,
)
from herdbook.service.operations.lookup import LoggedOperations
from herdbook.service.operations.operation import (
    Kind,
    Operation,
    OperationRequest,
    OperationState,
)
from herdbook.service.operations.restore import RestoredOperation, restored
from herdbook.service.problems import UNEXPECTED, Problem, problem_of

REMEMBERED: Final = 1_000
"""Ended operations that are kept in memory; the log has the others."""

_NAMESPACE: Final = UUID("8f1f1d3c-5f0e-4b6e-9b0a-6d1d0d7a3c11")
_log = Logger("herdbook.operations")
_ACTIVITIES: Final = {
    Kind.PULL: Activity.PULL,
    Kind.UPDATE: Activity.UPDATE,
    Kind.LOAD: Activity.LOAD,
}


class Operations:
    """The operations of one service; it owns their tasks.

    Args:
        manager: The manager that does the work.
        clock: What time it is.
        fetched: Is told how many bytes more a pull has fetched.
    """

    def __init__(
        self, manager: ModelManager, clock: Clock, *, fetched: Callable[[int], None]
    ) -> None:
        self._manager = manager
        self._clock = clock
        self._fetched = fetched
        self._begun = LoggedOperations(manager, clock)
        self._known: dict[str, Operation] = {}
        self._starting = asyncio.Lock()
        self.stopping = False

    def all(self) -> list[Operation]:
        """Return the operations that are remembered, the newest first."""
        unique = {operation.id: operation for operation in self._known.values()}
        return sorted(
            unique.values(), key=lambda one: (one.started_at, one.id), reverse=True
        )

    def of_model(self, name: str) -> Operation | None:
        """Return the operation under way on a model, if there is one."""
        return next((o for o in self.all() if o.running and o.model == name), None)

    async def get(self, operation_id: str) -> Operation:
        """Return an operation, from the log if it is of a run before this one.

        Raises:
            UnknownOperationError: Nobody knows it.
        """
        known = self._known.get(operation_id) or await self._from_log(operation_id)
        if known is None:
            raise UnknownOperationError(operation_id)
        return known

    async def start(
        self, request: OperationRequest, principal: Principal, *, key: str | None = None
    ) -> Operation:
        """Begin an operation, or return the one that does that already.

        Args:
            request: What is asked for.
            principal: Who asks.
            key: The idempotency key, if there is one: the same key of the same
                caller finds the same operation, for a day and across restarts.

        Raises:
            StoppingError: The service begins nothing any more.
            KeyReusedError: The key came with another request before.
            CallerError: What is asked for cannot be.
        """
        async with self._starting:
            if self.stopping:
                raise StoppingError("the service", "is stopping", "Try again later")
            read_model = await self._manager.now()
            request = _understood(request, read_model)
            operation_id = new_id() if key is None else _id_of(key, principal)
            if key is not None:
                found = self._known.get(operation_id)
                found = found or await self._from_log(operation_id)
                if found is not None:
                    return _same(found, request)
            operation = self._joinable(request)
            if operation is None:
                _check_presence(request, read_model)
                operation = self._begin(
                    operation_id, request, principal, after=read_model.position
                )
            self._known[operation_id] = operation
            self._forget()
            return operation

    def _joinable(self, request: OperationRequest) -> Operation | None:
        """Return the running operation that does what is asked for.

        Raises:
            BusyError: One is at work on the model in another way.
        """
        for running in self._known.values():
            if not running.running or running.model != request.model:
                continue
            if running.request == request or {running.kind, request.kind} == {
                Kind.PULL,
                Kind.UPDATE,
            }:
                return running
            if request.kind is not Kind.UNLOAD:  # that waits for a load
                raise BusyError(
                    str(request.model),
                    f"has a {running.kind} under way for {running.actor}",
                    f"Wait for operation {running.id}, or cancel it",
                )
        return None

    def _begin(
        self,
        operation_id: str,
        request: OperationRequest,
        principal: Principal,
        *,
        after: int,
    ) -> Operation:
        now = self._clock.now()
        operation = Operation(operation_id, request, principal.actor, now)
        operation.after = after
        operation.task = asyncio.create_task(
            self._run(operation), name=f"herdbook operation {operation_id}"
        )
        operation.task.add_done_callback(partial(self._over, operation))
        return operation

    def _over(self, operation: Operation, task: asyncio.Task[None]) -> None:
        """Leave no operation running whose task has ended, however that came about."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.warning(
                "operation_broken", operation=operation.id, reason=repr(error)[:500]
            )
        if operation.running:
            self._fail(operation, UNEXPECTED)

    async def _run(self, operation: Operation) -> None:
        """Do what was asked for; how it ends stands in the operation."""
        try:
            with self._manager.acting_as(operation.actor, correlation_id=operation.id):
                await self._do(operation)
        except asyncio.CancelledError:
            await finish(self._end_stopped(operation))
            raise
        except OperationEndedError:
            await finish(self._end_stopped(operation))
        except HerdbookError as error:
            self._fail(operation, problem_of(error))
        except Exception as error:  # noqa: BLE001 - told as what it is: a fault of ours
            self._fail(operation, UNEXPECTED)
            _log.warning(
                "operation_broken", operation=operation.id, reason=repr(error)[:500]
            )
        else:
            operation.end(OperationState.SUCCEEDED, self._clock.now())

    def _fail(self, operation: Operation, problem: Problem) -> None:
        operation.error = problem
        operation.end(OperationState.FAILED, self._clock.now())

    async def _end_stopped(self, operation: Operation) -> None:
        """Say how one ended that was told to: it may have been through before that."""
        interrupted = self.stopping and not operation.cancelled
        state = OperationState.INTERRUPTED if interrupted else OperationState.CANCELLED
        try:
            events = await self._begun.since(operation.after, operation.id)
            found = restored(events, await self._manager.now())
        except HerdbookError as error:
            _log.warning("end_not_read", operation=operation.id, reason=str(error))
            found = None
        if found is not None and found.ended_at is not None:
            state = OperationState(found.state)
            operation.result, operation.error = found.result, found.error
        operation.end(state, self._clock.now())

    async def _do(self, operation: Operation) -> None:
        request, name = operation.request, operation.request.model or ""
        match request.kind:
            case Kind.PULL | Kind.UPDATE:
                await self._pull(operation, name)
            case Kind.LOAD:
                await self._manager.load(
                    name, options=request.options, keep_alive=request.keep_alive
                )
            case Kind.UNLOAD:
                operation.result = (await self._manager.unload(name)).value
            case Kind.REFRESH:
                await self._manager.refresh()

    async def _pull(self, operation: Operation, name: str) -> None:
        pull = self._manager.pull(name, insecure=operation.request.insecure)
        before = 0
        async with aclosing(pull) as progress:
            async for told in progress:
                operation.progress = told
                fetched = told.fetched_bytes or before
                self._fetched(max(fetched - before, 0))
                before = fetched

    async def cancel(self, operation_id: str, principal: Principal) -> Operation:
        """Cancel an operation, and see it ended; one that has ended stays as it is.

        An unload is waited for: the server has been asked, and takes seconds.

        Raises:
            UnknownOperationError: Nobody knows it.
            BusyError: Another instance does the work; it is cancelled there.
        """
        operation = await self.get(operation_id)
        if not operation.running:
            return operation
        if operation.task is None:
            raise BusyError(
                str(operation.model),
                f"has a {operation.kind} under way for {operation.actor} elsewhere",
                "Wait for it, or cancel it where it was started",
            )
        if operation.kind is not Kind.UNLOAD:  # the server cannot take that back
            operation.cancelled = True
            if operation.model is not None:
                with self._manager.acting_as(principal.actor):
                    await self._cancel_work(operation, operation.model)
            operation.task.cancel()
        await asyncio.wait([operation.task])
        return operation

    async def _cancel_work(self, operation: Operation, name: str) -> None:
        try:
            await self._manager.cancel(name, _ACTIVITIES[operation.kind])
        except BusyError:
            operation.cancelled = False
            raise

    async def close(self) -> None:
        """Begin nothing more; interrupt what is under way, and see it recorded."""
        self.stopping = True
        async with self._starting:
            tasks = [
                operation.task
                for operation in self.all()
                if operation.task is not None and not operation.task.done()
            ]
        await self._manager.interrupt()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _forget(self) -> None:
        ended = [key for key, one in self._known.items() if not one.running]
        for key in ended[: max(len(ended) - REMEMBERED, 0)]:
            del self._known[key]

    async def _from_log(self, operation_id: str) -> Operation | None:
        events = await self._begun.events(operation_id)
        found = restored(events, await self._manager.now())
        return None if found is None else _of_log(operation_id, found)


def _understood(request: OperationRequest, read_model: ReadModel) -> OperationRequest:
    """Return the request with its model's canonical name.

    Raises:
        CallerError: It makes no sense, whatever the state of the model.
    """
    if request.kind is Kind.REFRESH:
        return OperationRequest(kind=Kind.REFRESH)
    if request.model is None:
        raise BadRequestError("model", f"is missing; {request.kind} needs one")
    if request.options or request.keep_alive is not None:
        if request.kind is not Kind.LOAD:
            raise BadRequestError(
                "options and keep_alive", "are for a load", "Leave them out"
            )
        check_load(request.options, request.keep_alive)
    return msgspec.structs.replace(request, model=read_model.status(request.model).name)


def _check_presence(request: OperationRequest, read_model: ReadModel) -> None:
    """Refuse what needs a model that is not there.

    Raises:
        BusyError: It is being fetched, but not by an operation of this service.
        ModelNotFoundError: It is not.
    """
    if request.model is None or request.kind is Kind.PULL:
        return
    status = read_model.status(request.model)
    if status.present:
        return
    if status.work is not None:
        raise BusyError(
            status.name,
            f"has a {status.work.activity} under way for {status.work.actor}",
            "Wait for it, or cancel it where it was started",
        )
    raise ModelNotFoundError(status.name, where=status.node)


def _of_log(operation_id: str, found: RestoredOperation) -> Operation:
    request = OperationRequest(
        kind=Kind(found.kind),
        model=found.model,
        insecure=found.insecure,
        options=dict(found.options),
        keep_alive=found.keep_alive,
    )
    operation = Operation(operation_id, request, found.actor, found.started_at)
    operation.progress = found.progress
    operation.result = found.result
    operation.error = found.error
    operation.state = OperationState(found.state)
    operation.ended_at = found.ended_at
    return operation


def _id_of(key: str, principal: Principal) -> str:
    """Return the id that a caller's key stands for.

    Raises:
        BadRequestError: The key is empty, too long or does not print.
    """
    if not key or len(key) > 255 or not key.isprintable():
        raise BadRequestError(
            "Idempotency-Key", "is no key", "Send 1 to 255 printable characters"
        )
    return str(uuid5(_NAMESPACE, f"{principal.actor}\n{key}"))


def _same(found: Operation, request: OperationRequest) -> Operation:
    """Return the operation, if it is what is asked for.

    Raises:
        KeyReusedError: It is not.
    """
    alike: Mapping[Kind, Kind] = {Kind.UPDATE: Kind.PULL}
    kinds = {alike.get(kind, kind) for kind in (found.kind, request.kind)}
    if len(kinds) > 1 or found.model != request.model:
        raise KeyReusedError(
            "this Idempotency-Key",
            f"was sent before to {found.kind} {found.model or 'the server'}",
            "Send another key with another request",
        )
    return found
