"""What the log says at one moment: now, or as of a position or a time.

Every answer is read from the views alone, so that an old moment is answered by the
same code as the present one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from herdbook.core.errors import InvalidNameError
from herdbook.core.models.capabilities import ModelMetadata, detect
from herdbook.core.models.configuration import ModelOptions, options_for
from herdbook.core.models.names import canonical_name, name_key, respelled
from herdbook.core.models.registry import ModelRegistry, parse_role
from herdbook.core.views import Views
from herdbook.events.facts import Capability
from herdbook.events.findings import Finding
from herdbook.events.streams import model_stream, node_stream
from herdbook.projections.recommendation import Candidate, Recommendation
from herdbook.projections.roles import ModelRole
from herdbook.projections.statistics import ModelStatistics
from herdbook.projections.status import ModelStatus, NodeStatus


class ReadModel:
    """The models of one node, as the log has them at one position.

    Attributes:
        position: The last event that counts; 0 before the first.
        asked: The time that was asked for; None for a position, or for now.
        overdue_since: The last successful refresh, if the ones after it are missing:
            what is known of the server is out of date. None otherwise.
        held_back: Models with a change that was seen and is not recorded yet, since
            there were too many, and models whose state in memory the server did not
            show; with the time of that.
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

    def fixed(self) -> ReadModel:
        """Return this moment so that events that are recorded later do not change it.

        Answers about now come from views that follow the log. Whoever awaits between
        two questions takes this first, or the answers may be of two positions.
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

    @property
    def position(self) -> int:
        """The last event that counts; 0 before the first."""
        return self._views.position

    def spelled(self, name: str) -> str:
        """Return the canonical name, spelled as the server spells it.

        Raises:
            InvalidNameError: It is no name.
        """
        try:
            canonical = canonical_name(name)
        except InvalidNameError:
            if self._knows(name):
                return name
            raise
        if self._knows(canonical):
            return canonical
        if self._knows(name):  # recorded by a version that took any name
            return name
        known = self._views.status.all(self._node)
        alike = (one.name for one in known if name_key(one.name) == name_key(canonical))
        present = [one.name for one in known if one.present]
        return next(alike, None) or respelled(canonical, present)

    def _knows(self, name: str) -> bool:
        return self._views.status.find(model_stream(self._node, name)) is not None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with events of the log, up to 100 findings.

        Events that cannot be read, that are not legal where they are, or that are in
        the wrong stream.
        """
        return tuple(self._views.status.findings)

    def statuses(self) -> list[ModelStatus]:
        """Return the status of every model that the log knows, by name."""
        return [self._aged(one) for one in self._views.status.all(self._node)]

    def status(self, name: str) -> ModelStatus:
        """Return a model's status; ``not_present`` for one that nobody has seen."""
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
        """Mark a status, which is a copy, as stale if the server may say otherwise."""
        if status.stale_since is None:
            held = self.held_back.get(status.name)
            status.stale_since = self.overdue_since or held
        return status

    def node_status(self) -> NodeStatus:
        """Return the node's own status."""
        known = self._views.status.node(node_stream(self._node))
        return known or NodeStatus(name=self._node)

    def capabilities(self, name: str) -> dict[str, Capability]:
        """Return what a model can do, by name, each with its source.

        Of a model that was never seen: what the registry expects of it.
        """
        status = self.status(name)
        if status.detected:
            return status.capabilities
        status.detected = detect(
            status.name, ModelMetadata(), self._registry
        ).capabilities
        return status.capabilities

    def statistics(self, name: str) -> ModelStatistics:
        """Return a model's figures over its history up to the moment."""
        stream = model_stream(self._node, self.spelled(name))
        return self._views.statistics.get(stream) or ModelStatistics()

    def options_for(self, name: str) -> ModelOptions:
        """Return the options that a model is to be used with."""
        status = self.status(name)
        return options_for(status.settings, temperature=status.temperature)

    def explain(self, role: ModelRole | str) -> Recommendation:
        """Return the order for a role, with reasons, and who was passed over.

        Raises:
            UnknownRoleError: No role has that name.
        """
        return self._views.recommendation.explain(parse_role(role), self._node)

    def recommend(self, role: ModelRole | str) -> Candidate | None:
        """Return the model to use for a role; None if there is none.

        Raises:
            UnknownRoleError: No role has that name.
        """
        return self._views.recommendation.first(parse_role(role), self._node)
