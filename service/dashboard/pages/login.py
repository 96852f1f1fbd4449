"""Sign in: a browser sends a token once and gets a session for it.

Works without a script. Wrong tokens count towards the limit of all requests. After
signing in, a user is only ever redirected to pages of this service.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from litestar import MediaType, Response, get, post

from herdbook.core import HerdbookError
from herdbook.core.logging import Logger
from herdbook.service.auth.forms import needs_proof, read_form
from herdbook.service.auth.tokens import Principal
from herdbook.service.dashboard.templating import rendered
from herdbook.service.errors import (
    TooManyFailuresError,
    UnauthorizedError,
)
from herdbook.service.http.asgi import address_of
from herdbook.service.http.request import AnyRequest
from herdbook.service.middleware import SIGN_IN, authenticator_of
from herdbook.service.problems import headers_of, status_of

_LOCAL: Final = re.compile(r"/(?:[!-.0-\[\]-~][!-\[\]-~]*)?")
"""A path of printable ASCII without backslashes; the second character is no slash."""

_LONGEST: Final = 2000
"""Maximum length of a path to return to, in characters."""

_LOG: Final = Logger("herdbook.login")


@get("/login", include_in_schema=False)
async def show_login(request: AnyRequest) -> Response[str]:
    """Show the sign-in page; without tokens, redirect."""
    if authenticator_of(request).is_open:
        return _redirect("/")
    return _page(request.query_params.get("next", "/"))


@post("/login", include_in_schema=False)
async def sign_in(request: AnyRequest) -> Response[str]:
    """Start a session for the given token.

    Raises:
        BadRequestError: The form cannot be read.
        UnsupportedMediaError: The body is not a form.
    """
    authenticator = authenticator_of(request)
    if authenticator.is_open:
        return _redirect("/")
    form = await read_form(request, most=8)
    wanted = form.get("next", "/")
    secret = form.get("token", "").strip()
    try:
        principal = _principal(request, secret)
    except (TooManyFailuresError, UnauthorizedError) as error:
        return _page(wanted, error)
    _LOG.info("signed_in", actor=principal.actor, client=address_of(request.scope))
    return _redirect(
        local_path(wanted), cookie=authenticator.sessions.begin(principal.name)
    )


@post("/logout", include_in_schema=False)
async def sign_out(request: AnyRequest) -> Response[str]:
    """End the session of this browser.

    Raises:
        UnprovenFormError: A page of another site sent the form.
    """
    authenticator = authenticator_of(request)
    try:
        principal = authenticator.authenticate(request.scope)
    except (TooManyFailuresError, UnauthorizedError):
        pass  # there is no session to protect
    else:
        if needs_proof(request.scope):
            authenticator.forms.check(
                request.scope, principal, await read_form(request)
            )
    return _redirect("/login", cookie=authenticator_of(request).sessions.end())


HANDLERS: Final = [show_login, sign_in, sign_out]
"""The handlers of this module."""


def _principal(request: AnyRequest, secret: str) -> Principal:
    """Return the user of a token; an empty form is not a wrong token."""
    if not secret:
        raise UnauthorizedError("the form", "has no token", "Enter your token")
    return authenticator_of(request).authenticate_token(
        secret, address_of(request.scope)
    )


def local_path(text: str) -> str:
    r"""Return a text if it is a path of this service, and ``/`` otherwise.

    Browsers treat ``//`` and ``/\`` as another host, and drop characters that are not
    printable.
    """
    path = text.partition("?")[0]
    fits = len(text) <= _LONGEST and _LOCAL.fullmatch(text) is not None
    return text if fits and path not in SIGN_IN else "/"


def _page(wanted: str, error: HerdbookError | None = None) -> Response[str]:
    """Return the sign-in page, with the error of the last attempt."""
    text = rendered(
        "login.html",
        wanted=local_path(wanted),
        wrong=f"{error.subject} {error.state}".capitalize() if error else "",
        remedy=error.remedy if error else "",
    )
    return Response(
        text,
        media_type=MediaType.HTML,
        status_code=status_of(error) if error else HTTPStatus.OK,
        headers=headers_of(error) if error else {},
    )


def _redirect(path: str, *, cookie: str | None = None) -> Response[str]:
    """Return a redirect; Litestar's own would quote the path again."""
    headers = {"location": path} | ({"set-cookie": cookie} if cookie else {})
    return Response(
        "",
        media_type=MediaType.TEXT,
        status_code=HTTPStatus.SEE_OTHER,
        headers=headers,
    )
