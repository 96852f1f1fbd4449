"""List, create and revoke tokens while the service runs, for API and dashboard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from herdbook.core.errors.suggestions import did_you_mean
from herdbook.core.logging import Logger
from herdbook.service.auth.authentication import Authenticator
from herdbook.service.auth.token_file_editor import add_token, remove_token
from herdbook.service.auth.tokens import (
    VARIABLE,
    Principal,
    Role,
    TokenLimits,
    is_token_name,
)
from herdbook.service.errors import (
    BadRequestError,
    InvalidServiceError,
    TokenConflictError,
    UnknownTokenError,
)

_LOG: Final = Logger("herdbook.tokens")
_Result = TypeVar("_Result")


class TokenInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A token, without its secret and its hash.

    Attributes:
        name: The name; events record the actor ``api:<name>``.
        role: The role.
        last_used_at: Last use since the start of the service; null if there was none.
        changeable: Whether it can be revoked here; others come from the environment.
        limits: Its limits in the gateway.
    """

    name: str
    role: Role
    last_used_at: datetime | None
    changeable: bool
    limits: TokenLimits


def known_tokens(authenticator: Authenticator) -> list[TokenInfo]:
    """Return all tokens with their roles and last use."""
    authenticator.refresh()
    source = authenticator.source
    return [
        TokenInfo(
            name=token.name,
            role=token.role,
            last_used_at=authenticator.last_used.get(token.name),
            changeable=source.file is not None and token not in source.fixed,
            limits=token.limits,
        )
        for token in source.tokens
    ]


async def create(
    authenticator: Authenticator,
    name: str,
    role: Role,
    *,
    by: Principal,
    limits: TokenLimits | None = None,
) -> str:
    """Create a token and return its secret, which is not stored.

    Raises:
        BadRequestError: The name is not valid.
        TokenConflictError: The name is taken, or the file cannot be changed.
    """
    file = _file(authenticator)
    if not is_token_name(name):
        raise BadRequestError(
            "the name",
            "is not a valid token name",
            "Use up to 64 letters, digits, '.', '_' and '-'",
        )
    async with authenticator.editing:
        authenticator.refresh(now=True)
        if any(token.name == name for token in authenticator.source.tokens):
            raise TokenConflictError(
                f"token {name}", "already exists", "Choose another name"
            )
        secret = await _edit(
            authenticator, partial(add_token, file, name, role, limits=limits)
        )
    _LOG.info("token_created", name=name, actor=by.actor)
    return secret


async def revoke(authenticator: Authenticator, name: str, *, by: Principal) -> None:
    """Revoke a token; its sessions and event streams end.

    Raises:
        UnknownTokenError: No token has the name.
        TokenConflictError: It is the last one of an admin, or cannot be changed.
    """
    file = _file(authenticator)
    # Otherwise two requests at once could revoke the last two admins, one each.
    async with authenticator.editing:
        authenticator.refresh(now=True)
        check_revocable(authenticator, name)
        await _edit(authenticator, partial(remove_token, file, name))
    _LOG.info("token_revoked", name=name, actor=by.actor)


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


def check_revocable(authenticator: Authenticator, name: str) -> None:
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
            "is the last one with the admin role",
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
