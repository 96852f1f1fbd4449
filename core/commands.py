"""What changes the models of a server: pull, load, unload, delete, and their ends.

Each is asked of the server, seen there, and recorded. Pulls and loads go on as
operations, one per model; what others are at work on is left to them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from herdbook.core import views
from herdbook.core.actor import RECONCILER, acting_as
from herdbook.core.clock import Clock
from herdbook.core.concurrency.cancellation import finish
from herdbook.core.concurrency.work_tracker import WorkTracker
from herdbook.core.errors import (
    CloudModelError,
    HerdbookError,
    IllegalTransitionError,
    ModelNotFoundError,
    OllamaError,
    StoreError,
)
from herdbook.core.logging import Logger
from herdbook.core.models import configuration
from herdbook.core.models.registry import ModelRegistry
from herdbook.core.operations.context import OperationContext
from herdbook.core.operations.loads import Loader, LoadRequest, UnloadResult
from herdbook.core.operations.operations import Operation, Operations, RunningOperation
from herdbook.core.operations.other_instances import OtherInstances
from herdbook.core.operations.pins import Pins
from herdbook.core.operations.pull_progress import PullProgress
from herdbook.core.operations.pulls import Puller
from herdbook.core.queries import Queries
from herdbook.core.reconcile.reconciler import Reconciler
from herdbook.core.reconcile.server_state import ServerState
from herdbook.core.reconcile.watch import Watch
from herdbook.core.repository import ATTEMPTS, ModelRepository, changes_too_often
from herdbook.core.settings import ManagerSettings
from herdbook.core.storage import Storage
from herdbook.events.facts import Setting
from herdbook.events.lifecycle import Activity, ModelState
from herdbook.events.recorded import Cause
from herdbook.projections.status import ModelStatus

if TYPE_CHECKING:
    from herdbook.core.ollama.client import OllamaClient

_log = Logger("herdbook.working")


class Commands(Queries):
    """What a log about one node says, and the work on its models."""

    def __init__(
        self,
        storage: Storage,
        repository: ModelRepository,
        client: OllamaClient,
        registry: ModelRegistry,
        *,
        clock: Clock,
        settings: ManagerSettings,
    ) -> None:
        super().__init__(storage, repository, registry)
        self._client = client
        self._clock = clock
        self._settings = settings
        self._pins = Pins(clock=clock, settings=settings)
        self._pulls = Operations()
        self._loads = Operations()
        instances = storage.instances
        self._changes = WorkTracker(instances, repository.stream, clock=clock)
        self._other_instances = OtherInstances(
            repository, instances, clock=clock, poll_every_s=settings.poll_every_s
        )
        self._reconciler = Reconciler(
            repository,
            client,
            registry,
            instances,
            clock=clock,
            settings=settings,
            changes=self._changes,
            at_work=self._at_work,
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
            clock=clock,
            settings=settings,
        )
        self._puller = Puller(context)
        self._loader = Loader(context)

    async def refresh(self) -> ServerState:
        """Look at the server, and record what differs.

        Raises:
            OllamaError: It cannot be asked; the node is recorded as lost.
        """
        server = await self._reconciler.refresh()
        await self._save_snapshots()
        return server

    async def ensure_available(
        self, name: str, *, insecure: bool = False
    ) -> ModelStatus:
        """Make sure that the server has a model: pull it, or wait for its pull.

        Raises:
            OllamaError: The server cannot be asked, or cannot get it.
            OperationEndedError: Its pull was cancelled.
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
        """Pull a model, or update it if it is there; yield the newest progress.

        All who pull one model follow one operation. It is cancelled when the last
        of them leaves.

        Raises:
            OllamaError: The server cannot get it.
            OperationEndedError: It was cancelled.
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
                continue  # the model changed before the pull began: decide anew
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
            if self._latest().status(name).state is ModelState.LOADED:
                await self._try_refresh()  # perhaps in what it was before the update

        return self._pulls.get(name) or self._pulls.start(
            name,
            Activity.UPDATE if present else Activity.PULL,
            work,
            actor=self._repository.actor(),
            since=self._clock.now(),
        )

    def _at_work(self, name: str) -> bool:
        return any(works.get(name) for works in (self._pulls, self._loads))

    def under_way(self) -> list[RunningOperation]:
        """Return what this manager is at work on; a status tells of others too."""
        running = (*self._pulls.all(), *self._loads.all())
        return [operation.snapshot() for operation in running]

    async def cancel(self, name: str, activity: Activity | None = None) -> bool:
        """Cancel the pull, update or load of a model, and see it recorded.

        It is recorded in the name of who cancels, not of who started it.

        Args:
            name: The model.
            activity: Only a load, or only a pull or an update; by default all.

        Returns:
            Whether there was one of this manager to cancel.

        Raises:
            BusyError: Another instance is at work on it; cancel it there.
        """
        name = (await self.now()).spelled(name)
        loads = None if activity is None else activity is Activity.LOAD
        pull = None if loads else self._pulls.get(name)
        load = self._loads.get(name) if loads in (None, True) else None
        mine = [one for one in (pull, load) if one]
        for running in mine:
            running.cancel(by=self._repository.actor())
            await running.ended()
        if not mine:
            self._other_instances.refuse(name)
        return bool(mine)

    async def interrupt(self) -> None:
        """End all pulls, updates and loads of this manager, as interrupted.

        That is recorded before this returns, even if its caller is cancelled
        meanwhile. The manager can be used after it.
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
        """Load a model into memory, as it is configured; see it among the runners.

        Args:
            name: The model.
            options: Options on top of the configured ones.
            keep_alive: As Ollama takes it; by default the configured one.

        Raises:
            ModelNotFoundError: The server does not have it.
            CloudModelError: It is a cloud model.
            InvalidConfigurationError: The server does not take an option.
            BusyError: Another instance loads it, or it is pulled.
            OllamaError: The server cannot load it.
            OperationEndedError: It was cancelled.
        """
        status = self._local(await self.get_status(name))
        self._reconciler.check_address()
        running = await self._loads.joinable(status.name)
        if running is None:
            status = self._local(self._latest().status(status.name))
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
        """Unload a model, and with it every other name of its weights.

        A load of this manager that is under way is waited for: the server does
        nothing when it is asked to unload what it still loads.

        Raises:
            ModelNotFoundError: The server does not have it.
            BusyError: Another instance loads it.
            OllamaError: The server could not be asked.
        """
        status = self._present(await self.get_status(name))
        self._reconciler.check_address()
        running = self._loads.get(status.name)
        if running is not None:
            await running.ended()
        elif status.state is ModelState.LOADING:
            self._other_instances.refuse(status.name)
        async with self._refreshed_after():
            return await self._loader.unload(status.name)

    async def delete(self, name: str) -> None:
        """Delete a model from the server; what others share of it stays.

        One in error that the server does not have is forgotten by its status.

        Raises:
            ModelNotFoundError: The server does not have it.
            BusyError: Work on it is under way.
            OllamaError: The server could not.
        """
        status = self._deletable(await self.get_status(name))
        self._reconciler.check_address()
        self._other_instances.refuse(status.name)
        async with self._refreshed_after():
            await self._loader.delete(status.name)

    async def _load_pinned(self) -> None:
        """Load pinned models again that were evicted, where there is room now."""
        server = self._reconciler.last_state
        if server is None or not self._repository.node_status().reached:
            return
        for name in self._pins.due(self._repository.statuses(), server):
            status = self._latest().status(name)
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
        """Look at the server; one that does not answer is recorded, not raised."""
        try:
            await self._reconciler.refresh()
        except HerdbookError as error:
            _log.warning("refresh_failed", reason=str(error))
        await self._save_snapshots()

    @asynccontextmanager
    async def _refreshed_after(self) -> AsyncIterator[None]:
        """Look at the server after what is inside, done or failed."""
        try:
            yield
        except HerdbookError:
            await self._try_refresh()
            raise
        await self._try_refresh()

    async def _save_snapshots(self) -> None:
        current = self._repository.views
        if current.position - current.saved_position >= self._settings.snapshot_every:
            try:
                await views.save(current, self._storage.snapshots)
            except StoreError as error:  # a cache: the log has it all
                _log.warning("views_not_kept", reason=str(error))

    def _local(self, status: ModelStatus) -> ModelStatus:
        """Return the status of a model that the server has, and runs itself.

        Raises:
            ModelNotFoundError: It does not have it.
            CloudModelError: It is a cloud model.
            BusyError: It is being pulled.
        """
        if self._present(status).remote_host:
            raise CloudModelError(status.name)
        return status

    def _deletable(self, status: ModelStatus) -> ModelStatus:
        """Return the status of a model that the server has, or that is in error.

        Raises:
            ModelNotFoundError: It is neither.
            BusyError: It is being pulled.
        """
        return status if status.state is ModelState.ERROR else self._present(status)

    def _present(self, status: ModelStatus) -> ModelStatus:
        """Return the status of a model that the server has.

        Raises:
            ModelNotFoundError: It does not have it.
            BusyError: It is being pulled.
        """
        if not status.present:
            self._other_instances.refuse(status.name)
            raise ModelNotFoundError(status.name, where=status.node)
        return status
