"""The API for the log: events, the event stream, past states and differences."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Final

from litestar import Response, get
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi import ResponseSpec
from litestar.params import HeaderParameter, PathParameter, QueryParameter

from herdbook.core import Difference, ModelRole, ReadModel
from herdbook.core.history.diff import difference
from herdbook.presentation import shapes
from herdbook.service.api import schemas as answers
from herdbook.service.api.parameters import (
    Actors,
    AsOf,
    Causes,
    Correlation,
    Limit,
    NodeName,
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
from herdbook.service.event_stream import EndOfStream, Message, Reason, StreamFilter
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import authenticator_of, principal_of

_TAG: Final = ["Log"]


@get("/events", responses=READS, tags=_TAG, operation_id="listEvents")
async def list_events(  # noqa: PLR0913 - the parameters of a request
    request: AnyRequest,
    *,
    after: Position = 0,
    before: Annotated[
        int | None,
        QueryParameter(
            ge=1, lt=1 << 53, description="Only events before this position."
        ),
    ] = None,
    limit: Limit = 100,
    newest_first: Annotated[
        bool, QueryParameter(description="Return the newest events first.")
    ] = False,
    stream_prefix: Prefix = "",
    types: Types = None,
    causes: Causes = None,
    actors: Actors = None,
    since: Since = None,
    until: Until = None,
    correlation_id: Correlation = None,
    node: NodeName = None,
) -> answers.EventPage:
    """Return a page of the log.

    To get the next page, pass `next` as `after`, or as `before` if newest first.
    """
    service = service_of(request)
    manager = service.manager
    if node is not None:
        await service.fleet.check_recorded(node)
    page = await manager.read_log(
        after=after,
        before=before,
        limit=limit,
        newest_first=newest_first,
        stream_prefix=stream_prefix,
        chosen=filter_of(
            request,
            types=types,
            causes=causes,
            actors=actors,
            since=since,
            until=until,
            correlation_id=correlation_id,
            node=node,
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
        int, PathParameter(ge=1, lt=1 << 53, description="The position of the event.")
    ],
) -> answers.Event:
    """Return one event."""
    page = await service_of(request).manager.read_log(after=position - 1, limit=1)
    for event in page.events:
        return answers.event(event)
    raise UnknownEventError(f"event #{position}", "does not exist")


@get(
    "/events/stream",
    responses={
        **READS,
        200: ResponseSpec(
            data_container=str,
            generate_examples=False,
            media_type="text/event-stream",
            description="Messages: recorded (an event; its id is the position), "
            "progress (of a running operation, without an id), goodbye (why "
            "the stream ends), and a comment after a few seconds without events.",
        ),
    },
    tags=_TAG,
    operation_id="streamEvents",
)
async def stream_events(  # noqa: PLR0913 - the parameters of a request
    request: AnyRequest,
    *,
    after: Annotated[
        int | None,
        QueryParameter(
            ge=0,
            lt=1 << 53,
            description="Start after this position. Default: the end of the log.",
        ),
    ] = None,
    last_event_id: Annotated[
        str | None,
        HeaderParameter(
            name="Last-Event-ID",
            max_length=20,
            description="Same as after, in the header that browsers send. It takes "
            "precedence over after.",
        ),
    ] = None,
    stream_prefix: Prefix = "",
    types: Types = None,
    causes: Causes = None,
    actors: Actors = None,
    correlation_id: Correlation = None,
    node: NodeName = None,
) -> Response[None]:
    """Stream the events of the log after a position, then new ones.

    Each event is sent once, in order. A reader that is too slow is disconnected with a
    reason; it can resume from its last position.
    """
    service = service_of(request)
    if node is not None:
        await service.fleet.check_recorded(node)
    head = (await service.manager.head()).position
    begin = _begin(after, last_event_id, head)
    wanted = StreamFilter(
        stream_prefix=stream_prefix,
        chosen=filter_of(
            request,
            types=types,
            causes=causes,
            actors=actors,
            correlation_id=correlation_id,
            node=node,
        ),
    )
    authenticator, principal = authenticator_of(request), principal_of(request)
    messages = _while_valid(
        service.live.read(begin, wanted), lambda: authenticator.is_current(principal)
    )
    return EventStream(messages, send_within_s=service.settings.send_within_s)


async def _while_valid(
    messages: AsyncGenerator[Message, None], is_valid: Callable[[], bool]
) -> AsyncGenerator[Message, None]:
    """Yield messages until the token of the reader is revoked.

    Heartbeats are messages too, so a silent stream ends after a few seconds.
    """
    async with aclosing(messages):
        async for message in messages:
            if not is_valid():
                yield EndOfStream(Reason.REVOKED)
                return
            yield message


def _begin(after: int | None, last_event_id: str | None, head: int) -> int:
    """Return the position after which a stream starts.

    Raises:
        BadRequestError: The header is not a position, or the log is shorter.
    """
    if last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdigit()):
            raise BadRequestError(
                f"Last-Event-ID {last_event_id!r}", "is not a position"
            )
        after = int(last_event_id)
    if after is None:
        return head
    if after > head:
        raise BadRequestError(
            f"event #{after}",
            "does not exist yet",
            f"The last event is #{head}. Check that this is the same log as before",
        )
    return after


@get("/status", responses=CACHED, tags=_TAG, operation_id="getStatus")
async def get_status(
    request: AnyRequest, as_of: AsOf = None, node: NodeName = None
) -> Response[shapes.AsOf | shapes.AsOfNodes]:
    """Return the whole state: node, models and the first choice for each role.

    With several nodes, `nodes` is an array in place of `node`.
    """
    service = service_of(request)
    read_models = await service.read_models(as_of, node)
    roles = [role.value for role in ModelRole]
    if as_of is None and node is None:
        service.encoded_models.forget_other_nodes({one.node for one in read_models})

    async def build(fixed: Sequence[ReadModel]) -> shapes.AsOf | shapes.AsOfNodes:
        # The past has records of its own, of which none would be found again.
        models = (
            [await service.encoded_models.of(one) for one in fixed]
            if as_of is None
            else [None for _ in fixed]
        )
        if len(fixed) == 1:
            return await shapes.as_of(fixed[0], roles, models[0])
        return await shapes.as_of_nodes(fixed, roles, models)

    return await service.response_cache.answer(request, read_models, build)


@get("/diff", responses=READS, tags=_TAG, operation_id="getDiff")
async def get_diff(
    request: AnyRequest,
    since: Annotated[
        str,
        QueryParameter(name="from", max_length=80, description="A position or time."),
    ],
    until: Annotated[
        str | None,
        QueryParameter(
            name="to",
            max_length=80,
            description="The second position or time. Default: now.",
        ),
    ] = None,
    node: NodeName = None,
) -> Difference:
    """Compare the state of a node at two positions or times: models, roles, server.

    With several nodes, one must be named.
    """
    service = service_of(request)
    now = await service.read_model(until, node)
    nodes = await service.read_models(since)
    # A node that did not exist then is compared with its empty state.
    same = (one for one in nodes if one.node == now.node)
    then = next(same, None) or nodes[0].of(now.node)
    return await difference(then, now)


@get("/log/head", responses=READS, tags=_TAG, operation_id="getHead")
async def get_head(request: AnyRequest) -> answers.Head:
    """Return the position and hash of the last event, for a later `herdbook verify`."""
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
