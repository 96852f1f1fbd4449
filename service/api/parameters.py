"""Parameters of requests: model names, times, event filters and versions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from itertools import chain
from typing import Annotated, Final, TypeVar
from urllib.parse import unquote

import msgspec
from litestar.handlers.base import BaseRouteHandler
from litestar.params import PathParameter, QueryParameter

from herdbook.core import Cause, HistoryFilter, ModelStatus, ReadModel
from herdbook.core.errors.suggestions import did_you_mean
from herdbook.core.errors.validation import violation
from herdbook.presentation.event_types import event_type_remedy, parse_event_type
from herdbook.presentation.model_not_found import similar_models
from herdbook.presentation.times import Now
from herdbook.service.context import service_of
from herdbook.service.errors import (
    BadRequestError,
    PreconditionMissingError,
    UnknownModelError,
)
from herdbook.service.http.request import AnyRequest

T = TypeVar("T")

LONGEST_PAGE: Final = 1_000
"""Maximum number of entries of a page."""

AsOf = Annotated[
    str | None,
    QueryParameter(
        description="A position or time: #123, ISO 8601, yesterday 17:40, 2 hours ago. "
        "Default: now.",
        max_length=80,
    ),
]
Limit = Annotated[
    int,
    QueryParameter(ge=1, le=LONGEST_PAGE, description="Maximum number of results."),
]
Position = Annotated[
    int, QueryParameter(ge=0, lt=1 << 53, description="Start after this position.")
]
Name = Annotated[
    str,
    PathParameter(
        description="The name of the model, as in Ollama: llama3.1 means "
        "llama3.1:latest. Slashes may be written as they are or as %2F.",
        max_length=512,
    ),
]
NodeName = Annotated[
    str | None,
    QueryParameter(
        name="node",
        max_length=64,
        description="Only this node. Default: all nodes; for a request about one "
        "model, the node that has it.",
    ),
]
Types = Annotated[
    list[str] | None,
    QueryParameter(name="type", description="Only events of these types."),
]
Causes = Annotated[
    list[Cause] | None,
    QueryParameter(name="cause", description="Only events with these causes."),
]
Actors = Annotated[
    list[str] | None,
    QueryParameter(
        name="actor",
        description="Only events by actors whose name starts with this text, such as "
        "cli:.",
    ),
]
Prefix = Annotated[
    str,
    QueryParameter(
        max_length=512,
        description="Only streams that start with this text, such as model/local/.",
    ),
]
Since = Annotated[
    str | None,
    QueryParameter(
        max_length=80,
        description="Only events recorded at or after this position or time, "
        "in the forms of as_of.",
    ),
]
Until = Annotated[
    str | None,
    QueryParameter(
        max_length=80,
        description="Only events recorded at or before this position or time, "
        "in the forms of as_of.",
    ),
]
Correlation = Annotated[
    str | None,
    QueryParameter(max_length=64, description="Only the events of this operation."),
]


def name_of(segment: str) -> str:
    """Decode the model name in a path segment."""
    return unquote(segment)


def known_status(read_model: ReadModel, segment: str) -> ModelStatus:
    """Return the status of a model that has events in the log.

    Raises:
        InvalidNameError: The name is not valid.
        UnknownModelError: The log has no events of the model.
    """
    status = read_model.status(name_of(segment))
    if status.version == 0:
        raise UnknownModelError(
            status.name,
            f"was not found on node {status.node!r}",
            similar_models(read_model, status.name) or "List models: GET /v1/models",
        )
    return status


async def of_model(
    request: AnyRequest,
    segment: str,
    *,
    as_of: str | None = None,
    node: str | None = None,
) -> ReadModel:
    """Return the read model of the node that a request about a model means.

    Raises:
        InvalidNameError: The name is not valid.
        AmbiguousNodeError: Several nodes have the model.
        CallerError: No node has it, there is no such node, or the time is not valid.
    """
    service = service_of(request)
    return await service.read_model_with(name_of(segment), as_of=as_of, node=node)


def filter_of(
    request: AnyRequest,
    *,
    types: Sequence[str] | None = None,
    causes: Sequence[Cause] | None = None,
    actors: Sequence[str] | None = None,
    since: str | None = None,
    until: str | None = None,
    correlation_id: str | None = None,
    node: str | None = None,
) -> HistoryFilter:
    """Create an event filter from parameters.

    Raises:
        BadRequestError: A type is unknown.
        InvalidTimeError: A time cannot be read.
    """
    for unknown in (name for name in types or () if not parse_event_type(name)):
        raise BadRequestError(
            f"{unknown[:80]!r}", "is not an event type", event_type_remedy(unknown)
        )
    return HistoryFilter(
        types=frozenset(chain.from_iterable(map(parse_event_type, types or ())))
        or None,
        causes=frozenset(causes) if causes else None,
        actors=tuple(actors) if actors else None,
        since=_bound(request, since),
        until=_bound(request, until),
        correlation_id=correlation_id,
        node=node,
    )


def _bound(request: AnyRequest, text: str | None) -> datetime | int | None:
    """Parse a position or time; it may be in the future, as clocks differ."""
    now = Now(service_of(request).clock.now())
    return None if text is None else now.parse(text, future=True)


def etag(version: int) -> str:
    """Return the entity tag of the version of a stream."""
    return f'"{version}"'


def version_of(if_match: str | None) -> int | None:
    """Parse ``If-Match``; None for ``*``, which matches any version.

    Raises:
        PreconditionMissingError: The header is missing.
        BadRequestError: The header is not an ETag of a configuration.
    """
    if if_match is None:
        raise PreconditionMissingError(
            "the header If-Match",
            "is missing",
            "Send the ETag of GET …/configuration, or * for any version",
        )
    text = if_match.strip()
    if text == "*":
        return None
    digits = text.removeprefix("W/").strip('"')
    if not digits.isascii() or not digits.isdigit() or len(digits) > 15:
        raise BadRequestError(
            f"If-Match {text[:40]!r}",
            "is not an ETag of a configuration",
            "Send the ETag of GET …/configuration, or * for any version",
        )
    return int(digits)


async def strict_body(request: AnyRequest, kind: type[T]) -> T:
    """Return the JSON body of a request, of exactly the documented types.

    Litestar takes 0 for false and "1" for 1.

    Raises:
        BadRequestError: The body has another type.
    """
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.MsgspecError as error:
        raise BadRequestError(
            "the body", f"is not valid: {violation(str(error)).text('it')}"
        ) from error


def check_parameters(request: AnyRequest) -> None:
    """Refuse query parameters that the path of a request does not have.

    Raises:
        BadRequestError: There is one.
    """
    if not request.scope["query_string"]:
        return
    known = _known(request.route_handler)
    for name in request.query_params:
        if name not in known:
            remedy = f"Parameters of this path: {', '.join(known)}"
            raise BadRequestError(
                f"query parameter {name[:80]!r}",
                "is unknown",
                did_you_mean(name[:80], known)
                + (remedy if known else "This path has no parameters"),
            )


@cache
def _known(handler: BaseRouteHandler) -> tuple[str, ...]:
    """Return the names of the query parameters of a handler."""
    fields = handler.parsed_fn_signature.parameters.items()
    return tuple(
        sorted(
            field.kwarg_definition.name or name
            for name, field in fields
            if isinstance(field.kwarg_definition, QueryParameter)
        )
    )
