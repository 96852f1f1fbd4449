"""The API about the log: its events, what was true when, and what differs."""

from __future__ import annotations

from typing import Annotated, Final

from litestar import Response, get
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi import ResponseSpec
from litestar.params import HeaderParameter, PathParameter, QueryParameter

from herdbook.core import Difference, ModelRole
from herdbook.core.history.diff import difference
from herdbook.presentation import shapes
from herdbook.service.api import schemas as answers
from herdbook.service.api.parameters import (
    Actors,
    AsOf,
    Causes,
    Correlation,
    Limit,
    Position,
    Prefix,
    Since,
    Types,
    Until,
    filter_of,
)
from herdbook.service.api.responses import CACHED, READS
from herdbook.service.api.sse import EventStream
from herdbook.service.context import service_of
from herdbook.service.errors import BadRequestError, UnknownEventError
from herdbook.service.http.request import AnyRequest
from herdbook.service.live import StreamFilter

_TAG: Final = ["Log"]


@get("/events", responses=READS, tags=_TAG, operation_id="listEvents")
async def list_events(  # noqa: PLR0913 - the parameters of a request
    request: AnyRequest,
    *,
    after: Position = 0,
    before: Annotated[
        int | None,
        QueryParameter(ge=1, lt=1 << 53, description="Only below this position."),
    ] = None,
    limit: Limit = 100,
    newest_first: Annotated[
        bool, QueryParameter(description="Whether to begin at the end of the log.")
    ] = False,
    stream_prefix: Prefix = "",
    types: Types = None,
    causes: Causes = None,
    actors: Actors = None,
    since: Since = None,
    until: Until = None,
    correlation_id: Correlation = None,
) -> answers.EventPage:
    """Return a page of the log.

    To go on, ask again with ``after`` (newest first: ``before``) set to ``next``.
    """
    manager = service_of(request).manager
    page = await manager.read_log(
        after=after,
        before=before,
        limit=limit,
        newest_first=newest_first,
        stream_prefix=stream_prefix,
        chosen=filter_of(
            types=types,
            causes=causes,
            actors=actors,
            since=since,
            until=until,
            correlation_id=correlation_id,
        ),
    )
    return answers.EventPage(
        events=[answers.event(one) for one in page.events],
        next=page.next,
        head=(await manager.head()).position,
    )


@get("/events/{position:int}", responses=READS, tags=_TAG, operation_id="getEvent")
async def get_event(
    request: AnyRequest,
    position: Annotated[
        int, PathParameter(ge=1, lt=1 << 53, description="Its position.")
    ],
) -> answers.Event:
    """Return one event."""
    page = await service_of(request).manager.read_log(after=position - 1, limit=1)
    for event in page.events:
        return answers.event(event)
    raise UnknownEventError(f"event #{position}", "is not in the log")


@get(
    "/events/stream",
    responses={
        **READS,
        200: ResponseSpec(
            data_container=str,
            generate_examples=False,
            media_type="text/event-stream",
            description="Messages: recorded (an event, its id is its position), "
            "progress (work under way, without an id), goodbye (why the stream ends); "
            "a comment where nothing happens for a while.",
        ),
    },
    tags=_TAG,
    operation_id="streamEvents",
)
async def stream_events(
    request: AnyRequest,
    *,
    after: Annotated[
        int | None,
        QueryParameter(
            ge=0, lt=1 << 53, description="The last position seen; else the newest."
        ),
    ] = None,
    last_event_id: Annotated[
        str | None,
        HeaderParameter(
            name="Last-Event-ID",
            max_length=20,
            description="The same, as browsers send it; it wins.",
        ),
    ] = None,
    stream_prefix: Prefix = "",
    types: Types = None,
    causes: Causes = None,
    actors: Actors = None,
    correlation_id: Correlation = None,
) -> Response[None]:
    """Follow the log: what it has behind a position, then what comes.

    Each event comes once, in order. A reader that takes nothing for long, or falls
    behind too far, is sent away with a reason; it goes on where it was.
    """
    service = service_of(request)
    head = (await service.manager.head()).position
    begin = _begin(after, last_event_id, head)
    wanted = StreamFilter(
        stream_prefix=stream_prefix,
        chosen=filter_of(
            types=types, causes=causes, actors=actors, correlation_id=correlation_id
        ),
    )
    return EventStream(
        service.live.read(begin, wanted), send_within_s=service.settings.send_within_s
    )


def _begin(after: int | None, last_event_id: str | None, head: int) -> int:
    """Return the position to begin behind.

    Raises:
        BadRequestError: It is no position, or the log has none such.
    """
    if last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdigit()):
            raise BadRequestError(
                f"Last-Event-ID {last_event_id!r}", "is no position of this log"
            )
        after = int(last_event_id)
    if after is None:
        return head
    if after > head:
        raise BadRequestError(
            f"position #{after}",
            "is not in the log",
            f"The newest event is #{head}; is it another log than before?",
        )
    return after


@get("/status", responses=CACHED, tags=_TAG, operation_id="getStatus")
async def get_status(request: AnyRequest, as_of: AsOf = None) -> Response[shapes.AsOf]:
    """Return everything at one read_model: node, models, first choice for each role."""
    service = service_of(request)
    read_model = await service.read_model(as_of)
    roles = [role.value for role in ModelRole]
    return await service.response_cache.answer(
        request, read_model, lambda fixed: shapes.as_of(fixed, roles)
    )


@get("/diff", responses=READS, tags=_TAG, operation_id="getDiff")
async def get_diff(
    request: AnyRequest,
    since: Annotated[
        str,
        QueryParameter(
            name="from", max_length=80, description="A read_model, as in as_of."
        ),
    ],
    until: Annotated[
        str | None,
        QueryParameter(
            name="to", max_length=80, description="The same; by default now."
        ),
    ] = None,
) -> Difference:
    """Return what differs between two moments: per model, per role, of the node."""
    service = service_of(request)
    then = await service.read_model(since)
    return await difference(then, await service.read_model(until))


@get("/log/head", responses=READS, tags=_TAG, operation_id="getHead")
async def get_head(request: AnyRequest) -> answers.Head:
    """Return the end of the log: write it down, and verify holds the log to it."""
    head = await service_of(request).manager.head()
    return answers.Head(position=head.position, hash=head.hash)


HANDLERS: Final[list[BaseRouteHandler]] = [
    list_events,
    get_event,
    stream_events,
    get_status,
    get_diff,
    get_head,
]
"""The handlers of this module."""
