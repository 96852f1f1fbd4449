"""The authenticator: whose a request is, by the credential that it brings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from herdbook.service.auth.forms import FormProofs
from herdbook.service.auth.rate_limit import FailedLogins
from herdbook.service.auth.sessions import Sessions, cookie_of
from herdbook.service.auth.tokens import MAKE_ONE, Principal, Role, Tokens
from herdbook.service.errors import UnauthorizedError
from herdbook.service.http.asgi import address_of, header_values
from herdbook.service.settings import ServiceSettings

LOCAL: Final = Principal(name="local", role=Role.ADMIN)
"""Who everybody is where there are no tokens."""


class Authenticator:
    """Knows tokens and sessions, and who failed too often.

    Attributes:
        is_open: Whether there are no tokens.
        sessions: The sessions of browsers.
        forms: Proofs that a page of ours sent a form.
        failures: Wrong credentials of late.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.is_open = not settings.tokens
        self.sessions = Sessions(settings.tokens, secure=settings.secure, clock=wall)
        self.forms = FormProofs(settings.tokens, secure=settings.secure)
        self.failures = FailedLogins(
            most=settings.failures,
            within_s=settings.failures_within_s,
            clock=monotonic,
        )
        self._tokens = Tokens(settings.tokens)

    def authenticate(self, scope: Mapping[str, Any]) -> Principal:
        """Return whose a request is.

        A token in the ``Authorization`` header comes first, then a session. A session
        that is merely over is no failure: its page asks on by itself.

        Raises:
            UnauthorizedError: It has no credential, or a wrong one.
            TooManyFailuresError: Too many wrong ones came from there; this one was
                not looked at.
        """
        if self.is_open:
            return LOCAL
        secrets = _bearer_tokens(scope)
        if secrets:
            # Two at once cannot both be meant, and neither is tried.
            secret = secrets[0] if len(secrets) == 1 else ""
            return self.authenticate_token(secret, address_of(scope))
        cookie = cookie_of(scope)
        if cookie is not None:
            return self._authenticate_session(cookie, address_of(scope))
        raise UnauthorizedError(
            "the request",
            "has no token",
            f"Send the header Authorization: Bearer TOKEN. {MAKE_ONE}",
        )

    def authenticate_token(self, secret: str, address: str) -> Principal:
        """Return whose a token is.

        Raises:
            UnauthorizedError: Nobody's; that is counted.
            TooManyFailuresError: Too many wrong ones came from that address.
        """
        self.failures.check(address)
        principal = self._tokens.principal(secret)
        if principal is None:
            self.failures.add(address)
            raise UnauthorizedError(
                "the token",
                "is not known here",
                "See that it is whole, and among those the service was started with",
            )
        return principal

    def _authenticate_session(self, cookie: str, address: str) -> Principal:
        self.failures.check(address)
        session = self.sessions.session(cookie)
        if session is None:
            self.failures.add(address)
        if session is None or session.over:
            raise UnauthorizedError("the session", "is over", "Sign in again: /login")
        return session.principal


def _bearer_tokens(scope: Mapping[str, Any]) -> list[str]:
    """Return the bearer tokens of a request; what a proxy adds of other kinds stays."""
    found = []
    for value in header_values(scope, "authorization"):
        scheme, _, secret = value.partition(" ")
        if scheme.lower() == "bearer":
            found.append(secret.strip())
    return found
