"""The guard: what stands around the whole application, and what each answer has.

In this order: is the request meant for us, does another site send it, who asks, may
that be changed, is its body of a size. A refusal is answered here, without the
application. The order matters: what a stranger can try is looked at first, and a
credential only where nothing else was wrong.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import msgspec

from herdbook.core import HerdbookError
from herdbook.core.logging import Logger
from herdbook.service import problems
from herdbook.service.auth.authentication import Authenticator
from herdbook.service.auth.sessions import COOKIE
from herdbook.service.auth.tokens import Principal, Role
from herdbook.service.errors import (
    BadRequestError,
    ForbiddenError,
    ReadOnlyError,
    TooLargeError,
    UnauthorizedError,
)
from herdbook.service.http.asgi import (
    SAFE_METHODS,
    App,
    Receive,
    Scope,
    Send,
    address_of,
    header_value,
    header_values,
    is_below,
)
from herdbook.service.http.exchange import Exchange, too_large
from herdbook.service.http.hosts import Hosts
from herdbook.service.settings import ServiceSettings

SIGN_IN: Final = ("/login", "/logout")
"""Where a session begins and ends: open to all, and also where nothing may change."""

OPEN: Final = ("/healthz", "/readyz", *SIGN_IN)
"""What needs no token, beside everything below ``/static/``."""

FOR_PROGRAMS: Final = ("/v1", "/metrics")
"""What is never led to the page that signs in."""

_PRINCIPAL: Final = "principal"
_AUTHENTICATOR: Final = "authenticator"
_LONGEST_PATH: Final = 200
_LOG: Final = Logger("herdbook.http")


class Guard:
    """An ASGI application around another one.

    Args:
        app: What is guarded.
        settings: Whom it lets in, and how much.
        authenticator: Knows who is who; made from the settings by default.
    """

    def __init__(
        self,
        app: App,
        settings: ServiceSettings,
        *,
        authenticator: Authenticator | None = None,
    ) -> None:
        self.authenticator = authenticator or Authenticator(settings)
        self._app = app
        self._settings = settings
        self._hosts = Hosts(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it; log either in one line."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        assert scope["type"] == "http", "the server speaks nothing else"
        began = time.perf_counter()
        exchange = Exchange(scope, receive, send, self._settings)
        try:
            await self._forward(scope, exchange)
        finally:
            _tell(scope, exchange.status, time.perf_counter() - began)

    async def _forward(self, scope: Scope, exchange: Exchange) -> None:
        state = scope.setdefault("state", {})
        state[_AUTHENTICATOR] = self.authenticator
        try:
            self._check_form(scope)
            self._hosts.check(scope)
            if not _is_open(scope["path"]):
                state[_PRINCIPAL] = self.authenticator.authenticate(scope)
            self._check_change(scope)
            self._check_length(scope)
        except UnauthorizedError as error:
            await self._ask_to_sign_in(scope, exchange, error)
        except HerdbookError as error:
            await exchange.refuse(error)
        else:
            await self._run(scope, exchange)

    async def _run(self, scope: Scope, exchange: Exchange) -> None:
        """Let the application answer; what nobody foresaw is answered here."""
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:
            if exchange.refusal is None:
                _LOG.warning(
                    "unexpected_error", kind=type(error).__name__, exc_info=True
                )
                if exchange.status is not None:
                    raise  # half an answer is cut, so that nobody takes it for whole
                await _accept_connection(exchange)
        if exchange.refusal is not None:
            await exchange.refuse(exchange.refusal)

    def _check_form(self, scope: Scope) -> None:
        """See that a request is written in the one way that is understood.

        Raises:
            BadRequestError: Its path could be read in two ways, or its length.
            TooLargeError: Its head is too long.
        """
        head = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        head += len(scope.get("raw_path", b"")) + len(scope["query_string"])
        if head > self._settings.header_bytes:
            raise TooLargeError(
                "the request's head",
                f"has more than {self._settings.header_bytes} bytes",
                "Send fewer or shorter headers",
            )
        if not _is_plain(scope["path"]):
            raise BadRequestError(
                "the request's path",
                "is not written plainly",
                "Begin it with one '/'; no '//', no '.' or '..' between slashes",
            )
        if header_values(scope, "transfer-encoding") and header_values(
            scope, "content-length"
        ):
            raise BadRequestError("the request", "has two lengths", "Send one of them")

    def _check_change(self, scope: Scope) -> None:
        """See that a request that changes something may.

        Raises:
            ReadOnlyError: Nobody may.
            ForbiddenError: The one who asks may not.
        """
        if scope["method"] in SAFE_METHODS or scope["path"] in SIGN_IN:
            return
        if self._settings.read_only:
            raise ReadOnlyError(
                "this service", "is read only", "Start it without --read-only"
            )
        if _PRINCIPAL in scope["state"]:
            _check_role(scope["state"][_PRINCIPAL], Role.OPERATE)

    def _check_length(self, scope: Scope) -> None:
        """See that a body does not say that it is too long.

        Raises:
            TooLargeError: It says so.
        """
        lengths = header_values(scope, "content-length")
        if any(
            not value.isdecimal() or int(value) > self._settings.body_bytes
            for value in lengths
        ):
            raise too_large(self._settings)

    async def _ask_to_sign_in(
        self, scope: Scope, exchange: Exchange, error: UnauthorizedError
    ) -> None:
        """Answer who is not known: a browser with the page that signs in."""
        extra = {}
        if any(f"{COOKIE}=" in value for value in header_values(scope, "cookie")):
            # Else its pages would ask on with it, and use up what may fail.
            extra["set-cookie"] = self.authenticator.sessions.end()
        if _asks_for_a_page(scope):
            path = quote(scope["raw_path"].decode("latin-1"), safe="/")
            extra["location"] = f"/login?next={path if len(path) <= 1000 else '/'}"
            await exchange.answer(HTTPStatus.SEE_OTHER, extra, b"")
        else:
            await exchange.refuse(error, extra)


def principal_of(scope_or_connection: Any) -> Principal:
    """Return who asks, of a request or of its scope.

    Raises:
        UnauthorizedError: Nobody said; only what is open to all can meet that.
    """
    principal = _state_of(scope_or_connection).get(_PRINCIPAL)
    if not isinstance(principal, Principal):
        raise UnauthorizedError("the request", "has no token", "Sign in: /login")
    return principal


def require(scope_or_connection: Any, needed: Role) -> Principal:
    """Return who asks, if their role reaches.

    Raises:
        ForbiddenError: It does not.
        UnauthorizedError: Nobody said who asks.
    """
    principal = principal_of(scope_or_connection)
    _check_role(principal, needed)
    return principal


def authenticator_of(scope_or_connection: Any) -> Authenticator:
    """Return the authenticator of the service that received a request."""
    authenticator = _state_of(scope_or_connection)[_AUTHENTICATOR]
    assert isinstance(authenticator, Authenticator)
    return authenticator


def _state_of(scope_or_connection: Any) -> dict[str, Any]:
    scope = getattr(scope_or_connection, "scope", scope_or_connection)
    state: dict[str, Any] = scope.setdefault("state", {})
    return state


def _check_role(principal: Principal, needed: Role) -> None:
    if not principal.role.allows(needed):
        raise ForbiddenError(
            f"the role {principal.role.value} of {principal.name}",
            "does not allow that",
            f"It takes a token with the role {needed.value}",
        )


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith("/static/")


def _is_plain(path: str) -> bool:
    """Return whether a path can be read in one way alone."""
    if not path.startswith("/") or "\\" in path or "\0" in path:
        return False
    inner = path[1:].removesuffix("/").split("/")
    return path == "/" or not any(part in {"", ".", ".."} for part in inner)


def _asks_for_a_page(scope: Scope) -> bool:
    return (
        scope["method"] == "GET"
        and "text/html" in (header_value(scope, "accept") or "")
        and not is_below(scope["path"], *FOR_PROGRAMS)
    )


async def _accept_connection(exchange: Exchange) -> None:
    told = problems.UNEXPECTED
    headers = {"content-type": problems.MEDIA_TYPE}
    await exchange.answer(told.status, headers, msgspec.json.encode(told))


def _tell(scope: Scope, status: int | None, seconds: float) -> None:
    """Log a request: what was asked and how it went, and no more of what was sent."""
    principal = scope.get("state", {}).get(_PRINCIPAL)
    _LOG.info(
        "request",
        method=_in_line(scope["method"], 16),
        path=_in_line(scope["path"], _LONGEST_PATH),
        status=status,
        duration_ms=round(seconds * 1000, 1),
        actor=principal.actor if isinstance(principal, Principal) else None,
        client=address_of(scope),
    )


def _in_line(text: str, longest: int) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:longest])
