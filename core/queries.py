"""What can be asked of a log, and changes nothing.

Every answer is read from the views after they have caught up with the log, or from
the log itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from datetime import datetime

from herdbook.core import views
from herdbook.core.checks.verification import verify
from herdbook.core.desired import desired
from herdbook.core.desired.desired import DesiredSet
from herdbook.core.errors import CallerError
from herdbook.core.history import pages as log_pages
from herdbook.core.history.diff import Difference, difference
from herdbook.core.history.explain import Explanation
from herdbook.core.history.explain import explain as explain_state
from herdbook.core.history.pages import LogPage, PageQuery
from herdbook.core.history.read_model import ReadModel
from herdbook.core.models.configuration import ModelOptions
from herdbook.core.models.registry import ModelRegistry, Suggestion
from herdbook.core.repository import ModelRepository
from herdbook.core.storage import Storage
from herdbook.events.facts import Capability
from herdbook.events.recorded import RecordedEvent
from herdbook.events.store import Head
from herdbook.events.times import position_at
from herdbook.events.verify import Verification
from herdbook.projections.history import HistoryEntry, HistoryFilter, HistoryView
from herdbook.projections.recommendation import Candidate, Recommendation
from herdbook.projections.roles import ModelRole
from herdbook.projections.statistics import ModelStatistics
from herdbook.projections.status import ModelStatus, NodeStatus


class Queries:
    """The answers of a log about one node.

    Attributes:
        registry: What is known of models before they are there.
    """

    def __init__(
        self, storage: Storage, repository: ModelRepository, registry: ModelRegistry
    ) -> None:
        self.registry = registry
        self._storage = storage
        self._repository = repository

    async def now(self) -> ReadModel:
        """Return what the log says now, for several questions at once."""
        await self._repository.catch_up()
        return self._latest()

    def _latest(self) -> ReadModel:
        """Return what the views say, without asking the log for more.

        Enough for a command: its append says if somebody else was faster.
        """
        return ReadModel(
            self._repository.views,
            self.registry,
            self._repository.node,
            live=True,
            overdue_since=self._overdue_since(),
            held_back=self._held_back(),
        )

    def _held_back(self) -> Mapping[str, datetime]:
        """Return the models with a change that is not recorded yet, and since when."""
        return {}

    def _overdue_since(self) -> datetime | None:
        """Return since when the background refreshes that are due have not succeeded.

        None where nothing is refreshed in the background.
        """
        return None

    async def head(self) -> Head:
        """Return the end of the log: the newest event's position and hash."""
        return await self._storage.store.head()

    async def lag(self) -> int:
        """Return how many events the log has that the views have not taken in yet."""
        return max((await self.head()).position - self._repository.views.position, 0)

    async def position_at(self, when: datetime) -> int:
        """Return the last position that was recorded at or before a time.

        Raises:
            CallerError: The time has no zone.
        """
        return await position_at(self._storage.store, when)

    async def as_of(self, when: int | datetime) -> ReadModel:
        """Return what the log said at a position, or at a time.

        Raises:
            CallerError: The log has no such position, or the time has no zone.
        """
        store = self._storage.store
        head = (await store.head()).position
        asked = None if isinstance(when, int) else when
        until = when if isinstance(when, int) else await position_at(store, when)
        if not 0 <= until <= head:
            raise CallerError(
                f"position #{until}",
                "is not in the log",
                f"The newest event is #{head}; #0 is before the first",
            )
        then = views.Views()
        await then.replay(store, until=until)
        return ReadModel(then, self.registry, self._repository.node, asked=asked)

    async def diff(
        self, since: int | datetime, until: int | datetime | None = None
    ) -> Difference:
        """Return what differs between two positions or times; by default until now.

        Raises:
            CallerError: The log has no such position, or a time has no zone.
        """
        then = await self.as_of(since)
        return await difference(
            then, await self.now() if until is None else await self.as_of(until)
        )

    async def all_statuses(self) -> list[ModelStatus]:
        """Return the status of every model that the log knows, by name."""
        return (await self.now()).statuses()

    async def get_status(self, name: str) -> ModelStatus:
        """Return a model's status; ``not_present`` for one that nobody has seen.

        Raises:
            InvalidNameError: It is no name.
        """
        return (await self.now()).status(name)

    async def is_available(self, name: str) -> bool:
        """Return whether the server has a model; one under way is not there yet."""
        return (await self.get_status(name)).present

    async def node_status(self) -> NodeStatus:
        """Return whether the server answers, and which version it is."""
        return (await self.now()).node_status()

    async def capabilities(self, name: str) -> dict[str, Capability]:
        """Return what a model can do, by name, each with its source."""
        return (await self.now()).capabilities(name)

    async def options_for(self, name: str) -> ModelOptions:
        """Return the options that a model is to be used with."""
        return (await self.now()).options_for(name)

    async def recommend(self, role: ModelRole | str) -> Candidate | None:
        """Return the model to use for a role; None if there is none.

        Raises:
            UnknownRoleError: No role has that name.
        """
        return (await self.now()).recommend(role)

    async def explain(self, role: ModelRole | str) -> Recommendation:
        """Return the order for a role, with reasons, and who was passed over.

        Raises:
            UnknownRoleError: No role has that name.
        """
        return (await self.now()).explain(role)

    async def suggest(
        self, role: ModelRole | str, *, memory_bytes: int | None = None
    ) -> tuple[Suggestion, ...]:
        """Return models worth pulling for a role, the best first.

        Args:
            role: The role.
            memory_bytes: Memory that a model may need, bytes; None: any.

        Raises:
            UnknownRoleError: No role has that name.
        """
        there = [s.name for s in await self.all_statuses() if s.present]
        return self.registry.suggest(role, present=there, memory_bytes=memory_bytes)

    async def statistics(self, name: str) -> ModelStatistics:
        """Return a model's figures over its whole history."""
        return (await self.now()).statistics(name)

    async def history(
        self, name: str | None = None, chosen: HistoryFilter | None = None
    ) -> list[HistoryEntry]:
        """Return what happened to a model, or to all, the oldest first."""
        view = HistoryView(chosen)
        if name is None:
            recorded = self._storage.store.read_all()
        else:
            stream = self._repository.stream((await self.now()).spelled(name))
            recorded = self._storage.store.read_stream(stream)
        async for event in recorded:
            view.apply(event)
        return view.entries

    async def read_log(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
        stream_prefix: str = "",
        chosen: HistoryFilter | None = None,
    ) -> LogPage:
        """Return a page of the log, and where to go on.

        A page looks at a bounded number of events, so that one may have none of them
        although there are more.

        Args:
            after: Only events behind this position; 0 is before the first.
            before: Only events before this position; None for all there are.
            limit: At most this many events.
            newest_first: Whether to begin at ``before`` and go down, instead of at
                ``after`` and up.
            stream_prefix: Only streams whose names begin with it.
            chosen: Which events; by default all. Its own limit does not count.

        Raises:
            CallerError: There is no such position, or no page of that many events.
        """
        wanted = PageQuery(
            after=after,
            before=before,
            limit=limit,
            stream_prefix=stream_prefix,
            chosen=chosen or HistoryFilter(),
        )
        read = log_pages.newest_first if newest_first else log_pages.oldest_first
        return await read(self._storage.store, wanted)

    async def why(self, name: str, read_model: ReadModel | None = None) -> Explanation:
        """Return the events that a model's state goes back to.

        Args:
            name: The model.
            read_model: The read_model whose state is meant; by default now.
        """
        then = await self.now() if read_model is None else read_model
        return await explain_state(self._storage.store, then, name)

    async def freeze(self) -> DesiredSet:
        """Return what is there as a desired set; the plan to it has no steps."""
        return desired.freeze(await self.all_statuses())

    async def events(
        self, *, after: int | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Yield what is recorded from now on, or from behind a position, live."""
        position = (
            (await self._storage.store.head()).position if after is None else after
        )
        async with aclosing(self._storage.store.subscribe(position)) as recorded:
            async for event in recorded:
                yield event

    async def verify(self, *, anchors: Collection[Head] = ()) -> Verification:
        """Check the whole log: chain, head, positions, versions, facts, legality.

        Args:
            anchors: Heads that were written down before; the log must still have
                them.
        """
        return await verify(self._storage, anchors=anchors)
