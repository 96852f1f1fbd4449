"""The read model: the models as recorded up to one position of the log.

All answers come from the views, so the same code answers for the present and the past.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from herdbook.core.errors import InvalidNameError
from herdbook.core.models.capabilities import ModelMetadata, detect
from herdbook.core.models.configuration import ModelOptions, options_for
from herdbook.core.models.names import canonical_name, name_key, respelled
from herdbook.core.models.registry import ModelRegistry, parse_role
from herdbook.core.views import Views
from herdbook.events.facts import Capability, Setting
from herdbook.events.findings import Finding
from herdbook.events.streams import model_stream, node_stream
from herdbook.projections.recommendation import Candidate, Recommendation
from herdbook.projections.roles import ModelRole
from herdbook.projections.statistics import ModelStatistics
from herdbook.projections.status import ModelStatus, NodeStatus


class ReadModel:
    """The models of one node at one position of the log.

    Attributes:
        position: Position of the last applied event; 0 before the first.
        asked: The requested time; None for a position, or for now.
        overdue_since: Time of the last successful refresh, if later ones are overdue,
            so that the state of the server may be outdated. None otherwise.
        held_back: Models whose status may be outdated, with the time since when: a
            change was held back because there were too many, or the server did not
            show whether the model is in memory.
    """

    def __init__(
        self,
        views: Views,
        registry: ModelRegistry,
        node: str,
        *,
        live: bool = False,
        asked: datetime | None = None,
        overdue_since: datetime | None = None,
        held_back: Mapping[str, datetime] | None = None,
    ) -> None:
        self._views = views
        self._registry = registry
        self._node = node
        self._is_live = live
        self.asked = asked
        self.overdue_since = overdue_since
        self.held_back = held_back or {}

    @property
    def node(self) -> str:
        """Name of the node."""
        return self._node

    def of(self, node: str) -> ReadModel:
        """Return the read model of another node at the same position of the past."""
        return ReadModel(self._views, self._registry, node, asked=self.asked)

    def nodes(self) -> list[NodeStatus]:
        """Return the status of every node in the log, by name."""
        return self._views.status.nodes()

    def fixed(self) -> ReadModel:
        """Return a copy that later events do not change.

        The read model of now follows the log. Use a copy to await between two queries,
        or their answers may be of different positions.
        """
        if not self._is_live:
            return self
        return ReadModel(
            self._views.copy(),
            self._registry,
            self._node,
            asked=self.asked,
            overdue_since=self.overdue_since,
            held_back=dict(self.held_back),
        )

    @staticmethod
    def fixed_together(read_models: Sequence[ReadModel]) -> list[ReadModel]:
        """Return copies that share one position, of the read models of several nodes.

        Args:
            read_models: Read models of one log, all live or all of one position.
        """
        first = read_models[0].fixed()
        if first is read_models[0]:
            return [*read_models]
        return [
            ReadModel(
                first._views,  # noqa: SLF001 - of the same class
                one._registry,  # noqa: SLF001
                one.node,
                asked=one.asked,
                overdue_since=one.overdue_since,
                held_back=dict(one.held_back),
            )
            for one in read_models
        ]

    @property
    def position(self) -> int:
        """Position of the last applied event; 0 before the first."""
        return self._views.position

    def spelled(self, name: str) -> str:
        """Return the canonical name, spelled as the server spells it.

        Raises:
            InvalidNameError: The name is not valid.
        """
        try:
            canonical = canonical_name(name)
        except InvalidNameError:
            if self._is_recorded(name):
                return name
            raise
        if self._is_recorded(canonical):
            return canonical
        if self._is_recorded(name):  # recorded by a version that accepted any name
            return name
        known = self._views.status.all(self._node)
        alike = (one.name for one in known if name_key(one.name) == name_key(canonical))
        present = [one.name for one in known if one.present]
        return next(alike, None) or respelled(canonical, present)

    def _is_recorded(self, name: str) -> bool:
        return self._views.status.find(model_stream(self._node, name)) is not None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Events of the log that are unreadable, illegal or in the wrong stream.

        At most the first 100 findings.
        """
        return tuple(self._views.status.findings)

    def statuses(self) -> list[ModelStatus]:
        """Return the status of every model in the log, sorted by name."""
        return [self._aged(one) for one in self._views.status.all(self._node)]

    def records(self) -> list[ModelStatus]:
        """Return the records of all models without copies, sorted by name.

        They lack the time since when they may be outdated. A record of a fixed read
        model stands for one state of its model: it is never changed, and the read
        models of later positions have the same object until the model changes.
        """
        return self._views.status.records(self._node)

    def status(self, name: str) -> ModelStatus:
        """Return the status of a model; ``not_present`` for an unknown one."""
        name = self.spelled(name)
        known = self._views.status.get(model_stream(self._node, name))
        if known is not None:
            return self._aged(known)
        node = self.node_status()
        stale_since = None if node.reached else node.since
        return self._aged(
            ModelStatus(node=self._node, name=name, stale_since=stale_since)
        )

    def _aged(self, status: ModelStatus) -> ModelStatus:
        """Mark a status, which is a copy, as stale if it may be outdated."""
        if status.stale_since is None:
            held = self.held_back.get(status.name)
            status.stale_since = self.overdue_since or held
        return status

    def used_before(self) -> list[str]:
        """Return the deleted models that were used, most recently used first."""
        gone = [
            (each.last_used_at, each.name)
            for each in self._views.status.all(self._node)
            if not each.present and each.last_used_at is not None
        ]
        return [name for _, name in sorted(gone, reverse=True)]

    def node_status(self) -> NodeStatus:
        """Return the status of the node."""
        known = self._views.status.node(node_stream(self._node))
        return known or NodeStatus(name=self._node)

    def memory_used(self) -> int:
        """Return the memory of all loaded models, bytes; a runner counts once."""
        return self._views.status.memory.used(self._node)

    def most_memory(self) -> int | None:
        """Return the most memory of loaded models so far, bytes; None if unknown."""
        return self._views.status.memory.most.get(self._node)

    def capabilities(self, name: str) -> dict[str, Capability]:
        """Return the capabilities of a model by name, each with its source.

        For a model that was never seen, those that the registry expects.
        """
        status = self.status(name)
        if status.detected:
            return status.capabilities
        status.detected = detect(
            status.name, ModelMetadata(), self._registry
        ).capabilities
        return status.capabilities

    def settings(self, name: str) -> Mapping[str, Setting]:
        """Return the configured settings of a model, which must not be changed.

        Raises:
            InvalidNameError: The name is not valid.
        """
        stream = model_stream(self._node, self.spelled(name))
        known = self._views.status.find(stream)
        return {} if known is None else known.settings

    def statistics(self, name: str) -> ModelStatistics:
        """Return statistics of a model over its history up to this position."""
        stream = model_stream(self._node, self.spelled(name))
        return self._views.statistics.get(stream) or ModelStatistics()

    def options_for(self, name: str) -> ModelOptions:
        """Return the options to send with a request to a model."""
        status = self.status(name)
        return options_for(status.settings, temperature=status.temperature)

    def explain(self, role: ModelRole | str) -> Recommendation:
        """Return the candidates for a role in order, with reasons, and those rejected.

        Raises:
            UnknownRoleError: The role does not exist.
        """
        return self._views.recommendation.explain(parse_role(role), self._node)

    def explain_everywhere(self, role: ModelRole | str) -> Recommendation:
        """Return the candidates for a role on all nodes in order, and those rejected.

        Raises:
            UnknownRoleError: The role does not exist.
        """
        return self._views.recommendation.explain(parse_role(role))

    def order_everywhere(self, role: ModelRole | str) -> tuple[Candidate, ...]:
        """Return the candidates for a role on all nodes in order.

        Raises:
            UnknownRoleError: The role does not exist.
        """
        return self._views.recommendation.order(parse_role(role))

    def recommend(self, role: ModelRole | str) -> Candidate | None:
        """Return the best present model for a role; None if there is none.

        Raises:
            UnknownRoleError: The role does not exist.
        """
        return self._views.recommendation.first(parse_role(role), self._node)
