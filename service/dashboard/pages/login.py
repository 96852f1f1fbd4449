"""Signing in: a browser gives a token once and gets a session for it.

Works without a script. Wrong tokens count as they do everywhere; where a person is
led to afterwards is a page of this service, whatever the link said.
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
"""A path of printable ASCII without backslashes, and its second sign no slash."""

_LONGEST: Final = 2000
_LOG: Final = Logger("herdbook.login")


@get("/login", include_in_schema=False)
async def show_login(request: AnyRequest) -> Response[str]:
    """Show the page that signs in; where there are no tokens nobody needs it."""
    if authenticator_of(request).is_open:
        return _led_to("/")
    return _page(request.query_params.get("next", "/"))


@post("/login", include_in_schema=False)
async def sign_in(request: AnyRequest) -> Response[str]:
    """Begin a session of the token that was given.

    Raises:
        BadRequestError: The form cannot be read.
        UnsupportedMediaError: The body is not a form.
    """
    authenticator = authenticator_of(request)
    if authenticator.is_open:
        return _led_to("/")
    form = await read_form(request, most=8)
    wanted = form.get("next", "/")
    secret = form.get("token", "").strip()
    try:
        principal = _principal(request, secret)
    except (TooManyFailuresError, UnauthorizedError) as error:
        return _page(wanted, error)
    _LOG.info("signed_in", actor=principal.actor, client=address_of(request.scope))
    return _led_to(
        local_path(wanted), cookie=authenticator.sessions.begin(principal.name)
    )


@post("/logout", include_in_schema=False)
async def sign_out(request: AnyRequest) -> Response[str]:
    """End the session of this browser.

    Raises:
        UnprovenFormError: Another site's page asks for that.
    """
    authenticator = authenticator_of(request)
    try:
        principal = authenticator.authenticate(request.scope)
    except (TooManyFailuresError, UnauthorizedError):
        pass  # there is no session that could be ended against its owner's will
    else:
        if needs_proof(request.scope):
            authenticator.forms.check(
                request.scope, principal, await read_form(request)
            )
    return _led_to("/login", cookie=authenticator_of(request).sessions.end())


HANDLERS: Final = [show_login, sign_in, sign_out]
"""What the application serves of this."""


def _principal(request: AnyRequest, secret: str) -> Principal:
    """Return whose a token is; an empty form is not a wrong one."""
    if not secret:
        raise UnauthorizedError("the form", "has no token", "Paste yours")
    return authenticator_of(request).authenticate_token(
        secret, address_of(request.scope)
    )


def local_path(text: str) -> str:
    r"""Return a path of this service to lead to: that text, if it is one, or ``/``.

    A browser takes ``//`` and ``/\`` for another host, and leaves out signs that do
    not print; none of those is led to.
    """
    path = text.partition("?")[0]
    fits = len(text) <= _LONGEST and _LOCAL.fullmatch(text) is not None
    return text if fits and path not in SIGN_IN else "/"


def _page(wanted: str, error: HerdbookError | None = None) -> Response[str]:
    """Return the page that signs in, with what was wrong the time before."""
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


def _led_to(path: str, *, cookie: str | None = None) -> Response[str]:
    """Return what leads a browser on; Litestar's own would quote the path again."""
    headers = {"location": path} | ({"set-cookie": cookie} if cookie else {})
    return Response(
        "",
        media_type=MediaType.TEXT,
        status_code=HTTPStatus.SEE_OTHER,
        headers=headers,
    )
