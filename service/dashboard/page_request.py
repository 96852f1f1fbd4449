"""The request for a page: the user, the node and the time that it shows."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from herdbook.core import (
    AmbiguousNodeError,
    ModelManager,
    ModelNotFoundError,
    ReadModel,
    RunningOperation,
    UnknownNodeError,
)
from herdbook.core.fleet import queries
from herdbook.presentation.times import Now
from herdbook.service.auth.tokens import Principal, Role
from herdbook.service.context import Service, service_of
from herdbook.service.dashboard.charts.sampling import recorded_at
from herdbook.service.dashboard.links import Links
from herdbook.service.dashboard.time_zone import time_zone_of
from herdbook.service.errors import BadRequestError, ForbiddenError
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import principal_of

DONE = "done"
"""The query parameter with the position of the event that an action recorded."""

NOTE = "note"
"""The query parameter with the result of an action that recorded no event."""

SLIDER = "time"
"""The query parameter of the slider without a script: milliseconds since 1970."""

NODE = "node"
"""The query parameter with the node of a page."""


class PageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a page.

    Attributes:
        request: The request.
        service: The service.
        principal: The user.
        read_model: The read model of the node that the page shows.
        nodes: The read models of all nodes.
        by_name: The same by the names of the nodes.
        node: Name of the node of the page, if there are several and the page is about
            one of them; otherwise empty.
        at: Its time; None for now.
        present: The current time, in the reader's zone.
        head: The newest position of the log.
        links: The links of the page.
    """

    request: AnyRequest
    service: Service
    principal: Principal
    read_model: ReadModel
    nodes: list[ReadModel]
    by_name: dict[str, ReadModel]
    node: str
    at: datetime | None
    present: Now
    head: int
    links: Links

    @property
    def several(self) -> bool:
        """Whether there are several nodes."""
        return len(self.nodes) > 1

    @property
    def manager(self) -> ModelManager:
        """The manager of the node of the page; of the past, of any that there is now.

        Raises:
            HerdbookError: The node cannot be managed now.
        """
        fleet = self.service.fleet
        if self.past and self.read_model.node not in fleet.names:
            return fleet.home
        return fleet.manager(self.read_model.node)

    def of(self, node: str) -> ReadModel:
        """Return the read model of a node."""
        return self.by_name.get(node) or self.read_model.of(node)

    @property
    def past(self) -> bool:
        """Whether the page shows the past."""
        return self.links.as_of is not None

    @property
    def now(self) -> Now:
        """The time that the page shows; texts are relative to it."""
        return self.present if self.at is None else Now(self.at, self.present.zone)

    async def desired_models(self) -> list[str]:
        """Return the models in the desired set of the service, as the node names them.

        Raises:
            InvalidDesiredError: The file of the desired set is not valid.
        """
        desired = await self.service.desired_models()
        return [self.read_model.spelled(name) for name in desired]

    def off(self, needed: Role = Role.OPERATE) -> str:
        """Return why actions are disabled here; empty if they are not.

        Args:
            needed: The role that the action needs.
        """
        if self.past:
            return "Actions are disabled: this page shows the past."
        if self.service.settings.read_only:
            return "Actions are disabled: the service is read-only."
        if not self.principal.role.allows(needed):
            return (
                f"This requires the {needed.value} role. "
                f"{self.principal.name} has the {self.principal.role.value} role."
            )
        return ""

    def require(self, needed: Role, subject: str, state: str) -> None:
        """Check that the user may act here.

        Args:
            needed: The role that the action needs.
            subject: What the action is about.
            state: What is not possible, after the subject.

        Raises:
            ForbiddenError: The user may not, or the page shows the past.
        """
        if off := self.off(needed):
            # The remedy of an error has no full stop; whatever shows it adds one.
            raise ForbiddenError(subject, state, off.removesuffix("."))

    def require_node(self) -> None:
        """Check that the page is about one node.

        Raises:
            AmbiguousNodeError: There are several nodes, and none is named.
        """
        if self.several and not self.node:
            raise AmbiguousNodeError("", tuple(one.node for one in self.nodes))

    def operations(self) -> dict[tuple[str, str], RunningOperation]:
        """Return the running operations of the service by node and model; now only."""
        if self.past:
            return {}
        managers = self.service.fleet.managers()
        running = [work for manager in managers for work in manager.under_way()]
        return {(work.node, work.name): work for work in running}


async def visit(request: AnyRequest, *, model: str | None = None) -> PageRequest:
    """Return the page request for an HTTP request.

    Args:
        request: The request. With several nodes, ``node`` in its query says which.
        model: The model that the page is about.

    Raises:
        CallerError: The requested time is invalid, or outside the log; or there is no
            such node.
        AmbiguousNodeError: Several nodes have the model, and none is named.
    """
    service = service_of(request)
    present = Now(service.clock.now(), time_zone_of(request.cookies))
    asked = _asked(request)
    latest = await service.fleet.now()
    head = latest[0].position
    if asked is None:
        nodes = ReadModel.fixed_together(latest)
    else:
        then = await service.past(present.parse(asked))
        nodes = service.fleet.nodes_of(then)
    named = str(request.query_params.get(NODE, "")).strip()
    by_name = {one.node: one for one in nodes}
    read_model = _read_model(service, by_name, named, model)
    about_one = len(nodes) > 1 and (named or model is not None)
    at = None
    if asked is not None:
        at = read_model.asked or await recorded_at(service.manager, read_model.position)
    return PageRequest(
        request=request,
        service=service,
        principal=principal_of(request),
        read_model=read_model,
        nodes=nodes,
        by_name=by_name,
        node=read_model.node if about_one else "",
        at=at,
        present=present,
        head=head,
        links=Links(
            _fixed(asked, read_model),
            read_model.node if about_one else "",
            several=len(nodes) > 1,
        ),
    )


def _read_model(
    service: Service, by_name: dict[str, ReadModel], named: str, model: str | None
) -> ReadModel:
    """Return the read model of the node that a page is about.

    Raises:
        UnknownNodeError: There is no such node.
        AmbiguousNodeError: Several nodes have the model, and none is named.
    """
    nodes = [*by_name.values()]
    if named and named not in by_name:
        if named in service.fleet.all_names:  # it was added later
            return nodes[0].of(named)
        raise UnknownNodeError(named, known=tuple(by_name))
    if not named and model is not None:
        with suppress(ModelNotFoundError):
            named = queries.node_in(nodes, model)
    return by_name.get(named or service.manager.latest().node, nodes[0])


def _asked(request: AnyRequest) -> str | None:
    """Return the time that a page is asked for: as text, or from the slider.

    Raises:
        BadRequestError: The slider's time is not a number of milliseconds.
    """
    text = str(request.query_params.get("as_of", "")).strip()
    slider = str(request.query_params.get(SLIDER, "")).strip()
    if text or not slider:
        return text or None
    try:
        at = datetime.fromtimestamp(int(slider) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        raise BadRequestError(
            f"{SLIDER} {slider[:80]!r}", "cannot be read as a time", "Use as_of instead"
        ) from None
    return at.isoformat()


def _fixed(asked: str | None, read_model: ReadModel) -> str | None:
    """Return the requested time as an absolute one: links keep their meaning."""
    if asked is None:
        return None
    if read_model.asked is None:
        return str(read_model.position)
    return read_model.asked.isoformat().replace("+00:00", "Z")


def past_text(visit: PageRequest) -> str:
    """Return ``as of 21 Nov, 09:03:10 (#988)``; empty for now."""
    if not visit.past:
        return ""
    time, position = time_text(visit), visit.read_model.position
    return f"{time} (#{position})" if position else time


def time_text(visit: PageRequest) -> str:
    """Return the time that a page shows: ``now``, ``as of 21 Nov, 09:03:10``."""
    if not visit.past:
        return "now"
    if visit.at is None or not visit.read_model.position:
        return "before the first event"
    day, _, time = visit.present.clock(visit.at).rpartition(" ")
    return f"as of {f'{day}, ' if day else ''}{time}"


def query_of(visit: PageRequest) -> list[tuple[str, str]]:
    """Return the query of a page without the time."""
    found: Iterable[tuple[str, Any]] = visit.request.query_params.multi_items()
    return [
        (name, str(value))
        for name, value in found
        if name not in {"as_of", SLIDER, DONE, NOTE} and value
    ]


def raw_path(request: AnyRequest) -> str:
    """Return the path of a request as the client sent it, still quoted."""
    raw = request.scope.get("raw_path") or request.scope["path"].encode()
    return raw.decode("latin-1")
