"""Commands of the manager: pull, load, unload, delete, cancel.

A command changes the server, confirms the change there and records it. Pulls and loads
run as operations, one per model. Operations of other instances are followed, refused,
or cancelled by a recorded request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from herdbook.core.actor import RECONCILER, acting_as
from herdbook.core.clock import Clock
from herdbook.core.concurrency.work_tracker import WorkTracker
from herdbook.core.errors import (
    CloudModelError,
    HerdbookError,
    IllegalTransitionError,
    ModelNotFoundError,
    OllamaError,
)
from herdbook.core.errors.suggestions import did_you_mean_model
from herdbook.core.logging import Logger
from herdbook.core.models import configuration
from herdbook.core.models.registry import ModelRegistry
from herdbook.core.open_log import OpenLog
from herdbook.core.operations.context import OperationContext
from herdbook.core.operations.loads import Loader, UnloadResult
from herdbook.core.operations.operations import Operation, Operations, RunningOperation
from herdbook.core.operations.other_instances import OtherInstances
from herdbook.core.operations.pins import Pins
from herdbook.core.operations.pull_progress import PullProgress
from herdbook.core.operations.pulls import Puller
from herdbook.core.operations.runners import LoadRequest
from herdbook.core.operations.uses import Uses
from herdbook.core.queries import Queries
from herdbook.core.reconcile.reconciler import Reconciler
from herdbook.core.reconcile.server_state import ServerState
from herdbook.core.reconcile.watch import Watch
from herdbook.core.repository import ATTEMPTS, ModelRepository, changes_too_often
from herdbook.core.settings import ManagerSettings
from herdbook.events.facts import Setting
from herdbook.events.lifecycle import LOADS, Activity, ModelState
from herdbook.events.recorded import Cause
from herdbook.events.shared.cancellation import finish
from herdbook.projections.status import ModelStatus

if TYPE_CHECKING:
    from herdbook.core.ollama.client import OllamaClient

_log = Logger("herdbook.commands")


_PULLS = (Activity.PULL, Activity.UPDATE)


class Commands(Queries):
    """Queries and commands of a manager; see ``ModelManager``."""

    def __init__(
        self,
        log: OpenLog,
        repository: ModelRepository,
        client: OllamaClient,
        registry: ModelRegistry,
        *,
        clock: Clock,
        settings: ManagerSettings,
    ) -> None:
        super().__init__(log, repository, registry)
        self._client = client
        self._clock = clock
        self._settings = settings
        self._pins = Pins(clock=clock, settings=settings)
        self._pulls = Operations()
        self._loads = Operations()
        instances = log.instances()
        self._instances = instances
        self._changes = WorkTracker(
            instances, repository.stream, clock=clock, node=repository.node
        )
        self._other_instances = OtherInstances(
            repository,
            instances,
            clock=clock,
            poll_every_s=settings.log_poll_every_s,
        )
        self._reconciler = Reconciler(
            repository,
            client,
            registry,
            instances,
            clock=clock,
            settings=settings,
            changes=self._changes,
            at_work=self._is_running,
        )
        context = OperationContext(
            repository,
            client,
            self._reconciler,
            self._changes,
            instances.own,
            clock,
            settings,
        )
        self._watch = Watch(
            repository,
            self._reconciler,
            keep_views=self._save_snapshots,
            load_pinned=self._load_pinned,
            refreshing=log.refreshing,
            instances=self._instances,
            clock=clock,
            settings=settings,
        )
        self.uses = Uses(
            repository, self._reconciler, self.latest, self._latest_settings
        )
        self._puller = Puller(context)
        self._loader = Loader(context)

    async def refresh(self) -> ServerState:
        """Read the state of the server and record what has changed.

        Raises:
            OllamaError: The server does not answer; the node is recorded as lost.
        """
        server = await self._reconciler.refresh()
        await self._save_snapshots()
        return server

    async def ensure_available(
        self, name: str, *, insecure: bool = False
    ) -> ModelStatus:
        """Pull a model unless it is present, and wait until it is.

        A running pull of the same model is joined.

        Args:
            name: The model.
            insecure: Allow a registry without TLS.

        Returns:
            The status of the present model.

        Raises:
            OllamaError: The server does not answer, or the pull failed.
            OperationEndedError: The pull was cancelled.
        """
        await self.refresh()
        if not await self.is_available(name):
            async with aclosing(self.pull(name, insecure=insecure)) as progress:
                async for _ in progress:
                    pass
        return await self.get_status(name)

    async def pull(
        self, name: str, *, insecure: bool = False
    ) -> AsyncGenerator[PullProgress, None]:
        """Pull a model, or update it if it is present, and yield the newest progress.

        All callers that pull the same model share one operation, which is cancelled
        when the last of them stops iterating.

        Args:
            name: The model.
            insecure: Allow a registry without TLS.

        Raises:
            OllamaError: The pull failed.
            OperationEndedError: The pull was cancelled.
        """
        name = (await self.now()).spelled(name)
        for _ in range(ATTEMPTS):
            if (work := await self._other_instances.work(name)) is not None:
                followed = self._other_instances.follow(name, work)
            else:
                pull = await self._pulls.joinable(name)
                pull = pull or await self._start_pull(name, insecure=insecure)
                followed = pull.follow()
            try:
                async with aclosing(followed):
                    async for progress in followed:
                        yield progress
            except IllegalTransitionError:
                continue  # the model changed before the pull started: decide again
            if work is None or await self.is_available(name):
                return
        raise changes_too_often(name, ATTEMPTS)

    async def _start_pull(self, name: str, *, insecure: bool) -> Operation:
        self._reconciler.check_address()
        present = await self.is_available(name)

        async def work(pull: Operation) -> None:
            try:
                await self._puller.pull(pull, insecure=insecure)
            except OllamaError:
                await self._try_refresh()
                raise
            if self.latest().status(name).state is ModelState.LOADED:
                await self._try_refresh()  # the runner may still have the old weights

        return self._pulls.get(name) or self._pulls.start(
            name,
            Activity.UPDATE if present else Activity.PULL,
            work,
            actor=self._repository.actor(),
            since=self._clock.now(),
        )

    def _is_running(self, name: str) -> bool:
        return any(works.get(name) for works in (self._pulls, self._loads))

    def under_way(self) -> list[RunningOperation]:
        """Return the running operations of this manager.

        For those of other instances, see ``ModelStatus.work`` and ``.update``.
        """
        running = (*self._pulls.all(), *self._loads.all())
        node = self._repository.node
        return [
            msgspec.structs.replace(operation.snapshot(), node=node)
            for operation in running
        ]

    async def cancel(self, name: str, activity: Activity | None = None) -> bool:
        """Cancel the work on a model and wait until that is recorded.

        The operation of another instance is cancelled by a recorded request, which that
        instance follows. The recorded actor is who cancels, not who started the
        operation.

        Args:
            name: The model.
            activity: ``LOAD`` or ``RELOAD`` cancels only a load or a reload,
                ``PULL`` or ``UPDATE`` only a pull or an update; None cancels all.

        Returns:
            Whether an operation was cancelled. False if none was running, or it ended
            otherwise before it could be cancelled.

        Raises:
            OperationEndedError: The operation was interrupted, because the instance
                that ran it is dead.
            BusyError: Another instance runs the operation, and did not cancel it within
                10 s. The request stays recorded.
        """
        name = (await self.now()).spelled(name)
        loads = None if activity is None else activity in LOADS
        pull = None if loads else self._pulls.get(name)
        load = self._loads.get(name) if loads in (None, True) else None
        own = [one for one in (pull, load) if one]
        for running in own:
            running.cancel(by=self._repository.actor())
            await running.ended()
        if own:
            return any(running.was_cancelled for running in own)
        kinds = {None: tuple(Activity), True: LOADS}.get(loads, _PULLS)
        return await self._other_instances.cancel(name, kinds)

    async def interrupt(self) -> None:
        """Interrupt all pulls, updates and loads of this manager.

        Their end is recorded before this returns, even if the caller is cancelled
        meanwhile. The manager stays usable.
        """
        await finish(self._interrupt())

    async def _interrupt(self) -> None:
        while self._pulls.all() or self._loads.all():
            await self._pulls.close()
            await self._loads.close()

    async def load(
        self,
        name: str,
        *,
        options: Mapping[str, Setting] | None = None,
        keep_alive: str | float | None = None,
    ) -> ModelStatus:
        """Load a model into memory with its settings, and confirm that it is loaded.

        Args:
            name: The model.
            options: Options that override the settings, such as ``num_ctx``.
            keep_alive: How long the model stays loaded, in Ollama's format (``"10m"``,
                seconds, -1 for always); by default as configured.

        Returns:
            The status of the loaded model.

        Raises:
            ModelNotFoundError: The server does not have the model.
            CloudModelError: The model runs in the cloud.
            InvalidConfigurationError: An option is not valid.
            BusyError: Another instance loads the model, or it is being pulled.
            OllamaError: The server cannot load the model.
            OperationEndedError: The load was cancelled.
        """
        status = self._local(await self.get_status(name))
        self._reconciler.check_address()
        running = await self._loads.joinable(status.name)
        if running is None:
            status = self._local(self.latest().status(status.name))
            if status.work is not None:
                self._other_instances.refuse(status.name)
            running = self._start_load(status, options or {}, keep_alive)
        async with self._refreshed_after():
            await running.wait()
        return await self.get_status(status.name)

    def _start_load(
        self,
        status: ModelStatus,
        options: Mapping[str, Setting],
        keep_alive: str | float | None,
        cause: Cause = Cause.COMMAND,
    ) -> Operation:
        configured = configuration.options_for(
            status.settings, temperature=status.temperature
        )
        request = LoadRequest(
            options={**configured.options, **options},
            keep_alive=configured.keep_alive if keep_alive is None else keep_alive,
            cause=cause,
        )
        configuration.check_load(request.options, request.keep_alive)

        async def work(load: Operation) -> None:
            await self._loader.load(load, request)

        return self._loads.start(
            status.name,
            Activity.LOAD,
            work,
            actor=self._repository.actor(),
            since=self._clock.now(),
        )

    async def unload(self, name: str) -> UnloadResult:
        """Unload a model, and with it all models that share its weights.

        A running load of the model by this manager is awaited first, because the
        server ignores an unload during a load.

        Raises:
            ModelNotFoundError: The server does not have the model.
            BusyError: Another instance loads the model.
            OllamaError: The server does not answer or refuses.
        """
        status = self._present(await self.get_status(name), may_pull=False)
        self._reconciler.check_address()
        running = self._loads.get(status.name)
        if running is not None:
            await running.ended()
        elif status.work is not None:
            self._other_instances.refuse(status.name)
        async with self._refreshed_after():
            return await self._loader.unload(status.name)

    async def delete(self, name: str) -> None:
        """Delete a model from the server. Layers of other models stay.

        For a model that is not present, after a failed pull, this dismisses the
        failure: the model is no longer in error.

        Raises:
            ModelNotFoundError: The model is neither present nor in error.
            BusyError: An operation on the model is running.
            OllamaError: The server does not answer or refuses.
        """
        status = self._deletable(await self.get_status(name))
        self._reconciler.check_address()
        self._other_instances.refuse(status.name)
        async with self._refreshed_after():
            await self._loader.delete(status.name)

    async def _load_pinned(self) -> None:
        """Load evicted pinned models again, if there is room."""
        server = self._reconciler.last_state
        if server is None or not self._repository.node_status().reached:
            return
        for name in self._pins.due(self._repository.statuses(), server):
            status = self.latest().status(name)
            try:
                with acting_as(RECONCILER):
                    load = self._loads.get(name) or self._start_load(
                        status, {}, None, cause=Cause.CONFIGURATION
                    )
                    await load.wait()
            except HerdbookError as error:  # recorded as a failed load
                _log.warning("pinned_not_loaded", model=name, reason=str(error))

    def _held_back(self) -> Mapping[str, datetime]:
        return self._reconciler.held_back()

    def _overdue_since(self) -> datetime | None:
        return self._watch.overdue_since()

    async def _try_refresh(self) -> None:
        """Refresh; an error is logged, not raised."""
        try:
            await self._reconciler.refresh()
        except HerdbookError as error:
            _log.warning("refresh_failed", reason=str(error))
        await self._save_snapshots()

    @asynccontextmanager
    async def _refreshed_after(self) -> AsyncIterator[None]:
        """Refresh after the block, whether it succeeds or fails."""
        try:
            yield
        except HerdbookError:
            await self._try_refresh()
            raise
        await self._try_refresh()

    async def _save_snapshots(self) -> None:
        await self._log.save_snapshots(every=self._settings.snapshot_every)

    def _local(self, status: ModelStatus) -> ModelStatus:
        """Return the status if the model is present and runs on this server.

        Raises:
            ModelNotFoundError: The server does not have the model.
            CloudModelError: The model runs in the cloud.
            BusyError: The model is being pulled.
        """
        if self._present(status).remote_host:
            raise CloudModelError(status.name)
        return status

    def _deletable(self, status: ModelStatus) -> ModelStatus:
        """Return the status if the model is present or in error.

        Raises:
            ModelNotFoundError: The model is neither.
            BusyError: The model is being pulled.
        """
        if status.state is ModelState.ERROR:
            return status
        return self._present(status, may_pull=False)

    def _present(self, status: ModelStatus, *, may_pull: bool = True) -> ModelStatus:
        """Return the status if the model is present.

        Args:
            status: The status.
            may_pull: Whether a pull would help; not before a deletion.

        Raises:
            ModelNotFoundError: The server does not have the model.
            BusyError: The model is being pulled.
        """
        if not status.present:
            self._other_instances.refuse(status.name)
            present = [one.name for one in self._repository.statuses() if one.present]
            remedy = did_you_mean_model(status.name, present)
            raise ModelNotFoundError(
                status.name,
                where=f"node {status.node!r}",
                remedy=remedy or ("Pull it first" if may_pull else "Check the name"),
            )
        return status
