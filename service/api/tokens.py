"""The API for tokens: list, create and revoke them. Requires the admin role."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from litestar import Response, delete, get, post
from litestar.handlers.base import BaseRouteHandler
from litestar.params import JSONBody, PathParameter

from herdbook.service.api.responses import READS, problems
from herdbook.service.auth.administration import (
    TokenInfo,
    create,
    known_tokens,
    revoke,
)
from herdbook.service.auth.tokens import Role, token_limits
from herdbook.service.errors import BadRequestError, InvalidServiceError
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import authenticator_of, require

_TAG: Final = ["Tokens"]
_Name = Annotated[
    str, PathParameter(max_length=64, description="The name of the token.")
]


class TokenRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """A request to create a token.

    Attributes:
        name: The name: up to 64 letters, digits, dots, hyphens and underscores.
        role: The role.
        models: Patterns of the models that it may use through the gateway, such as
            ``llama3*``; empty for all.
        max_requests: Maximum number of concurrent requests through the gateway; null
            for no limit.
        tokens_per_day: Maximum number of prompt and answer tokens per day (UTC) through
            the gateway; null for no limit.
    """

    name: str
    role: Role = Role.READ
    models: list[str] = []
    max_requests: int | None = None
    tokens_per_day: int | None = None


class CreatedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A new token. Its secret is not shown again.

    Attributes:
        name: The name.
        role: The role.
        token: The secret, for the header ``Authorization: Bearer``.
    """

    name: str
    role: Role
    token: str


@get("/tokens", responses=READS, tags=_TAG, operation_id="listTokens")
async def list_tokens(request: AnyRequest) -> list[TokenInfo]:
    """List the tokens with their roles and last use. Requires the admin role."""
    require(request, Role.ADMIN)
    return known_tokens(authenticator_of(request))


@post(
    "/tokens",
    status_code=201,
    responses=problems(409, 415),
    tags=_TAG,
    operation_id="createToken",
)
async def create_token(
    request: AnyRequest, data: JSONBody[TokenRequest]
) -> Response[CreatedToken]:
    """Create a token. Only this response contains its secret.

    Requires the admin role, and a service that was started with `--tokens`.
    """
    principal = require(request, Role.ADMIN)
    given = {
        "models": data.models,
        "max_requests": data.max_requests,
        "tokens_per_day": data.tokens_per_day,
    }
    try:
        limits = token_limits(given, "the token")
    except InvalidServiceError as error:
        raise BadRequestError(error.subject, error.state, error.remedy) from error
    secret = await create(
        authenticator_of(request), data.name, data.role, by=principal, limits=limits
    )
    return Response(CreatedToken(name=data.name, role=data.role, token=secret))


@delete(
    "/tokens/{name:str}",
    status_code=204,
    responses=problems(409),
    tags=_TAG,
    operation_id="revokeToken",
)
async def revoke_token(request: AnyRequest, name: _Name) -> None:
    """Revoke a token; its sessions and event streams end. Requires the admin role."""
    principal = require(request, Role.ADMIN)
    await revoke(authenticator_of(request), name, by=principal)


HANDLERS: Final[list[BaseRouteHandler]] = [list_tokens, create_token, revoke_token]
"""The handlers of this module."""
