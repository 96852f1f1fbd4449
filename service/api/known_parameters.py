"""Refuse query parameters that a path does not have, which would have no effect."""

from __future__ import annotations

from functools import cache

from litestar.handlers.base import BaseRouteHandler
from litestar.params import QueryParameter

from herdbook.core.errors.suggestions import did_you_mean
from herdbook.service.errors import BadRequestError
from herdbook.service.http.request import AnyRequest


def check_parameters(request: AnyRequest) -> None:
    """Check that the path of a request has all of its query parameters.

    Raises:
        BadRequestError: It does not have one of them.
    """
    if not request.scope["query_string"]:
        return
    known = _known(request.route_handler)
    for name in request.query_params:
        if name not in known:
            remedy = f"Parameters of this path: {', '.join(known)}"
            raise BadRequestError(
                f"query parameter {name[:80]!r}",
                "is not known",
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
