"""Operations that clients start over HTTP: start, follow, cancel, find again.

The id of an operation is the correlation id of its events, so its outcome can be read
from the log after a restart. The id is derived from the idempotency key, if there is
one: a retry, even after a restart, finds the same operation and starts nothing. The
service owns the tasks; a graceful stop interrupts them and records that.
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
    Fleet,
    HerdbookError,
    ModelManager,
    OperationEndedError,
    ReadModel,
    acting_as,
)
from herdbook.core.fleet import queries
from herdbook.core.logging import Logger
from herdbook.core.models.configuration import check_load
from herdbook.events.recorded import new_id
from herdbook.events.shared.cancellation import finish
from herdbook.presentation.model_not_found import model_not_found
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
"""Maximum number of ended operations in memory; older ones are read from the log."""

_NAMESPACE: Final = UUID("8f1f1d3c-5f0e-4b6e-9b0a-6d1d0d7a3c11")
_log = Logger("herdbook.operations")
_ACTIVITIES: Final = {
    Kind.PULL: Activity.PULL,
    Kind.UPDATE: Activity.UPDATE,
    Kind.LOAD: Activity.LOAD,
}


class ClientOperations:
    """The operations of one service, and their tasks.

    Args:
        fleet: The nodes, whose managers do the work.
        clock: The clock.
        fetched: Called with the number of bytes that a pull has downloaded since the
            previous call.

    Attributes:
        stopping: Whether new operations are refused.
    """

    def __init__(
        self, fleet: Fleet, clock: Clock, *, fetched: Callable[[int], None]
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._fetched = fetched
        self._logged = LoggedOperations(fleet, clock)
        self._known: dict[str, Operation] = {}
        self._starting = asyncio.Lock()
        self.stopping = False

    def all(self) -> list[Operation]:
        """Return the operations in memory, newest first."""
        unique = {operation.id: operation for operation in self._known.values()}
        return sorted(
            unique.values(), key=lambda one: (one.started_at, one.id), reverse=True
        )

    async def listed(self) -> list[Operation]:
        """Return those in memory, and the running ones of other processes.

        The newest are first.
        """
        own = self.all()
        known = {one.id for one in own}
        elsewhere = [
            await self._from_log(work.operation)
            for models in await self._fleet.now()
            for record in models.records()
            for work in (record.work, record.update)
            if work is not None
            and work.operation is not None
            and work.operation not in known
        ]
        running = [one for one in elsewhere if one is not None and one.running]
        return sorted(
            (*own, *running), key=lambda one: (one.started_at, one.id), reverse=True
        )

    def of_model(self, name: str, node: str) -> Operation | None:
        """Return the running operation of a model on a node, if there is one."""
        return next(
            (
                one
                for one in self.all()
                if one.running and one.model == name and one.node == node
            ),
            None,
        )

    async def get(self, operation_id: str) -> Operation:
        """Return an operation, from memory or from the log.

        Raises:
            UnknownOperationError: The id is unknown.
        """
        known = self._known.get(operation_id) or await self._from_log(operation_id)
        if known is None:
            raise UnknownOperationError(operation_id)
        return known

    async def start(
        self, request: OperationRequest, principal: Principal, *, key: str | None = None
    ) -> Operation:
        """Start an operation, or return the running one that does the same.

        Args:
            request: The request.
            principal: The user.
            key: The idempotency key. The same key of the same user finds the same
                operation, for 24 hours and across restarts.

        Raises:
            StoppingError: The service is stopping.
            KeyReusedError: The key was sent before with another request.
            CallerError: The request is not valid, or not possible now.
        """
        async with self._starting:
            if self.stopping:
                raise StoppingError("the service", "is stopping", "Try again later")
            manager = await self._manager_for(request)
            read_model = await manager.now()
            request = _validated(request, read_model)
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

    async def _manager_for(self, request: OperationRequest) -> ModelManager:
        """Return the manager of the node that a request means.

        Raises:
            AmbiguousNodeError: It may mean several nodes.
            NoPlaceError: No node may get the model of a pull.
            CallerError: The request is not valid.
        """
        if request.node is not None:
            return self._fleet.manager(request.node)
        if request.kind is Kind.REFRESH or request.model is None:
            return queries.only_node(self._fleet)
        if request.kind is Kind.PULL:
            return await queries.node_to_pull(self._fleet, request.model)
        return await queries.node_with(self._fleet, request.model)

    def _joinable(self, request: OperationRequest) -> Operation | None:
        """Return the running operation that does the same as a request.

        Raises:
            BusyError: A different operation is running on the model.
        """
        for running in self._known.values():
            same = running.model == request.model and running.node == request.node
            if not running.running or not same:
                continue
            if running.request == request or {running.kind, request.kind} == {
                Kind.PULL,
                Kind.UPDATE,
            }:
                return running
            if request.kind is not Kind.UNLOAD:  # an unload waits for a load
                raise BusyError(
                    str(request.model),
                    f"already has a running {running.kind}, started by {running.actor}",
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
        operation.task.add_done_callback(partial(self._on_task_end, operation))
        return operation

    def _on_task_end(self, operation: Operation, task: asyncio.Task[None]) -> None:
        """End the operation of a task that has ended, whatever the reason."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.warning(
                "operation_crashed", operation=operation.id, reason=repr(error)[:500]
            )
        if operation.running:
            self._fail(operation, UNEXPECTED)

    async def _run(self, operation: Operation) -> None:
        """Run an operation and store its outcome in it."""
        try:
            with acting_as(operation.actor, correlation_id=operation.id):
                await self._perform(operation)
        except asyncio.CancelledError:
            await finish(self._end_stopped(operation))
            raise
        except OperationEndedError:
            await finish(self._end_stopped(operation))
        except HerdbookError as error:
            self._fail(operation, problem_of(error))
        except Exception as error:  # noqa: BLE001 - reported as an unexpected error
            self._fail(operation, UNEXPECTED)
            _log.warning(
                "operation_crashed", operation=operation.id, reason=repr(error)[:500]
            )
        else:
            operation.end(OperationState.SUCCEEDED, self._clock.now())

    def _fail(self, operation: Operation, problem: Problem) -> None:
        operation.error = problem
        operation.end(OperationState.FAILED, self._clock.now())

    async def _end_stopped(self, operation: Operation) -> None:
        """Set the outcome of a stopped operation; it may have succeeded before."""
        interrupted = self.stopping and not operation.cancelled
        state = OperationState.INTERRUPTED if interrupted else OperationState.CANCELLED
        try:
            events = await self._logged.since(operation.after, operation.id)
            found = restored(events, await self._fleet.home.now())
        except HerdbookError as error:
            _log.warning(
                "operation_end_not_read", operation=operation.id, reason=str(error)
            )
            found = None
        if found is not None and found.ended_at is not None:
            state = OperationState(found.state)
            operation.result, operation.error = found.result, found.error
        operation.end(state, self._clock.now())

    async def _perform(self, operation: Operation) -> None:
        request, name = operation.request, operation.request.model or ""
        manager = self._fleet.manager(operation.node)
        match request.kind:
            case Kind.PULL | Kind.UPDATE:
                await self._pull(operation, manager, name)
            case Kind.LOAD:
                await manager.load(
                    name, options=request.options, keep_alive=request.keep_alive
                )
            case Kind.UNLOAD:
                operation.result = (await manager.unload(name)).value
            case Kind.REFRESH:
                await manager.refresh()

    async def _pull(
        self, operation: Operation, manager: ModelManager, name: str
    ) -> None:
        pull = manager.pull(name, insecure=operation.request.insecure)
        before = 0
        async with aclosing(pull) as progress:
            async for latest in progress:
                operation.progress = latest
                fetched = latest.fetched_bytes or before
                self._fetched(max(fetched - before, 0))
                before = fetched

    async def cancel(self, operation_id: str, principal: Principal) -> Operation:
        """Cancel an operation and wait for its end.

        An operation that has ended is returned unchanged. An unload is not cancelled
        but waited for: the request to the server takes seconds and cannot be undone.

        Raises:
            UnknownOperationError: The id is unknown.
            BusyError: Another instance runs the operation, and did not cancel it in
                time. The request stays recorded.
        """
        operation = await self.get(operation_id)
        if not operation.running:
            return operation
        if operation.task is None:
            with acting_as(principal.actor):
                await self._cancel_work(operation, operation.model or "")
            return await self.get(operation_id)
        if operation.kind is not Kind.UNLOAD:
            operation.cancelled = True
            if operation.model is not None:
                with acting_as(principal.actor):
                    await self._cancel_work(operation, operation.model)
            operation.task.cancel()
        await asyncio.wait([operation.task])
        return operation

    async def _cancel_work(self, operation: Operation, name: str) -> None:
        try:
            manager = self._fleet.manager(operation.node)
            await manager.cancel(name, _ACTIVITIES[operation.kind])
        except OperationEndedError as error:  # recorded as interrupted
            _log.info("not_cancelled", operation=operation.id, reason=str(error))
        except BusyError:
            operation.cancelled = False
            raise

    async def close(self) -> None:
        """Refuse new operations and interrupt running ones, which records that."""
        self.stopping = True
        async with self._starting:
            tasks = [
                operation.task
                for operation in self.all()
                if operation.task is not None and not operation.task.done()
            ]
        # Together: one after another, each would wait for a turn of the event loop.
        managers = self._fleet.managers()
        await asyncio.gather(*(manager.interrupt() for manager in managers))
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _forget(self) -> None:
        ended = [key for key, one in self._known.items() if not one.running]
        for key in ended[: max(len(ended) - REMEMBERED, 0)]:
            del self._known[key]

    async def _from_log(self, operation_id: str) -> Operation | None:
        events = await self._logged.events(operation_id)
        found = restored(events, await self._fleet.home.now())
        return None if found is None else _of_log(operation_id, found)


def _validated(request: OperationRequest, read_model: ReadModel) -> OperationRequest:
    """Validate a request and return it with the canonical name of the model.

    Raises:
        CallerError: The request is not valid, whatever the state of the model.
    """
    if request.kind is Kind.REFRESH:
        return OperationRequest(kind=Kind.REFRESH, node=read_model.node)
    if request.model is None:
        raise BadRequestError("model", f"is required for {request.kind}")
    if request.options or request.keep_alive is not None:
        if request.kind is not Kind.LOAD:
            raise BadRequestError(
                "options and keep_alive", "are only valid for load", "Remove them"
            )
        check_load(request.options, request.keep_alive)
    status = read_model.status(request.model)
    return msgspec.structs.replace(request, model=status.name, node=status.node)


def _check_presence(request: OperationRequest, read_model: ReadModel) -> None:
    """Check that the model is present, unless the request is a pull.

    Raises:
        BusyError: The model is being pulled, but not by an operation of this service.
        ModelNotFoundError: The model is not present.
    """
    if request.model is None or request.kind is Kind.PULL:
        return
    status = read_model.status(request.model)
    if status.present:
        return
    if status.work is not None:
        raise BusyError(
            status.name,
            f"already has a running {status.work.activity}, started by "
            f"{status.work.actor}",
            "Wait for it, or cancel it",
        )
    raise model_not_found(read_model, status.name)


def _of_log(operation_id: str, found: RestoredOperation) -> Operation:
    request = OperationRequest(
        kind=Kind(found.kind),
        model=found.model,
        node=found.node,
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
    """Derive the id of an operation from a user's idempotency key.

    Raises:
        BadRequestError: The key is empty, too long or not printable.
    """
    if not key or len(key) > 255 or not key.isprintable():
        raise BadRequestError(
            "Idempotency-Key", "is not valid", "Send 1 to 255 printable characters"
        )
    return str(uuid5(_NAMESPACE, f"{principal.actor}\n{key}"))


def _same(found: Operation, request: OperationRequest) -> Operation:
    """Return the operation of an idempotency key, if it fits the request.

    Raises:
        KeyReusedError: It was started by another request.
    """
    alike: Mapping[Kind, Kind] = {Kind.UPDATE: Kind.PULL}
    kinds = {alike.get(kind, kind) for kind in (found.kind, request.kind)}
    same = found.model == request.model and found.node == request.node
    if len(kinds) > 1 or not same:
        raise KeyReusedError(
            "this Idempotency-Key",
            f"was already used to {found.kind} {found.model or 'the server'}",
            "Use a new key for each request",
        )
    return found
