"""ASGI middleware around the application: access checks, limits and request logging.

Checks in this order: form of the request, ``Host``, cross-site, authentication, role,
length of the body. A refused request never reaches the application. The order matters:
a credential is only tried if the checks that anyone can trigger have passed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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
"""Paths that start and end a session; also open if the service is read-only."""

HEALTH: Final = ("/healthz", "/readyz")

OPEN: Final = (*HEALTH, *SIGN_IN)
"""Paths that need no token, besides everything below ``/static/``."""

FOR_PROGRAMS: Final = ("/v1", "/metrics")
"""Paths that never redirect to the sign-in page."""

_PRINCIPAL: Final = "principal"
_AUTHENTICATOR: Final = "authenticator"
_LONGEST_PATH: Final = 200
_LOG: Final = Logger("herdbook.http")


class Guard:
    """ASGI middleware that checks every request.

    Args:
        app: The application.
        settings: Tokens and limits.
        authenticator: Created from the settings by default.
        page: Returns the page of an error, for browsers; None to answer with JSON.

    Attributes:
        authenticator: Finds the user of a request.
        page: Returns the page of an error, or None.
    """

    def __init__(
        self,
        app: App,
        settings: ServiceSettings,
        *,
        authenticator: Authenticator | None = None,
        page: Callable[[HerdbookError], str] | None = None,
    ) -> None:
        self.authenticator = authenticator or Authenticator(settings)
        self._app = app
        self.page = page
        self._settings = settings
        self._hosts = Hosts(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or refuse it; log it in one line."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        assert scope["type"] == "http", "the server is configured without websockets"
        started = time.perf_counter()
        exchange = Exchange(scope, receive, send, self._settings)
        try:
            await self._forward(scope, exchange)
        finally:
            _log_request(scope, exchange.status, time.perf_counter() - started)

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
            await self._refuse(scope, exchange, error)
        else:
            await self._run(scope, exchange)

    async def _run(self, scope: Scope, exchange: Exchange) -> None:
        """Call the application; convert an unexpected exception to a response."""
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:
            if exchange.refusal is None:
                _LOG.warning(
                    "unexpected_error", kind=type(error).__name__, exc_info=True
                )
                if exchange.status is not None:
                    raise  # the server aborts: half a response must not look complete
                await _send_unexpected(exchange)
        if exchange.refusal is not None:
            await exchange.refuse(exchange.refusal)

    def _check_form(self, scope: Scope) -> None:
        """Check that a request is unambiguous and not too large.

        Raises:
            BadRequestError: The path or the length is ambiguous.
            TooLargeError: The head is too large.
        """
        head = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        head += len(scope.get("raw_path", b"")) + len(scope["query_string"])
        if head > self._settings.header_bytes:
            raise TooLargeError(
                "the request head",
                f"is larger than {self._settings.header_bytes} bytes",
                "Send fewer or shorter headers",
            )
        if not _is_plain(scope["path"]):
            raise BadRequestError(
                "the path",
                "is ambiguous",
                "Start it with one '/', without '//' and without '.' or '..' segments",
            )
        if header_values(scope, "transfer-encoding") and header_values(
            scope, "content-length"
        ):
            raise BadRequestError(
                "the request",
                "has both Content-Length and Transfer-Encoding",
                "Send one of them",
            )

    def _check_change(self, scope: Scope) -> None:
        """Check that a request with an unsafe method is permitted.

        Raises:
            ReadOnlyError: The service is read-only.
            ForbiddenError: The role of the user is not sufficient.
        """
        if scope["method"] in SAFE_METHODS or scope["path"] in SIGN_IN:
            return
        if self._settings.read_only:
            raise ReadOnlyError(
                "this service", "is read-only", "Start it without --read-only"
            )
        if _PRINCIPAL in scope["state"]:
            # Which of them a path needs is checked where its handler is.
            sufficient = f"{Role.OPERATE.value} or {Role.ADMIN.value}"
            _check_role(scope["state"][_PRINCIPAL], Role.OPERATE, sufficient)

    def _check_length(self, scope: Scope) -> None:
        """Check the ``Content-Length`` of a request.

        Raises:
            TooLargeError: It exceeds the limit, or is not a number.
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
        """Respond with 401, or redirect a browser to the sign-in page."""
        extra = {}
        if any(f"{COOKIE}=" in value for value in header_values(scope, "cookie")):
            # Open pages would keep sending it and use up the limit on failures.
            extra["set-cookie"] = self.authenticator.sessions.end()
        if _asks_for_a_page(scope):
            path = quote(scope["raw_path"].decode("latin-1"), safe="/")
            # Proxies limit the length of headers, and quoting makes a path longer.
            extra["location"] = f"/login?next={path if len(path) <= 1000 else '/'}"
            await exchange.answer(HTTPStatus.SEE_OTHER, extra, b"")
        else:
            await self._refuse(scope, exchange, error, extra)

    async def _refuse(
        self,
        scope: Scope,
        exchange: Exchange,
        error: HerdbookError,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        """Respond with an error: a page for a browser, else a problem."""
        if self.page is None or not _shows_pages(scope):
            await exchange.refuse(error, extra)
            return
        headers = {
            "content-type": "text/html; charset=utf-8",
            **problems.headers_of(error),
            **(extra or {}),
            "connection": "close",
        }
        status = problems.status_of(error).value
        await exchange.answer(status, headers, self.page(error).encode())


def principal_of(scope_or_connection: Any) -> Principal:
    """Return the user of a request or scope.

    Raises:
        UnauthorizedError: The path is open and the request was not authenticated.
    """
    principal = _state_of(scope_or_connection).get(_PRINCIPAL)
    if not isinstance(principal, Principal):
        raise UnauthorizedError("the request", "has no token", "Sign in: /login")
    return principal


def require(scope_or_connection: Any, needed: Role) -> Principal:
    """Return the user of a request, if the role is sufficient.

    Raises:
        ForbiddenError: The role is not sufficient.
        UnauthorizedError: The request was not authenticated.
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


def _check_role(principal: Principal, needed: Role, sufficient: str = "") -> None:
    if not principal.role.allows(needed):
        raise ForbiddenError(
            f"the token {principal.name}",
            f"has the {principal.role.value} role, which does not allow this",
            f"Use a token with the {sufficient or needed.value} role",
        )


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith("/static/")


def _is_plain(path: str) -> bool:
    """Return whether a path is unambiguous, without empty or relative segments."""
    if not path.startswith("/") or "\\" in path or "\0" in path:
        return False
    inner = path[1:].removesuffix("/").split("/")
    return path == "/" or not any(part in {"", ".", ".."} for part in inner)


def _asks_for_a_page(scope: Scope) -> bool:
    return scope["method"] == "GET" and _shows_pages(scope)


def _shows_pages(scope: Scope) -> bool:
    """Return whether a request is from a browser, for a page of the dashboard."""
    accepts = "text/html" in (header_value(scope, "accept") or "")
    return accepts and not is_below(scope["path"], *FOR_PROGRAMS, *HEALTH)


async def _send_unexpected(exchange: Exchange) -> None:
    problem = problems.UNEXPECTED
    headers = {"content-type": problems.MEDIA_TYPE}
    await exchange.answer(problem.status, headers, msgspec.json.encode(problem))


def _log_request(scope: Scope, status: int | None, seconds: float) -> None:
    """Log a request, without query, headers and body, which can contain secrets."""
    principal = scope.get("state", {}).get(_PRINCIPAL)
    _LOG.info(
        "request",
        method=_printable(scope["method"], 16),
        path=_printable(scope["path"], _LONGEST_PATH),
        # Litestar sends members of HTTPStatus, which plain lines would show by name.
        status=None if status is None else int(status),
        duration_ms=round(seconds * 1000, 1),
        actor=principal.actor if isinstance(principal, Principal) else None,
        client=address_of(scope),
    )


def _printable(text: str, max_length: int) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:max_length])
