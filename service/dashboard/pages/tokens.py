"""Tokens, for admins: names, roles and last use; create and revoke."""

from __future__ import annotations

from typing import Final, NamedTuple

from litestar import Response, get, post
from litestar.params import FromPath

from herdbook.core.errors.suggestions import did_you_mean
from herdbook.service.auth.administration import (
    TokenInfo,
    create,
    known_tokens,
    revoke,
)
from herdbook.service.auth.forms import read_form
from herdbook.service.auth.tokens import Principal, Role
from herdbook.service.dashboard.layout import redirect, render
from herdbook.service.dashboard.links import joined_link
from herdbook.service.dashboard.page_request import NOTE, PageRequest, visit
from herdbook.service.errors import BadRequestError, UnknownTokenError
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import authenticator_of, require

_PATH: Final = "/tokens"


class Line(NamedTuple):
    """A token in the table.

    Attributes:
        token: The token.
        own: Whether the user is signed in with it.
        off: Why it cannot be revoked here; empty if it can.
    """

    token: TokenInfo
    own: bool
    off: str


@get(_PATH, include_in_schema=False)
async def tokens_page(request: AnyRequest) -> Response[str]:
    """List the tokens.

    Raises:
        ForbiddenError: The user is not an admin.
    """
    require(request, Role.ADMIN)
    return await _page(await visit(request))


@post(_PATH, include_in_schema=False)
async def create_on_page(request: AnyRequest) -> Response[str]:
    """Create a token; the answer is the only page that shows its secret.

    Raises:
        ForbiddenError: The user is not an admin.
        BadRequestError: The name or the role is not valid.
        TokenConflictError: The name is taken, or the tokens cannot be changed.
    """
    principal = require(request, Role.ADMIN)
    form = await read_form(request)
    name, role = form.get("name", "").strip(), form.get("role", "")
    if role not in tuple(Role):
        raise BadRequestError(
            f"{role[:80]!r}",
            "is not a role",
            f"{did_you_mean(role, Role)}Use {', '.join(Role)}",
        )
    secret = await create(authenticator_of(request), name, Role(role), by=principal)
    return await _page(await visit(request), created=name, secret=secret)


@get("/tokens/{name:str}/revoke", include_in_schema=False)
async def confirm_revoke(request: AnyRequest, name: FromPath[str]) -> Response[str]:
    """Ask whether to revoke a token.

    Raises:
        ForbiddenError: The user is not an admin.
        UnknownTokenError: No token has the name.
    """
    principal = require(request, Role.ADMIN)
    tokens = known_tokens(authenticator_of(request))
    token = next((each for each in tokens if each.name == name), None)
    if token is None:
        near = did_you_mean(name, [each.name for each in tokens]).strip()
        raise UnknownTokenError(f"token {name[:80]!r}", "does not exist", near)
    return await render(
        await visit(request),
        "revoke.html",
        title=f"Revoke {token.name}",
        token=token,
        own=_is_own(token, principal),
    )


@post("/tokens/{name:str}/revoke", include_in_schema=False)
async def revoke_on_page(request: AnyRequest, name: FromPath[str]) -> Response[str]:
    """Revoke a token.

    Raises:
        ForbiddenError: The user is not an admin.
        UnknownTokenError: No token has the name.
        TokenConflictError: It cannot be revoked here.
    """
    principal = require(request, Role.ADMIN)
    await revoke(authenticator_of(request), name, by=principal)
    return redirect(joined_link(_PATH, {NOTE: "revoked"}))


async def _page(
    page: PageRequest, *, created: str = "", secret: str = ""
) -> Response[str]:
    authenticator = authenticator_of(page.request)
    lines = [
        Line(
            token,
            _is_own(token, page.principal),
            "" if token.changeable else "from the environment",
        )
        for token in known_tokens(authenticator)
    ]
    return await render(
        page,
        "tokens.html",
        title="Tokens",
        lines=lines,
        open=authenticator.is_open,
        has_file=authenticator.source.file is not None,
        roles=list(Role),
        created=created,
        secret=secret,
    )


def _is_own(token: TokenInfo, principal: Principal) -> bool:
    return token.name == principal.name
