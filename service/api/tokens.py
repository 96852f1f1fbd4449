"""The API for tokens: list, create and revoke them. Needs the role admin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec
from litestar import Response, delete, get, post
from litestar.handlers.base import BaseRouteHandler
from litestar.params import JSONBody, PathParameter

from herdbook.core.logging import Logger
from herdbook.core.suggestions import did_you_mean
from herdbook.service.api.responses import READS, problems
from herdbook.service.auth.authentication import Authenticator
from herdbook.service.auth.token_file_editor import add_token, remove_token
from herdbook.service.auth.tokens import VARIABLE, Role, is_token_name
from herdbook.service.errors import (
    BadRequestError,
    InvalidServiceError,
    TokenConflictError,
    UnknownTokenError,
)
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import authenticator_of, require

_TAG: Final = ["Tokens"]
_LOG: Final = Logger("herdbook.tokens")
_Result = TypeVar("_Result")
_Name = Annotated[
    str, PathParameter(max_length=64, description="The name of the token.")
]


class TokenInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A token, without its secret and its hash.

    Attributes:
        name: The name; events record the actor ``api:<name>``.
        role: The role.
        last_used_at: Last use since the start of the service; null if there was none.
        changeable: Whether it can be revoked here; others come from the environment.
    """

    name: str
    role: Role
    last_used_at: datetime | None
    changeable: bool


class TokenRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """A request to create a token.

    Attributes:
        name: The name: up to 64 letters, digits, dots, hyphens and underscores.
        role: The role.
    """

    name: str
    role: Role = Role.READ


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
    """List the tokens with their roles and last use. Needs the role admin."""
    require(request, Role.ADMIN)
    authenticator = authenticator_of(request)
    authenticator.refresh()
    source = authenticator.source
    return [
        TokenInfo(
            name=token.name,
            role=token.role,
            last_used_at=authenticator.last_used.get(token.name),
            changeable=source.file is not None and token not in source.fixed,
        )
        for token in source.tokens
    ]


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
    """Create a token; the response is the only one with its secret.

    Needs the role admin, and a service that was started with `--tokens`.
    """
    principal = require(request, Role.ADMIN)
    authenticator = authenticator_of(request)
    file = _file(authenticator)
    if not is_token_name(data.name):
        raise BadRequestError(
            "the name",
            "is not a valid token name",
            "Use up to 64 letters, digits, '.', '_' and '-'",
        )
    authenticator.refresh(now=True)
    if any(token.name == data.name for token in authenticator.source.tokens):
        raise TokenConflictError(
            f"token {data.name}", "already exists", "Choose another name"
        )
    secret = await _edit(authenticator, partial(add_token, file, data.name, data.role))
    _LOG.info("token_created", name=data.name, actor=principal.actor)
    return Response(CreatedToken(name=data.name, role=data.role, token=secret))


@delete(
    "/tokens/{name:str}",
    status_code=204,
    responses=problems(409),
    tags=_TAG,
    operation_id="revokeToken",
)
async def revoke_token(request: AnyRequest, name: _Name) -> None:
    """Revoke a token; its sessions and event streams end. Needs the role admin."""
    principal = require(request, Role.ADMIN)
    authenticator = authenticator_of(request)
    file = _file(authenticator)
    authenticator.refresh(now=True)
    _check_revocable(authenticator, name)
    await _edit(authenticator, partial(remove_token, file, name))
    _LOG.info("token_revoked", name=name, actor=principal.actor)


def _file(authenticator: Authenticator) -> Path:
    """Return the token file.

    Raises:
        TokenConflictError: The service has no token file.
    """
    file = authenticator.source.file
    if file is None:
        raise TokenConflictError(
            "the service", "has no token file", "Start it with --tokens FILE"
        )
    return file


def _check_revocable(authenticator: Authenticator, name: str) -> None:
    """Check that a token exists in the file and is not the last one of an admin.

    Raises:
        UnknownTokenError: No token has the name.
        TokenConflictError: The token cannot be revoked here.
    """
    source = authenticator.source
    token = next((one for one in source.tokens if one.name == name), None)
    if token is None:
        near = did_you_mean(name, [one.name for one in source.tokens])
        raise UnknownTokenError(
            f"token {name[:80]!r}",
            "does not exist",
            f"{near}List tokens: GET /v1/tokens",
        )
    if token in source.fixed:
        raise TokenConflictError(
            f"token {name}",
            f"comes from {VARIABLE}",
            "Remove it there and restart the service",
        )
    admins = [one.name for one in source.tokens if one.role is Role.ADMIN]
    if admins == [name]:
        raise TokenConflictError(
            f"token {name}",
            "is the last one with the role admin",
            "Create another admin token first",
        )


async def _edit(authenticator: Authenticator, edit: Callable[[], _Result]) -> _Result:
    """Edit the token file in a thread, because it waits for a lock and the disk.

    Raises:
        TokenConflictError: The file is not valid or cannot be written.
    """
    try:
        result = await asyncio.to_thread(edit)
    except InvalidServiceError as error:
        raise TokenConflictError(error.subject, error.state, error.remedy) from error
    authenticator.refresh(now=True)
    return result


HANDLERS: Final[list[BaseRouteHandler]] = [list_tokens, create_token, revoke_token]
"""The handlers of this module."""
