"""Queries of the manager, which change nothing.

They read the views after these have caught up with the log, or the log itself.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from datetime import datetime

from herdbook.core.desired import desired
from herdbook.core.desired.desired import DesiredSet
from herdbook.core.errors import CallerError
from herdbook.core.history import pages as log_pages
from herdbook.core.history.diff import Difference, difference
from herdbook.core.history.explain import Explanation
from herdbook.core.history.explain import explain as explain_state
from herdbook.core.history.levels import Column, LevelKind, LevelsHistory
from herdbook.core.history.missing_archives import AvailableHistory
from herdbook.core.history.pages import LogPage, PageQuery
from herdbook.core.history.position_at import position_at, position_before
from herdbook.core.history.read_model import ReadModel
from herdbook.core.history.usage import parse_dimensions
from herdbook.core.models.configuration import ModelOptions
from herdbook.core.models.registry import ModelRegistry, Suggestion
from herdbook.core.open_log import OpenLog
from herdbook.core.repository import ModelRepository
from herdbook.events.archive_file import UNREADABLE
from herdbook.events.facts import Capability, Setting
from herdbook.events.recorded import RecordedEvent
from herdbook.events.store import ArchivedStore, Head
from herdbook.events.streams import is_of_node, model_stream
from herdbook.events.verify import Verification
from herdbook.projections.history import HistoryEntry, HistoryFilter, HistoryView
from herdbook.projections.recommendation import Candidate, Recommendation
from herdbook.projections.roles import ModelRole
from herdbook.projections.statistics import ModelStatistics
from herdbook.projections.status import ModelStatus, NodeStatus
from herdbook.projections.usage.report import Usage, UsageDimension


class Queries:
    """Queries of a manager, answered from the log; see ``ModelManager``.

    Attributes:
        registry: Known models, with what to expect of them before they are present.
    """

    def __init__(
        self, log: OpenLog, repository: ModelRepository, registry: ModelRegistry
    ) -> None:
        self.registry = registry
        self._log = log
        self._storage = log.storage
        self._repository = repository
        self._levels = LevelsHistory(log.storage, repository.node)

    async def now(self) -> ReadModel:
        """Return the read model at the end of the log, for several queries at once."""
        await self._repository.catch_up()
        return self.latest()

    def latest(self) -> ReadModel:
        """Return the read model of the views, without catching up with the log.

        Enough for a command: its append fails if the model has changed meanwhile.
        """
        return ReadModel(
            self._repository.views,
            self.registry,
            self._repository.node,
            live=True,
            overdue_since=self._overdue_since(),
            held_back=self._held_back(),
        )

    def _latest_settings(self, name: str) -> Mapping[str, Setting]:
        """Return the settings of a model, without catching up with the log.

        Raises:
            InvalidNameError: The name is not valid.
        """
        views, node = self._repository.views, self._repository.node
        return ReadModel(views, self.registry, node).settings(name)

    def _spelled(self, name: str) -> str:
        """Return the canonical name of a model, spelled as the server spells it.

        Raises:
            InvalidNameError: The name is not valid.
        """
        views, node = self._repository.views, self._repository.node
        return ReadModel(views, self.registry, node).spelled(name)

    def _held_back(self) -> Mapping[str, datetime]:
        """Return the models with changes that are held back, and since when."""
        return {}

    def _overdue_since(self) -> datetime | None:
        """Return the last successful background refresh if later ones are overdue.

        None if they are on time, or if there is no background refresh.
        """
        return None

    async def head(self) -> Head:
        """Return the position and hash of the newest event."""
        return await self._storage.store.head()

    async def lag(self) -> int:
        """Return the number of events that the views have not applied yet."""
        return max((await self.head()).position - self._repository.views.position, 0)

    async def position_at(self, when: datetime) -> int:
        """Return the position of the last event at or before a time.

        Raises:
            CallerError: The time has no time zone.
        """
        return await position_at(self._storage.store, when)

    async def as_of(self, when: int | datetime) -> ReadModel:
        """Return what the log said at a position, or at a time.

        Raises:
            CallerError: The log has no such position, or the time has no time zone, or
                ``when`` is neither.
        """
        if not isinstance(when, int | datetime):
            raise CallerError(
                f"{when!r}"[:80],
                "is not a position or a time",
                "Use a position, such as 123, or a datetime with a time zone",
            )
        asked = None if isinstance(when, int) else when
        then = await self._log.past.views_at(await self._position(when))
        return ReadModel(then, self.registry, self._repository.node, asked=asked)

    async def diff(
        self, since: int | datetime, until: int | datetime | None = None
    ) -> Difference:
        """Return the differences between two positions or times; by default until now.

        Raises:
            CallerError: The log has no such position, or a time has no time zone.
        """
        then = await self.as_of(since)
        return await difference(
            then, await self.now() if until is None else await self.as_of(until)
        )

    async def all_statuses(self) -> list[ModelStatus]:
        """Return the status of every model in the log, sorted by name."""
        return (await self.now()).statuses()

    async def get_status(self, name: str) -> ModelStatus:
        """Return the status of a model; ``not_present`` for an unknown one.

        Raises:
            InvalidNameError: The name is not valid.
        """
        return (await self.now()).status(name)

    async def is_available(self, name: str) -> bool:
        """Return whether the server has a model; False while it is being pulled."""
        return (await self.get_status(name)).present

    async def node_status(self) -> NodeStatus:
        """Return the status of the server: reachable, version, address."""
        return (await self.now()).node_status()

    async def capabilities(self, name: str) -> dict[str, Capability]:
        """Return the capabilities of a model by name, each with its source."""
        return (await self.now()).capabilities(name)

    async def options_for(self, name: str) -> ModelOptions:
        """Return the options to send with a request to a model."""
        return (await self.now()).options_for(name)

    async def recommend(self, role: ModelRole | str) -> Candidate | None:
        """Return the best present model for a role; None if there is none.

        Raises:
            UnknownRoleError: The role does not exist.
        """
        return (await self.now()).recommend(role)

    async def explain(self, role: ModelRole | str) -> Recommendation:
        """Return the candidates for a role in order, with reasons, and those rejected.

        Raises:
            UnknownRoleError: The role does not exist.
        """
        return (await self.now()).explain(role)

    async def suggest(
        self, role: ModelRole | str, *, memory_bytes: int | None = None
    ) -> tuple[Suggestion, ...]:
        """Return known models for a role that are not present, the best first.

        Models that were used before, and are gone, come first.

        Args:
            role: The role.
            memory_bytes: Most memory that a model may need, bytes; None for any.

        Raises:
            UnknownRoleError: The role does not exist.
        """
        models = await self.now()
        return self.registry.suggest(
            role,
            present=[each.name for each in models.statuses() if each.present],
            used=models.used_before(),
            memory_bytes=memory_bytes,
        )

    async def statistics(self, name: str) -> ModelStatistics:
        """Return statistics of a model over its whole history."""
        return (await self.now()).statistics(name)

    async def usage(
        self,
        by: str | Collection[str] = UsageDimension.MODEL,
        *,
        since: int | datetime | None = None,
        until: int | datetime | None = None,
        all_nodes: bool = False,
    ) -> Usage:
        """Return how models were used: requests, tokens, durations and errors.

        The first call folds all uses of the log; later calls read the new ones only.

        Args:
            by: What to group by: ``model``, ``node``, ``client``, ``role``, ``day``,
                ``hour``, ``outcome``, ``endpoint`` or ``failure``, or by several.
            since: Only uses recorded after this position or time.
            until: Only uses recorded up to this position or time; by default all.
                The answer of a past position never changes.
            all_nodes: Count the models of all nodes of the log, not of this one alone.

        Raises:
            UnknownDimensionError: Use cannot be grouped by this name.
            CallerError: The log has no such position, a time has no time zone, or the
                answer has more than 10,000 groups.
            StoreError: The log cannot be read.
        """
        dimensions = parse_dimensions([by] if isinstance(by, str) else by)
        after = 0 if since is None else await self._position(since)
        last = None if until is None else await self._position(until)
        return await self._log.usage.read(
            dimensions,
            node=None if all_nodes else self._repository.node,
            after=after,
            until=last,
        )

    async def levels(
        self,
        kind: LevelKind | str,
        *,
        begin: datetime | None = None,
        end: datetime,
        columns: int = 96,
        until: int | None = None,
        model: str | None = None,
    ) -> list[Column]:
        """Return memory, disk space or requests over time, by model.

        Models with the same weights count once, under the name of one of them. The
        first call folds the log; later calls read the new events only.

        Args:
            kind: ``memory``, ``disk`` or ``requests``.
            begin: Start of the first column; None for the first event that counts.
            end: End of the last column.
            columns: Number of columns of equal length. Each has the memory at the time
                in it when most was in use, the disk space after its last change, or
                the number of its requests.
            until: Position of the last event that counts; None for all.
            model: Only this model.

        Raises:
            StoreError: The log cannot be read.
        """
        return await self._levels.read(
            LevelKind(kind),
            begin=begin,
            end=end,
            columns=columns,
            until=sys.maxsize if until is None else until,
            model=model,
        )

    async def _position(self, when: int | datetime) -> int:
        """Return a position, or the last one at or before a time.

        Raises:
            CallerError: The log has no such position, or the time has no time zone.
        """
        if isinstance(when, datetime):
            return await position_at(self._storage.store, when)
        head = (await self._storage.store.head()).position
        if not 0 <= when <= head:
            raise CallerError(
                f"#{when}",
                "does not exist" if when < 0 else "does not exist yet",
                f"The last event is #{head}; #0 is the state before the first",
            )
        return when

    async def history(
        self,
        name: str | None = None,
        chosen: HistoryFilter | None = None,
        *,
        node: str | None = None,
    ) -> list[HistoryEntry]:
        """Return the history of a model, or of all models, oldest first.

        Args:
            name: The model; None for all models and nodes of the log.
            chosen: Filter; None for all events.
            node: The node of the model, by default that of the manager; without a
                model, only the events of this node and its models.
        """
        return await self._history(name, chosen, node)

    async def available_history(
        self,
        name: str | None = None,
        chosen: HistoryFilter | None = None,
        *,
        node: str | None = None,
    ) -> AvailableHistory:
        """Return the history, as far as the archives of the log are there.

        If an archive that it needs is missing or damaged, it begins after the last
        archive.

        Args:
            name: As in ``history``.
            chosen: As in ``history``.
            node: As in ``history``.
        """
        try:
            return AvailableHistory(entries=await self._history(name, chosen, node))
        except UNREADABLE as error:
            entries = await self._history(name, chosen, node, archived=False)
            return AvailableHistory(entries=entries, missing=str(error))

    async def _history(
        self,
        name: str | None,
        chosen: HistoryFilter | None,
        node: str | None,
        *,
        archived: bool = True,
    ) -> list[HistoryEntry]:
        view, store, after = HistoryView(chosen), self._storage.store, 0
        archives = None
        if not archived and isinstance(store, ArchivedStore):
            archives = store
        if name is None:
            if archives:
                after = (await archives.archives())[-1].last
            elif view.chosen.since is not None:
                after = await position_before(store, view.chosen.since)
            recorded = store.read_all(after=after)
        else:
            own = (await self.now()).spelled(name) if node is None else name
            stream = model_stream(node or self._repository.node, own)
            if archives:
                after = (await archives.archived_versions()).get(stream, 0)
            recorded = store.read_stream(stream, after_version=after)
        async for event in recorded:
            if node is None or is_of_node(event.stream, node):
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
        """Return a page of the log and the position where the next page starts.

        A page scans a bounded number of events, so it may be empty although more
        follow.

        Args:
            after: Only events after this position; 0 is before the first.
            before: Only events before this position; None for no bound.
            limit: Most events on the page.
            newest_first: Read downwards from ``before`` instead of upwards from
                ``after``.
            stream_prefix: Only streams with names that start with this text.
            chosen: Filter; by default all events. Its own limit is ignored.

        Raises:
            CallerError: A position is negative, or the limit is less than 1.
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
        """Return the events that explain the state of a model.

        Args:
            name: The model.
            read_model: Explain the state there; by default now.
        """
        read_model = await self.now() if read_model is None else read_model
        return await explain_state(self._storage.store, read_model, name)

    async def freeze(self) -> DesiredSet:
        """Return the current state as a desired set, to which the plan has no steps."""
        return desired.freeze(await self.all_statuses())

    async def events(
        self, *, after: int | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Yield events as they are recorded, until the iterator is closed.

        Args:
            after: Start after this position; by default at the end of the log.
        """
        position = (
            (await self._storage.store.head()).position if after is None else after
        )
        async with aclosing(self._storage.store.subscribe(position)) as recorded:
            async for event in recorded:
                yield event

    async def verify(self, *, anchors: Collection[Head] = ()) -> Verification:
        """Verify the whole log: hash chain, head, positions, versions, data, legality.

        Args:
            anchors: Heads that were recorded elsewhere; the log must still have them.
        """
        # Only some commands need the checks, which take long to import.
        from herdbook.core.checks.verification import verify  # noqa: PLC0415

        return await verify(self._storage, anchors=anchors)
