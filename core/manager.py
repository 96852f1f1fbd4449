"""The manager: the models of one Ollama server, kept in a log.

Everything that a caller does goes through here. What is known is read from the log
(``reading.py``); what changes is asked of the server, seen there, and recorded.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    suppress,
)
from pathlib import Path
from typing import TYPE_CHECKING, Self

from herdbook.core import configuration, costs, plan, views
from herdbook.core.acting import RECONCILER, acting_as
from herdbook.core.clock import Clock, SystemClock
from herdbook.core.costs import DeleteCost, LoadCost, PullCost, UnloadCost
from herdbook.core.desired import DesiredSet
from herdbook.core.diagnosis import Diagnosis
from herdbook.core.drift import Look
from herdbook.core.elsewhere import Elsewhere
from herdbook.core.errors import (
    ElsewhereError,
    HerdbookError,
    IllegalTransitionError,
    ModelNotFoundError,
    OllamaError,
    StoreError,
    WrongExpectedVersionError,
)
from herdbook.core.host import base_url
from herdbook.core.loads import Loader, LoadRequest, Unloading
from herdbook.core.logs import Logger
from herdbook.core.observing import NOBODY, Observer
from herdbook.core.operations import Operation, Operations, UnderWay, finish
from herdbook.core.pins import Pins
from herdbook.core.plan import Applying, Plan
from herdbook.core.pull_progress import PullProgress
from herdbook.core.pulls import Puller
from herdbook.core.reading import Reading
from herdbook.core.reconciler import Reconciler
from herdbook.core.recovery import interrupt_dead
from herdbook.core.register import Register
from herdbook.core.registry import ModelRegistry
from herdbook.core.server_checks import Checking, check_server, models_folder
from herdbook.core.settings import ManagerSettings
from herdbook.core.storage import Storage
from herdbook.events.facts import ModelUsed, Setting
from herdbook.events.lifecycle import Activity, ModelState
from herdbook.events.recorded import Cause
from herdbook.events.streams import check_node
from herdbook.projections.status import ModelStatus, Work

if TYPE_CHECKING:
    from herdbook.core.ollama import OllamaClient

_log = Logger("herdbook.manager")


class ModelManager(Reading):
    """The models of one Ollama server, and their log.

    Opened with ``async with ModelManager.open(...) as herd``. Names may be given as
    Ollama takes them: ``llama3.1`` is ``llama3.1:latest``.
    """

    def __init__(
        self,
        storage: Storage,
        register: Register,
        client: OllamaClient,
        registry: ModelRegistry,
        *,
        clock: Clock,
        settings: ManagerSettings,
    ) -> None:
        super().__init__(storage, register, registry)
        self._client = client
        self._clock = clock
        self._settings = settings
        self._pins = Pins(clock=clock, settings=settings)
        self._pulls = Operations()
        self._loads = Operations()
        instances = storage.instances
        self._elsewhere = Elsewhere(
            register, instances, clock=clock, poll_every_s=settings.poll_every_s
        )
        self._reconciler = Reconciler(
            register, client, registry, instances, clock=clock, settings=settings
        )
        self._puller = Puller(
            register,
            client,
            self._reconciler,
            instance=instances.own,
            clock=clock,
            settings=settings,
        )
        self._loader = Loader(
            register,
            client,
            self._reconciler,
            instance=instances.own,
            clock=clock,
            settings=settings,
        )

    @classmethod
    @asynccontextmanager
    async def open(  # noqa: PLR0913 - each may be left out, and most are
        cls,
        log: str | Path = "herd.db",
        *,
        ollama: str | None = None,
        node: str = "local",
        actor: str = "library:python",
        registry: ModelRegistry | None = None,
        settings: ManagerSettings | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        look: bool = True,
    ) -> AsyncIterator[Self]:
        """Open a log and the server it is about; recover what a crash left.

        Args:
            log: The log's file, made if it is not there; ``:memory:`` for none.
            ollama: The server, as ``OLLAMA_HOST`` takes it; by default that, or
                ``127.0.0.1:11434``.
            node: Our name for the server; its models' streams carry it.
            actor: Who asks, where a call does not say.
            registry: What is known of models; by default what is shipped.
            settings: How patient and how busy to be.
            clock: What time it is.
            observer: Who is told how long the log and the server took.
            look: Whether to look at the server at once; a server that does not
                answer is no error then.

        Raises:
            StoreError: The log cannot be opened.
            CallerError: An argument is not valid.
        """
        # httpx brings Rich and click along where they are installed: not on import.
        from herdbook.core.ollama import OllamaClient  # noqa: PLC0415

        clock, settings = clock or SystemClock(), settings or ManagerSettings()
        observer = observer or NOBODY
        async with AsyncExitStack() as stack:
            client = OllamaClient(_url(ollama), clock=clock, observer=observer)
            await stack.enter_async_context(client)
            storage = await stack.enter_async_context(Storage.open(log, clock))
            register = Register(
                storage.store,
                await views.restore(storage.store, storage.snapshots),
                node=check_node(node),
                clock=clock,
                actor=actor,
                observer=observer,
            )
            herd = cls(
                storage,
                register,
                client,
                registry or ModelRegistry(),
                clock=clock,
                settings=settings,
            )
            stack.push_async_callback(herd._close)
            await herd._begin(stack, look=look)
            yield herd

    async def _begin(self, stack: AsyncExitStack, *, look: bool) -> None:
        interrupted = await interrupt_dead(self._register, self._storage.instances)
        if look:
            with suppress(OllamaError):  # recorded as a lost node
                await self._reconciler.refresh(recovered=interrupted)
        if self._settings.resume_pulls:
            for name, works in interrupted.items():
                await self._resume(name, works)
        if self._settings.reconcile_every_s is not None:
            task = asyncio.create_task(self._reconcile_for_ever(), name="reconciler")
            stack.push_async_callback(_ended, task)

    async def _resume(self, name: str, works: tuple[Work, ...]) -> None:
        """Go on with a pull or an update that recovery found interrupted."""
        for work in works:
            if work.activity is not Activity.LOAD:
                await self._start_pull(name, insecure=work.insecure)

    async def _reconcile_for_ever(self) -> None:
        assert self._settings.reconcile_every_s is not None
        lost_wait_s = self._settings.lost_wait_s
        while True:
            if self._register.node_status().reached:
                wait_s = self._settings.reconcile_every_s
                lost_wait_s = self._settings.lost_wait_s
            else:
                wait_s = min(lost_wait_s, self._settings.lost_wait_longest_s)
                lost_wait_s = 2 * wait_s
            await self._clock.sleep(wait_s)
            await self._look_again()
            await self._load_pinned()

    async def _load_pinned(self) -> None:
        """Load pinned models again that were evicted, where there is room now."""
        look = self._reconciler.look
        if look is None or not self._register.node_status().reached:
            return
        for name in self._pins.due(self._register.statuses(), look):
            status = self._latest().status(name)
            try:
                with acting_as(RECONCILER):
                    load = self._loads.get(name) or self._start_load(
                        status, {}, None, cause=Cause.CONFIGURATION
                    )
                    await load.wait()
            except HerdbookError as error:  # recorded as a failed load
                _log.warning("pinned_not_loaded", model=name, reason=str(error))

    async def _look_again(self) -> None:
        """Look at the server; one that does not answer is recorded, not raised."""
        try:
            await self._reconciler.refresh()
        except HerdbookError as error:
            _log.warning("look_failed", reason=str(error))
        await self._keep_views()

    @asynccontextmanager
    async def _looked_again(self) -> AsyncIterator[None]:
        """Look at the server after what is inside, done or failed."""
        try:
            yield
        except HerdbookError:
            await self._look_again()
            raise
        await self._look_again()

    async def _keep_views(self) -> None:
        current = self._register.views
        if current.position - current.kept >= self._settings.snapshot_every:
            try:
                await views.keep(current, self._storage.snapshots)
            except StoreError as error:  # a cache: the log has it all
                _log.warning("views_not_kept", reason=str(error))

    async def _close(self) -> None:
        await self.interrupt()  # recorded, so before the log's own end
        await self._keep_views()

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

    def acting_as(
        self, actor: str, *, correlation_id: str | None = None
    ) -> AbstractContextManager[None]:
        """Record what is done inside in the name of ``actor``.

        Args:
            actor: Who asks.
            correlation_id: What all that is recorded inside is to share; by default
                each operation inside has an id of its own.
        """
        return acting_as(actor, correlation_id=correlation_id)

    async def refresh(self) -> Look:
        """Look at the server, and record what differs.

        Raises:
            OllamaError: It cannot be asked; the node is recorded as lost.
        """
        look = await self._reconciler.refresh()
        await self._keep_views()
        return look

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
        while True:
            if (work := await self._elsewhere.work(name)) is not None:
                followed = self._elsewhere.follow(name, work)
            else:
                pull = await self._pulls.joinable(name)
                pull = pull or await self._start_pull(name, insecure=insecure)
                followed = pull.follow()
            try:
                async with aclosing(followed):
                    async for progress in followed:
                        yield progress
            except IllegalTransitionError:
                if await self._elsewhere.work(name) is None:
                    raise
                continue  # another instance began at the same moment
            if work is None or await self.is_available(name):
                return

    async def _start_pull(self, name: str, *, insecure: bool) -> Operation:
        present = await self.is_available(name)

        async def work(pull: Operation) -> None:
            try:
                await self._puller.pull(pull, insecure=insecure)
            except OllamaError:
                await self._look_again()
                raise
            if self._latest().status(name).state is ModelState.LOADED:
                await self._look_again()  # perhaps in what it was before the update

        return self._pulls.get(name) or self._pulls.start(
            name,
            Activity.UPDATE if present else Activity.PULL,
            work,
            actor=self._register.actor(),
            since=self._clock.now(),
        )

    def under_way(self) -> list[UnderWay]:
        """Return what this manager is at work on; a status tells of others too."""
        running = (*self._pulls.all(), *self._loads.all())
        return [operation.under_way() for operation in running]

    async def cancel(self, name: str) -> bool:
        """Cancel the pull, update or load of a model, and see it recorded.

        It is recorded in the name of who cancels, not of who started it.

        Returns:
            Whether there was one of this manager to cancel.

        Raises:
            BusyError: Another instance is at work on it; cancel it there.
        """
        name = (await self.now()).spelled(name)
        mine = [one for one in (self._pulls.get(name), self._loads.get(name)) if one]
        for running in mine:
            running.cancel(by=self._register.actor())
            await running.over()
        if not mine:
            self._elsewhere.refuse(name)
        return bool(mine)

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
            ElsewhereError: It is a cloud model.
            InvalidConfigurationError: The server does not take an option.
            BusyError: Another instance loads it, or it is pulled.
            OllamaError: The server cannot load it.
            OperationEndedError: It was cancelled.
        """
        status = self._here(await self.get_status(name))
        running = await self._loads.joinable(status.name)
        if running is None:
            status = self._latest().status(status.name)
            if status.work is not None:
                self._elsewhere.refuse(status.name)
            running = self._start_load(status, options or {}, keep_alive)
        async with self._looked_again():
            try:
                await running.wait()
            except IllegalTransitionError:
                self._elsewhere.refuse(status.name)  # another began at that moment
                raise
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
            actor=self._register.actor(),
            since=self._clock.now(),
        )

    async def unload(self, name: str) -> Unloading:
        """Unload a model, and with it every other name of its weights.

        A load of this manager that is under way is waited for: the server does
        nothing when it is asked to unload what it still loads.

        Raises:
            ModelNotFoundError: The server does not have it.
            BusyError: Another instance loads it.
            OllamaError: The server could not be asked.
        """
        status = self._present(await self.get_status(name))
        running = self._loads.get(status.name)
        if running is not None:
            await running.over()
        elif status.state is ModelState.LOADING:
            self._elsewhere.refuse(status.name)
        async with self._looked_again():
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
        self._elsewhere.refuse(status.name)
        async with self._looked_again():
            await self._loader.delete(status.name)

    async def mark_used(self, name: str, *, purpose: str = "") -> ModelStatus:
        """Record that a model was used: the order of recommendation follows it.

        Raises:
            ModelNotFoundError: The server does not have it.
            IllegalTransitionError: It cannot have been used in its state.
        """
        status = self._latest().status(name)  # its append says if that is old
        if not status.present:
            status = self._present(await self.get_status(name))
        used = ModelUsed(purpose=purpose)
        await self._register.record(status.name, [used], cause=Cause.COMMAND)
        return self._latest().status(status.name)

    async def configure(
        self,
        name: str,
        settings: Mapping[str, Setting] | None = None,
        *,
        unset: Collection[str] = (),
        note: str = "",
        at_version: int | None = None,
    ) -> ModelStatus:
        """Change what a model is to be used with; checked before it is recorded.

        Args:
            name: The model, present or not.
            settings: Settings with their new values.
            unset: Settings that are to have no value of ours any more.
            note: Why.
            at_version: The version of the model's stream that this was decided at;
                None decides anew when somebody else was faster.

        Raises:
            InvalidConfigurationError: A setting is unknown or its value not valid.
            WrongExpectedVersionError: The stream is not at ``at_version``.
        """
        while True:
            status = await self.get_status(name)
            if at_version not in (None, status.version):
                raise WrongExpectedVersionError(
                    self._register.stream(status.name),
                    expected=str(at_version),
                    actual=status.version,
                )
            change = configuration.change(
                status.settings, settings or {}, unset=unset, note=note
            )
            if change is None:
                return status
            try:
                await self._register.record(
                    status.name,
                    [change],
                    cause=Cause.CONFIGURATION,
                    at_version=status.version,
                )
            except WrongExpectedVersionError:
                if at_version is not None:
                    raise
            else:
                return self._latest().status(status.name)

    async def plan(self, desired: DesiredSet, *, prune: bool = False) -> Plan:
        """Return the steps from what is there to what is wanted; do none of them.

        Args:
            desired: What is wanted.
            prune: Whether models go that the set does not name, and settings that
                it does not name of models that it does.

        Raises:
            InvalidDesiredError: What is wanted cannot be at the same time.
            ElsewhereError: A cloud model is to be loaded.
            OllamaError: The server cannot be asked.
        """
        await self.refresh()
        return plan.plan(desired, await self.now(), self.registry, prune=prune)

    def apply(self, planned: Plan) -> AsyncGenerator[Applying, None]:
        """Do the steps of a plan in order; tell of each when it begins and is done.

        It ends with the first failure; what was not begun is not done.

        Raises:
            HerdbookError: A step failed.
        """
        return plan.apply(self, planned)

    async def cost_of_pull(self, name: str) -> PullCost:
        """Return what a pull or an update will cost; begin nothing."""
        free = costs.free_disk(self._client.base_url, models_folder())
        return costs.of_pull(await self.get_status(name), self.registry, free)

    async def cost_of_load(self, name: str) -> LoadCost:
        """Return what a load will cost, with the runners as they are now.

        Raises:
            ModelNotFoundError: The server does not have it.
            ElsewhereError: It is a cloud model.
            OllamaError: The server cannot be asked.
        """
        look = await self.refresh()
        status = self._here(await self.get_status(name))
        return costs.of_load(status, look.runners)

    async def cost_of_delete(self, name: str) -> DeleteCost:
        """Return what a deletion will give back; begin nothing.

        Raises:
            ModelNotFoundError: The server does not have it.
            BusyError: It is being pulled.
        """
        now = await self.now()
        status = self._deletable(now.status(name))
        return costs.of_delete(status, now.statuses())

    async def cost_of_unload(self, name: str) -> UnloadCost:
        """Return what an unload will give back, with its runner as it is now.

        Raises:
            ModelNotFoundError: The server does not have it.
            BusyError: It is being pulled.
            OllamaError: The server cannot be asked.
        """
        await self.refresh()
        now = await self.now()
        return costs.of_unload(self._present(now.status(name)), now.statuses())

    async def doctor(self) -> list[Diagnosis]:
        """Check the server and its models; ``core.doctor`` checks the log as well."""
        against = Checking(
            moment=await self.now(),
            weights_of=self._register.views.status.weights_of,
            clock=self._clock,
            within_s=self._settings.look_within_s,
            folder=models_folder(),
        )
        return await check_server(self._client, against)

    def _here(self, status: ModelStatus) -> ModelStatus:
        """Return the status of a model that the server has, and runs itself.

        Raises:
            ModelNotFoundError: It does not have it.
            ElsewhereError: It is a cloud model.
            BusyError: It is being pulled.
        """
        if self._present(status).remote_host:
            raise ElsewhereError(status.name)
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
            self._elsewhere.refuse(status.name)
            raise ModelNotFoundError(status.name, where=status.node)
        return status


def _url(ollama: str | None) -> str:
    return base_url(os.environ.get("OLLAMA_HOST") if ollama is None else ollama)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
