"""The parts of every page: navigation, user, time, and the time bar."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from litestar import MediaType, Response
from markupsafe import Markup

from herdbook.core import (
    HerdbookError,
    ModelManager,
    ModelNotFoundError,
    ReadModel,
    UnknownNodeError,
)
from herdbook.core.fleet import questions
from herdbook.presentation.times import Now
from herdbook.service.auth.tokens import Principal, Role
from herdbook.service.context import Service, service_of
from herdbook.service.dashboard.charts.memory import Sample, density_strip
from herdbook.service.dashboard.charts.sampling import Samples, recorded_at
from herdbook.service.dashboard.event_list import EventEntry, entries_with_events
from herdbook.service.dashboard.links import Links, joined_link
from herdbook.service.dashboard.model_events import event_at
from herdbook.service.dashboard.templating import rendered, rendered_in_slices
from herdbook.service.dashboard.time_zone import time_zone_of
from herdbook.service.errors import BadRequestError
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import authenticator_of, principal_of
from herdbook.service.problems import headers_of, status_of

DONE = "done"
"""The query parameter with the position of the event that an action recorded."""

SLIDER = "time"
"""The query parameter of the slider without a script: milliseconds since 1970."""

NAVIGATION = (
    ("Models", "/"),
    ("Roles", "/roles"),
    ("Usage", "/usage"),
    ("Log", "/log"),
    ("Server", "/node"),
)


NODE = "node"
"""The query parameter with the node of a page."""


def navigation(*, several: bool) -> list[tuple[str, str]]:
    """Return the pages of the navigation: the server, or the list of several nodes."""
    pages = dict(NAVIGATION)
    if several:
        del pages["Server"]
        pages["Nodes"] = "/nodes"
    return [*pages.items()]


class PageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a page.

    Attributes:
        request: The request.
        service: The service.
        principal: The user.
        moment: The read model of the node that the page shows.
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
    moment: ReadModel
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
        if self.past and self.moment.node not in fleet.names:
            return fleet.home
        return fleet.manager(self.moment.node)

    def of(self, node: str) -> ReadModel:
        """Return the read model of a node."""
        return self.by_name.get(node) or self.moment.of(node)

    @property
    def past(self) -> bool:
        """Whether the page shows the past."""
        return self.links.as_of is not None

    @property
    def now(self) -> Now:
        """The time that the page shows; texts are relative to it."""
        return self.present if self.at is None else Now(self.at, self.present.zone)

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
                f"Read-only: this needs the role {needed.value}. "
                f"{self.principal.name} has the role {self.principal.role.value}."
            )
        return ""


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
    moment = _moment(service, by_name, named, model)
    about_one = len(nodes) > 1 and (named or model is not None)
    at = None
    if asked is not None:
        at = moment.asked or await recorded_at(service.manager, moment.position)
    return PageRequest(
        request=request,
        service=service,
        principal=principal_of(request),
        moment=moment,
        nodes=nodes,
        by_name=by_name,
        node=moment.node if about_one else "",
        at=at,
        present=present,
        head=head,
        links=Links(
            _fixed(asked, moment),
            moment.node if about_one else "",
            several=len(nodes) > 1,
        ),
    )


def _moment(
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
            named = questions.node_in(nodes, model)
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
            f"{SLIDER} {slider[:80]!r}", "is not a time", "Use as_of instead"
        ) from None
    return at.isoformat()


def _fixed(asked: str | None, moment: ReadModel) -> str | None:
    """Return the requested time as an absolute one: links keep their meaning."""
    if asked is None:
        return None
    if moment.asked is None:
        return str(moment.position)
    return moment.asked.isoformat().replace("+00:00", "Z")


class Bar(NamedTuple):
    """The time bar at the bottom of a page.

    Attributes:
        head: The newest position.
        position: The position that the page shows.
        action: The path of the page.
        kept: The rest of its query.
        strip: The density of events over the log.
        samples: Positions with their times, for the slider's script.
        first: Begin of the slider, milliseconds since 1970: before the first event.
        last: End of the slider: now.
        shown: The time that the page shows.
        earlier: The same page one event earlier; empty at the beginning.
        later: The same page one event later; empty for now.
        begin: The time of the first event, as text.
        label: Text of the time that the page shows.
        local: The same for a date-and-time field; empty for now.
        latest: The current time for such a field.
    """

    head: int
    position: int
    action: str
    kept: list[tuple[str, str]]
    strip: Markup
    samples: str
    first: int
    last: int
    shown: int
    earlier: str
    later: str
    begin: str
    label: str
    local: str
    latest: str


async def render(
    visit: PageRequest,
    template: str,
    *,
    title: str,
    status_code: int = 200,
    **values: object,
) -> Response[str]:
    """Return a page.

    Args:
        visit: The request for it.
        template: Its template.
        title: The title in the browser.
        status_code: The HTTP status.
        values: The variables of the template.
    """
    forms = authenticator_of(visit.request).forms
    proof, cookie = forms.prove(visit.request.scope, visit.principal)
    text = await rendered_in_slices(
        template,
        title=title,
        visit=visit,
        proof=proof,
        links=visit.links,
        now=visit.now,
        bar=await _bar(visit),
        banner=visit.service.settings.banner,
        navigation=[
            (word, visit.links.to(path), _is_at(visit.request.url.path, path))
            for word, path in navigation(several=visit.several)
        ],
        past=past_text(visit),
        done=await _done(visit),
        server_lost=_server_lost(visit),
        back=_here(visit),
        clock=f"{visit.present.at.astimezone(visit.present.zone):%H:%M:%S}",
        off=visit.off(),
        **values,
    )
    return Response(
        text,
        status_code=status_code,
        media_type=MediaType.HTML,
        headers={"set-cookie": cookie} if cookie else {},
    )


def _server_lost(visit: PageRequest) -> bool:
    if visit.several:
        return any(not one.node_status().reached for one in visit.nodes)
    node = visit.moment.node_status()
    if node.reached or visit.past:
        return node.message != ""
    return bool(node.message or visit.manager.server_notice)


async def _done(visit: PageRequest) -> EventEntry | None:
    """Return the event that the last action recorded."""
    text = visit.request.query_params.get(DONE, "")
    if visit.past or not text.isdecimal() or not 1 <= int(text[:18]) <= visit.head:
        return None
    event = await event_at(visit.service.manager, int(text[:18]))
    return entries_with_events([event])[0]


def redirect(path: str) -> Response[str]:
    """Return a redirect; the framework's own would quote the path again.

    Args:
        path: A link made by ``links.py``.
    """
    return Response(
        "",
        media_type=MediaType.TEXT,
        status_code=HTTPStatus.SEE_OTHER.value,
        headers={"location": path},
    )


def past_text(visit: PageRequest) -> str:
    """Return ``as of 3 days ago, 09:03:10 (#988)``; empty for now."""
    if not visit.past:
        return ""
    position = visit.moment.position
    if visit.at is None or not position:
        return f"as of before the first event (#{position})"
    day, _, time = visit.present.clock(visit.at).rpartition(" ")
    return f"as of {f'{day}, ' if day else ''}{time} (#{position})"


def query_of(visit: PageRequest) -> list[tuple[str, str]]:
    """Return the query of a page without the time."""
    found: Iterable[tuple[str, Any]] = visit.request.query_params.multi_items()
    return [
        (name, str(value))
        for name, value in found
        if name not in {"as_of", SLIDER, DONE} and value
    ]


def _here(visit: PageRequest) -> str:
    """Return the same page, now."""
    return joined_link(_raw_path(visit.request), dict(query_of(visit)))


def _raw_path(request: AnyRequest) -> str:
    raw = request.scope.get("raw_path") or request.scope["path"].encode()
    return raw.decode("latin-1")


def _is_at(path: str, page: str) -> bool:
    if page == "/":
        return path == "/" or path.startswith("/models/")
    if page == "/nodes" and path == "/node":
        return True
    return path == page or path.startswith(f"{page}/")


_SAMPLES = "samples"


async def _bar(visit: PageRequest) -> Bar:
    state = visit.request.app.state
    samples = state.setdefault(_SAMPLES, Samples())
    read = await samples.read(visit.service.manager, visit.head)
    position = visit.moment.position
    last = _milliseconds(visit.present.at)
    first = _milliseconds(read[0].at) - 1 if read else last
    shown = last
    if visit.past:
        shown = _milliseconds(visit.at) if visit.at else first
    return Bar(
        head=visit.head,
        position=position,
        action=_raw_path(visit.request),
        kept=query_of(visit),
        strip=density_strip(
            read,
            chosen=datetime.fromtimestamp(shown / 1000, UTC),
            now=visit.present,
        ),
        samples=_for_the_script(read),
        first=first,
        last=last,
        shown=shown,
        earlier=_at(visit, position - 1),
        later=_at(visit, position + 1),
        begin=visit.present.clock(read[0].at, seconds=False) if read else "",
        label=past_text(visit) or "now",
        local=_local(visit.at, visit.present) if visit.at else "",
        latest=_local(visit.present.at, visit.present),
    )


def _at(visit: PageRequest, position: int) -> str:
    """Return the same page at an event; empty if there is no such event."""
    if position < 0 or (position > visit.head and not visit.past):
        return ""
    as_of = str(position) if position < visit.head else None
    return joined_link(
        _raw_path(visit.request), {**dict(query_of(visit)), "as_of": as_of}
    )


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _local(at: datetime, now: Now) -> str:
    """Return a time for a date-and-time field, in the zone of the reader."""
    return f"{at.astimezone(now.zone):%Y-%m-%dT%H:%M:%S}"


def _for_the_script(samples: list[Sample]) -> str:
    data = [[one.position, _milliseconds(one.at)] for one in samples]
    return msgspec.json.encode(data).decode()


def error_page(request: AnyRequest, error: HerdbookError) -> Response[str]:
    """Return an error as a page: subject, state, remedy, and a link back.

    It does not read the log, so that it also works if the log cannot be read.
    """
    service: Service = request.app.state.service
    return Response(
        error_text(error, banner=service.settings.banner, back=_way_back(request)),
        status_code=status_of(error).value,
        media_type=MediaType.HTML,
        headers=headers_of(error),
    )


def error_text(error: HerdbookError, *, banner: str, back: str = "/") -> str:
    """Return an error as HTML.

    Args:
        error: The error.
        banner: The banner of the service; empty for none.
        back: The target of the link back.
    """
    status = status_of(error)
    return rendered(
        "error.html",
        title=status.phrase,
        error=error,
        status=status,
        navigation=NAVIGATION,
        banner=banner,
        back=back,
    )


def _way_back(request: AnyRequest) -> str:
    """Return the link back: to the model that the error was about, or to the models."""
    path = _raw_path(request)
    name, slash, _ = path.removeprefix("/models/").rpartition("/")
    if path.startswith("/models/") and slash and request.method == "POST":
        return f"/models/{name}"
    return "/"
