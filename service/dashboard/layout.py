"""The layout of every page: navigation, messages and errors."""

from __future__ import annotations

from http import HTTPStatus

from litestar import MediaType, Response

from herdbook.core import HerdbookError
from herdbook.events.archive_file import UNREADABLE
from herdbook.service.context import Service
from herdbook.service.dashboard.event_list import EventEntry, entries_with_events
from herdbook.service.dashboard.links import joined_link
from herdbook.service.dashboard.model_events import event_at
from herdbook.service.dashboard.page_request import (
    DONE,
    NOTE,
    PageRequest,
    past_text,
    query_of,
    raw_path,
)
from herdbook.service.dashboard.templating import rendered, rendered_in_slices
from herdbook.service.dashboard.time_bar import time_bar
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import authenticator_of
from herdbook.service.problems import headers_of, status_of

NAVIGATION = (
    ("Models", "/"),
    ("Roles", "/roles"),
    ("Usage", "/usage"),
    ("Log", "/log"),
    ("Server", "/node"),
)

NOTES = {
    "refreshed": "Nothing has changed on the server.",
    "refresh-failed": "The refresh failed. The reason is shown below.",
    "revoked": "The token has been revoked.",
    "started": "The operation has started.",
    "unchanged": "Nothing has changed.",
}
"""Results of actions that record no event, by the value of ``NOTE``."""


def navigation(*, several: bool) -> list[tuple[str, str]]:
    """Return the pages of the navigation: the server, or the list of several nodes."""
    pages = dict(NAVIGATION)
    if several:
        del pages["Server"]
        pages["Nodes"] = "/nodes"
    return [*pages.items()]


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
    authenticator = authenticator_of(visit.request)
    proof, cookie = authenticator.forms.prove(visit.request.scope, visit.principal)
    text = await rendered_in_slices(
        template,
        title=title,
        visit=visit,
        proof=proof,
        links=visit.links,
        now=visit.now,
        bar=await time_bar(visit),
        banner=visit.service.settings.banner,
        navigation=[
            (word, visit.links.to(path), _is_at(visit.request.url.path, path))
            for word, path in navigation(several=visit.several)
        ],
        past=past_text(visit),
        done=await _done(visit),
        outcome=NOTES.get(visit.request.query_params.get(NOTE, "")),
        server_lost=_server_lost(visit),
        back=_here(visit),
        clock=f"{visit.present.at.astimezone(visit.present.zone):%H:%M:%S}",
        off=visit.off(),
        signed_in=not authenticator.is_open,
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
    node = visit.read_model.node_status()
    if node.reached or visit.past:
        return node.message != ""
    return bool(node.message or visit.manager.server_notice)


async def _done(visit: PageRequest) -> EventEntry | None:
    """Return the event that the last action recorded; None if it cannot be read."""
    text = visit.request.query_params.get(DONE, "")
    if visit.past or not text.isdecimal() or not 1 <= int(text[:18]) <= visit.head:
        return None
    try:
        event = await event_at(visit.service.manager, int(text[:18]))
    except UNREADABLE:  # it was archived since, and the archive is missing
        return None
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


def _here(visit: PageRequest) -> str:
    """Return the same page, now."""
    return joined_link(raw_path(visit.request), dict(query_of(visit)))


def _is_at(path: str, page: str) -> bool:
    if page == "/":
        return path == "/" or path.startswith("/models/")
    if page == "/nodes" and path == "/node":
        return True
    return path == page or path.startswith(f"{page}/")


def error_page(request: AnyRequest, error: HerdbookError) -> Response[str]:
    """Return an error as a page: subject, state, remedy, and a link back.

    It does not read the log, so that it also works if the log cannot be read.
    """
    service: Service = request.app.state.service
    return Response(
        error_text(
            error,
            banner=service.settings.banner,
            back=_way_back(request),
            several=len(service.fleet.names) > 1,
        ),
        status_code=status_of(error).value,
        media_type=MediaType.HTML,
        headers=headers_of(error),
    )


def error_text(
    error: HerdbookError, *, banner: str, back: str = "/", several: bool = False
) -> str:
    """Return an error as HTML.

    Args:
        error: The error.
        banner: The banner of the service; empty for none.
        back: The target of the link back.
        several: Whether the log has several nodes.
    """
    status = status_of(error)
    return rendered(
        "error.html",
        title=status.phrase,
        error=error,
        status=status,
        navigation=navigation(several=several),
        banner=banner,
        back=back,
    )


def _way_back(request: AnyRequest) -> str:
    """Return the link back: to the model that the error was about, or to the models."""
    path = raw_path(request)
    name, slash, _ = path.removeprefix("/models/").rpartition("/")
    if path.startswith("/models/") and slash and request.method == "POST":
        return f"/models/{name}"
    return "/"
