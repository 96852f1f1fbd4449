"""The API about use: requests, tokens, durations and errors."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

from litestar import Response, get
from litestar.handlers.base import BaseRouteHandler
from litestar.params import QueryParameter

from herdbook.core import Usage, UsageDimension
from herdbook.core.fleet import queries
from herdbook.presentation.times import FORMS, Now
from herdbook.presentation.usage import csv_text
from herdbook.service.api.parameters import AsOf, NodeName
from herdbook.service.api.responses import READS
from herdbook.service.context import Service, service_of
from herdbook.service.http.request import AnyRequest

CSV: Final = "text/csv"
_FORMS: Final = f"Examples: {', '.join(FORMS)}."


class UsageFormat(StrEnum):
    """The format of a response about usage."""

    JSON = "json"
    CSV = "csv"


@get("/usage", responses=READS, tags=["Usage"], operation_id="getUsage")
async def get_usage(
    request: AnyRequest,
    *,
    by: Annotated[
        list[UsageDimension] | None,
        QueryParameter(
            description="Dimension to group by. Repeatable. Default: model."
        ),
    ] = None,
    since: Annotated[
        str | None,
        QueryParameter(
            max_length=80,
            description=f"Only uses recorded after this position or time. {_FORMS}",
        ),
    ] = None,
    until: Annotated[
        str | None,
        QueryParameter(
            max_length=80,
            description="Only uses recorded up to this position or time.",
        ),
    ] = None,
    as_of: AsOf = None,
    node: NodeName = None,
    output: Annotated[
        UsageFormat | None,
        QueryParameter(
            name="format",
            description="json or csv. Default: what the Accept header prefers.",
        ),
    ] = None,
) -> Response[Usage]:
    """Return how models were used, by model, client, role, time, outcome or endpoint.

    Answers about the past never change.
    """
    service = service_of(request)
    usage = await usage_between(
        service,
        by or [UsageDimension.MODEL],
        since=since,
        until=until,
        as_of=as_of,
        node=node,
    )
    headers = {"vary": "accept"}
    accepted = request.headers.get("accept", "")
    if output is UsageFormat.CSV or (output is None and accepted.startswith(CSV)):
        text: Any = await csv_text(usage)
        headers["content-disposition"] = 'attachment; filename="usage.csv"'
        return Response(text, media_type=CSV, headers=headers)
    return Response(usage, headers=headers)


async def usage_between(
    service: Service,
    by: list[UsageDimension],
    *,
    since: str | None,
    until: str | None = None,
    as_of: str | None = None,
    node: str | None = None,
) -> Usage:
    """Return the use between two positions or times.

    Args:
        service: The service.
        by: What to group by.
        since: A position or time; None for the start of the log.
        until: The same; None for now.
        as_of: The same; the earlier of the two counts.
        node: Only the models of this node; None for all.

    Raises:
        CallerError: A text is not a time, or is not in the log; or there is no such
            node.
    """
    now, manager = Now(service.clock.now()), service.manager
    ends = [now.parse(each) for each in (until, as_of) if each is not None]
    last = None
    if len(ends) == 1:
        last = ends[0]
    elif ends:
        last = min(
            [
                each if isinstance(each, int) else await manager.position_at(each)
                for each in ends
            ]
        )
    begin = None if since is None else now.parse(since)
    if node is not None:
        await service.fleet.node(node)
        return await service.fleet.manager(node).usage(by, since=begin, until=last)
    return await queries.usage(service.fleet, by, since=begin, until=last)


HANDLERS: Final[list[BaseRouteHandler]] = [get_usage]
"""The handlers of this module."""
