"""The manager: the entry point of the library.

Queries are answered from the log (``queries.py``). Commands change the server and
record the change (``commands.py``). This module opens and closes the manager, and adds
what needs both: settings, plans, costs and checks.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Self

from msgspec import UNSET

from herdbook.core.actor import acting_as
from herdbook.core.clock import Clock, SystemClock
from herdbook.core.commands import Commands
from herdbook.core.concurrency.supervisor import TaskStatus, check_tasks
from herdbook.core.desired import plan
from herdbook.core.desired.desired import DesiredSet
from herdbook.core.desired.plan import Plan, PlanProgress
from herdbook.core.diagnosis import Diagnosis
from herdbook.core.errors import (
    AmbiguousNodeError,
    CallerError,
    OllamaError,
    WrongExpectedVersionError,
)
from herdbook.core.models import configuration
from herdbook.core.models.registry import ModelRegistry, parse_role
from herdbook.core.observer import NO_OBSERVER, Observer
from herdbook.core.ollama.address import (
    authorization,
    base_url,
    same_server,
    server_setting,
)
from herdbook.core.open_log import OpenLog
from herdbook.core.operations import costs
from herdbook.core.operations.costs import DeleteCost, LoadCost, PullCost, UnloadCost
from herdbook.core.reconcile.recovery import interrupt_dead
from herdbook.core.repository import ModelRepository
from herdbook.core.settings import ManagerSettings
from herdbook.events.errors import EventIdConflictError
from herdbook.events.facts import AnchorReceived, ModelUsed, NodeMoved, Setting
from herdbook.events.lifecycle import LOADS
from herdbook.events.postgres.address import PostgresAddress
from herdbook.events.recorded import Cause, NewEvent
from herdbook.events.store import ANY
from herdbook.events.streams import check_node, node_stream
from herdbook.projections.nodes import FIRST_NODE, default_node, managed_nodes
from herdbook.projections.roles import ModelRole
from herdbook.projections.status import ModelStatus, NodeStatus, Work


class ModelManager(Commands):
    """The models of one Ollama server and their log.

    Open it with ``async with ModelManager.open(...) as manager``. Model names have
    Ollama's format: ``llama3.1`` means ``llama3.1:latest``.
    """

    def __init__(self, *_: object, **__: object) -> None:
        """Refuse: a manager needs an open log and a connection.

        Raises:
            CallerError: Always.
        """
        raise CallerError(
            "ModelManager",
            "cannot be created directly",
            'Use: async with ModelManager.open("herd.db") as manager',
        )

    @classmethod
    @asynccontextmanager
    async def open(  # noqa: PLR0913 - each may be left out, and most are
        cls,
        log: str | Path | PostgresAddress = "herd.db",
        *,
        ollama: str | None = None,
        node: str | None = None,
        actor: str = "library:python",
        registry: ModelRegistry | None = None,
        settings: ManagerSettings | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        refresh: bool = True,
        reading: bool = False,
    ) -> AsyncIterator[Self]:
        """Open a log and connect to its server; recover from a crash.

        Args:
            log: File of the log, created if it does not exist, or the address of a
                PostgreSQL database; ``:memory:`` for a log without a file.
            ollama: Address of the server, in the format of ``OLLAMA_HOST``; by default
                ``OLLAMA_HOST``, or the node's address in the log if it was added or if
                ``OLLAMA_HOST`` is not set; in a new log ``127.0.0.1:11434``.
            node: Name of the server in the log; by default that of the only one, or
                ``local``.
            actor: Recorded as who requested a change, outside of ``acting_as``.
            registry: Known models; by default the shipped catalogue.
            settings: Timeouts, retries and intervals.
            clock: The clock; for tests.
            observer: Receives measurements of appends and requests.
            refresh: Refresh from the server on opening, unless the settings ask for
                background refreshes and another process makes them already. A server
                that does not answer is recorded as lost and raises no error.
            reading: Open a log that cannot be written too. Then the server is not
                asked, and commands are refused.

        Raises:
            StoreError: The log cannot be opened.
            NodeAddressError: The log has another address for the node.
            AmbiguousNodeError: The log has several nodes, and none is named.
            CallerError: An argument is not valid.
        """
        clock, settings = clock or SystemClock(), settings or ManagerSettings()
        # Checked first, so that an invalid argument leaves no log behind.
        base_url(server_setting(ollama))
        if node is not None:
            check_node(node)
        async with (
            OpenLog.open(log, clock, reading=reading) as opened,
            cls.on(
                opened,
                ollama=ollama,
                node=node or _default_node(opened),
                actor=actor,
                registry=registry,
                settings=settings,
                clock=clock,
                observer=observer,
                refresh=refresh,
            ) as manager,
            AsyncExitStack() as stack,
        ):
            if settings.reconcile_every_s is not None:
                await stack.enter_async_context(opened.following())
            yield manager

    @classmethod
    @asynccontextmanager
    async def on(  # noqa: PLR0913 - each may be left out, and most are
        cls,
        log: OpenLog,
        *,
        ollama: str | None = None,
        api_key: str | None = None,
        node: str = FIRST_NODE,
        actor: str = "library:python",
        registry: ModelRegistry | None = None,
        settings: ManagerSettings | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        refresh: bool = True,
        wait: bool = True,
    ) -> AsyncIterator[Self]:
        """Manage a node of a log that is already open, next to the other nodes.

        Args:
            log: The log.
            ollama: As ``open`` has it.
            api_key: API key of the server; by default ``OLLAMA_API_KEY``.
            node: Name of the server in the log.
            actor: As ``open`` has it, like all that follow.
            registry: See ``open``.
            settings: See ``open``.
            clock: See ``open``.
            observer: See ``open``.
            refresh: See ``open``.
            wait: Wait for that refresh. Otherwise the first background refresh, which
                begins at once, does the same.

        Raises:
            StoreError: The log cannot be written.
            NodeAddressError: The log has another address for the node.
            CallerError: An argument is not valid.
        """
        # httpx brings Rich and click along where they are installed: not on import.
        from herdbook.core.ollama.client import OllamaClient  # noqa: PLC0415

        clock, settings = clock or SystemClock(), settings or ManagerSettings()
        observer = observer or NO_OBSERVER
        known = log.live.views.status.node(node_stream(check_node(node)))
        setting = _address(ollama, known)
        key = os.environ.get("OLLAMA_API_KEY") if api_key is None else api_key
        async with AsyncExitStack() as stack:
            client = OllamaClient(
                base_url(setting),
                authorization=authorization(setting, key),
                clock=clock,
                observer=observer,
            )
            await stack.enter_async_context(client)
            repository = ModelRepository(
                log.live,
                node=node,
                clock=clock,
                actor=actor,
                observer=observer,
            )
            manager = cls.__new__(cls)
            Commands.__init__(
                manager,
                log,
                repository,
                client,
                ModelRegistry() if registry is None else registry,
                clock=clock,
                settings=settings,
            )
            stack.push_async_callback(manager._close)  # noqa: SLF001 - its own
            await manager._start(stack, refresh=refresh, wait=wait)  # noqa: SLF001 - its own
            yield manager

    async def _start(self, stack: AsyncExitStack, *, refresh: bool, wait: bool) -> None:
        if self._storage.read_only:
            return
        interrupted = await interrupt_dead(self._repository, self._instances)
        if self._settings.follow_node:
            await self.move_node()
        stack.push_async_callback(self._watch.leave)
        if refresh and wait:
            with suppress(OllamaError):  # recorded as a lost node
                await self._watch.refresh_first(interrupted)
        elif refresh:
            self._reconciler.check_address()
        if self._settings.resume_pulls:
            for name, works in interrupted.items():
                await self._resume(name, works)
        await stack.enter_async_context(self._watch.running())

    async def move_node(self) -> bool:
        """Record that the node has the address of this manager's server from now on.

        Open the manager with ``refresh=False``: a refresh is refused while the log has
        another address.

        Returns:
            Whether the address changed.
        """
        await self._repository.catch_up()
        before, url = self._repository.node_status().url, self._client.base_url
        if not before or same_server(before, url):
            return False
        moved = NodeMoved(from_url=before, to_url=url)
        await self._repository.record_node(moved, cause=Cause.COMMAND)
        return True

    async def _resume(self, name: str, works: tuple[Work, ...]) -> None:
        """Resume the interrupted pulls and updates of a model."""
        for work in works:
            if work.activity not in LOADS:
                await self._start_pull(name, insecure=work.insecure)

    async def _close(self) -> None:
        await self.interrupt()  # recorded, so before the log's own end
        await self._save_snapshots()

    def acting_as(
        self, actor: str, *, correlation_id: str | None = None
    ) -> AbstractContextManager[None]:
        """Record everything inside the block with this actor.

        Args:
            actor: Who requests the changes, such as ``cli:alice``.
            correlation_id: Correlation id of all events in the block; by default each
                operation has its own.
        """
        return acting_as(actor, correlation_id=correlation_id)

    async def mark_used(
        self, name: str, *, purpose: str = "", role: ModelRole | str | None = None
    ) -> ModelStatus:
        """Record that a model was used. Recommendations prefer recently used models.

        Args:
            name: The model.
            purpose: What it was used for; free text.
            role: The role that it was used for. The use counts for recommendations for
                this role only; without a role, for those that the model is suited to.

        Raises:
            UnknownRoleError: The role does not exist.
            ModelNotFoundError: The server does not have the model.
            IllegalTransitionError: The model cannot be used in its state.
        """
        name, node = self._spelled(name), self._repository.node
        used = ModelUsed(
            purpose=purpose, role=UNSET if role is None else parse_role(role).value
        )

        def decide(status: ModelStatus | None) -> tuple[ModelUsed]:
            self._present(status or ModelStatus(node=node, name=name))
            return (used,)

        await self._repository.decide(name, decide, cause=Cause.COMMAND)
        return self.latest().status(name)

    async def configure(
        self,
        name: str,
        settings: Mapping[str, Setting] | None = None,
        *,
        unset: Collection[str] = (),
        note: str = "",
        at_version: int | None = None,
        **options: Setting,
    ) -> ModelStatus:
        """Change the settings of a model.

        Args:
            name: The model, present or not.
            settings: Settings to change, by name, such as ``{"options.top_k": 40}``.
            unset: Settings to remove.
            note: Reason for the change, shown in the history.
            at_version: Expected version of the model's stream; None accepts any and
                retries after a concurrent change.
            **options: More settings to change, such as ``num_ctx=8192``.

        Returns:
            The status with the new settings.

        Raises:
            InvalidConfigurationError: A setting is unknown or its value is not valid.
            WrongExpectedVersionError: The stream is not at ``at_version``.
        """
        changed = {**(settings or {}), **options}
        while True:
            status = await self.get_status(name)
            if at_version not in (None, status.version):
                raise WrongExpectedVersionError(
                    self._repository.stream(status.name),
                    expected=str(at_version),
                    actual=status.version,
                )
            change = configuration.change(
                status.settings, changed, unset=unset, note=note
            )
            if change is None:
                return status
            try:
                await self._repository.record(
                    status.name,
                    [change],
                    cause=Cause.CONFIGURATION,
                    at_version=status.version,
                )
            except WrongExpectedVersionError:
                if at_version is not None:
                    raise
            else:
                return self.latest().status(status.name)

    async def plan(self, desired: DesiredSet, *, prune: bool = False) -> Plan:
        """Return the steps from the current state to a desired set; run none.

        Args:
            desired: The desired set.
            prune: Also delete models, and remove settings, that the set does not name.

        Raises:
            InvalidDesiredError: The set contradicts itself.
            CloudModelError: The set wants a cloud model in memory.
            OllamaError: The server does not answer.
        """
        await self.refresh()
        return plan.plan(desired, await self.now(), self.registry, prune=prune)

    def apply(self, planned: Plan) -> AsyncGenerator[PlanProgress, None]:
        """Run the steps of a plan in order; yield progress when each starts and ends.

        The first failure ends the run; later steps are skipped.

        Raises:
            HerdbookError: A step failed.
        """
        return plan.apply(self, planned)

    async def cost_of_pull(self, name: str) -> PullCost:
        """Return the download size and the free disk space for a pull or an update."""
        free = costs.free_disk(self._client.base_url, costs.models_folder())
        return costs.of_pull(await self.get_status(name), self.registry, free)

    async def cost_of_load(self, name: str) -> LoadCost:
        """Return the memory that a load needs and that is in use, after a refresh.

        Raises:
            ModelNotFoundError: The server does not have the model.
            CloudModelError: The model runs in the cloud.
            OllamaError: The server does not answer.
        """
        server = await self.refresh()
        status = self._local(await self.get_status(name))
        return costs.of_load(status, server.runners)

    async def cost_of_delete(self, name: str) -> DeleteCost:
        """Return the disk space that deleting a model frees.

        Raises:
            ModelNotFoundError: The server does not have the model.
            BusyError: The model is being pulled.
        """
        now = await self.now()
        status = self._deletable(now.status(name))
        return costs.of_delete(status, now.statuses())

    async def cost_of_unload(self, name: str) -> UnloadCost:
        """Return the memory that unloading a model frees, after a refresh.

        Raises:
            ModelNotFoundError: The server does not have the model.
            BusyError: The model is being pulled.
            OllamaError: The server does not answer.
        """
        await self.refresh()
        now = await self.now()
        return costs.of_unload(self._present(now.status(name)), now.statuses())

    async def record_anchor(self, anchor: AnchorReceived, *, made_at: datetime) -> int:
        """Record an anchor of another log, once, however often it arrives.

        Args:
            anchor: The anchor.
            made_at: When it was made, UTC.

        Returns:
            The position of the event.

        Raises:
            CallerError: It is an anchor of this log itself.
            StoreError: The log cannot be written.
        """
        first = await self.read_log(limit=1)
        if any(anchor.origin.endswith(f"/{one.event_id}") for one in first.events):
            raise CallerError(
                "the anchor",
                "is from this log itself",
                "Send it to a Herdbook instance with a different log",
            )
        received = NewEvent(
            fact=anchor,
            occurred_at=made_at,
            actor=self._repository.actor(),
            cause=Cause.OBSERVED,
            event_id=f"anchor-{sha256(anchor.text.encode()).hexdigest()[:32]}",
        )
        stream = node_stream(self._repository.node)
        try:
            (event,) = await self._storage.store.append(stream, [received], ANY)
        except EventIdConflictError as error:  # sent before with another token
            return error.position
        await self._repository.catch_up()
        return event.position

    @property
    def url(self) -> str:
        """URL of the server, without a slash at its end."""
        return self._client.base_url

    @property
    def authorization(self) -> str:
        """The Authorization header of every request to the server; a secret."""
        return self._client.authorization

    async def get(self, path: str) -> bytes:
        """Return the body of a successful GET of the server's API, unchanged.

        Args:
            path: The path, such as ``/api/tags``.

        Raises:
            OllamaError: The server is unreachable or refuses.
        """
        return await self._client.get(path)

    def background_tasks(self) -> list[TaskStatus]:
        """Return the status of each background task of the manager and its log."""
        return [*self.watch_tasks(), *self._log.tasks()]

    def watch_tasks(self) -> list[TaskStatus]:
        """Return the status of each background task of the manager alone."""
        return self._watch.tasks()

    @property
    def server_notice(self) -> str:
        """Why the last refresh failed, or which facts the server does not report.

        One line; empty if there is nothing to say.
        """
        return self._reconciler.notice

    @property
    def unreadable_notice(self) -> str:
        """Which entries of the server's lists cannot be read; one line, or empty."""
        return self._reconciler.unreadable_notice

    @property
    def refresh_error(self) -> OllamaError | None:
        """Why the last refresh failed; None if it did not."""
        return self._reconciler.last_error

    @property
    def reports_loaded(self) -> bool:
        """Whether the server reports all loaded models readably, as far as is known."""
        state = self._reconciler.last_state
        return state is None or state.reports_all_runners

    async def doctor(self) -> list[Diagnosis]:
        """Check the server, its models and the manager's background tasks.

        ``herdbook.core.doctor`` checks the log as well.
        """
        # Only some commands need the checks, which take long to import.
        from herdbook.core.checks.server import Checking, check_server  # noqa: PLC0415

        checking = Checking(
            read_model=await self.now(),
            weights_of=self._repository.views.status.weights_of,
            clock=self._clock,
            within_s=self._settings.refresh_timeout_s,
            folder=costs.models_folder(),
        )
        in_background = bool(self._watch.tasks())
        return [
            *check_tasks(self.background_tasks() if in_background else []),
            *await check_server(self._client, checking),
        ]


def _default_node(log: OpenLog) -> str:
    """Return the node that is managed if none is named.

    Raises:
        AmbiguousNodeError: The log has several, none of which is ``local``.
    """
    nodes = log.live.views.status.nodes()
    name = default_node(nodes)
    if name is None:
        raise AmbiguousNodeError("", tuple(one.name for one in managed_nodes(nodes)))
    return name


def _address(given: str | None, node: NodeStatus | None) -> str | None:
    """Return the address of a server: as given, in ``OLLAMA_HOST``, or in the log.

    An added node has its own address, whatever ``OLLAMA_HOST`` is.
    """
    if given is not None or node is None:
        return server_setting(given)
    return node.url if node.managed else server_setting(None) or node.url
