"""Authenticate requests: bearer tokens and session cookies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from herdbook.service.auth.forms import FormProofs
from herdbook.service.auth.rate_limit import FailedLogins
from herdbook.service.auth.sessions import Sessions, cookie_of
from herdbook.service.auth.token_reload import TokenReloader
from herdbook.service.auth.tokens import HOW_TO_CREATE, Principal, Role, Tokens
from herdbook.service.errors import UnauthorizedError
from herdbook.service.http.asgi import address_of, header_values
from herdbook.service.settings import ServiceSettings

LOCAL: Final = Principal(name="local", role=Role.ADMIN)
"""The user of every request if the service has no tokens."""


class Authenticator:
    """Finds the user of a request.

    Attributes:
        is_open: Whether the service has no tokens, so that everyone has access.
        source: The tokens, reloaded when their file changes.
        sessions: Session cookies of the current tokens.
        forms: Proofs that a page of this service sent a form.
        failures: Recent unknown credentials per address.
        last_used: When each token was last used since the service started, by name.
        editing: Held while the token file is changed, with the checks before that.
    """

    sessions: Sessions
    forms: FormProofs

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.source = TokenReloader(
            settings.tokens, settings.token_file, monotonic=monotonic, wall=wall
        )
        # Fixed at the start: a change of the file never opens the service.
        self.is_open = not self.source.tokens
        self.failures = FailedLogins(
            most=settings.failures,
            within_s=settings.failures_within_s,
            clock=monotonic,
        )
        self.last_used: dict[str, datetime] = {}
        self.editing = asyncio.Lock()
        self._secure = settings.secure
        self._wall = wall
        self._apply()

    def refresh(self, *, now: bool = False) -> None:
        """Use the current content of the token file.

        Args:
            now: Check the file also if the last check is less than a second ago.
        """
        if self.source.refresh(now=now):
            self._apply()

    def is_current(self, principal: Principal) -> bool:
        """Return whether the token of a user still exists, with the same role."""
        self.refresh()
        return self.is_open or any(
            (token.name, token.role) == (principal.name, principal.role)
            for token in self.source.tokens
        )

    def authenticate(self, scope: Mapping[str, Any]) -> Principal:
        """Return the user of a request.

        A token in the ``Authorization`` header is preferred to a session. An expired
        session is not counted as a failure: an open page sends it repeatedly.

        Raises:
            UnauthorizedError: The request has no valid credential.
            TooManyFailuresError: The address has sent too many unknown credentials;
                this one was not checked.
        """
        if self.is_open:
            return LOCAL
        self.refresh()
        secrets = _bearer_tokens(scope)
        if secrets:
            # Two tokens are ambiguous, so neither is tried.
            secret = secrets[0] if len(secrets) == 1 else ""
            return self.authenticate_token(secret, address_of(scope))
        cookie = cookie_of(scope)
        if cookie is not None:
            return self._authenticate_session(cookie, address_of(scope))
        raise UnauthorizedError(
            "the request",
            "has no token",
            f"Send the header Authorization: Bearer TOKEN. {HOW_TO_CREATE}",
        )

    def authenticate_token(self, secret: str, address: str) -> Principal:
        """Return the user of a token.

        Raises:
            UnauthorizedError: The token is unknown; the failure is counted.
            TooManyFailuresError: The address has sent too many unknown credentials.
        """
        self.failures.check(address)
        self.refresh()
        principal = self._tokens.principal(secret)
        if principal is None:
            self.failures.add(address)
            raise UnauthorizedError(
                "the token",
                "is unknown",
                "Check that it is complete and has not been revoked",
            )
        return self._used(principal)

    def _authenticate_session(self, cookie: str, address: str) -> Principal:
        self.failures.check(address)
        session = self.sessions.session(cookie)
        if session is None:
            self.failures.add(address)
        if session is None or session.expired:
            raise UnauthorizedError(
                "the session", "has expired", "Sign in again: /login"
            )
        return self._used(session.principal)

    def _used(self, principal: Principal) -> Principal:
        self.last_used[principal.name] = datetime.fromtimestamp(self._wall(), UTC)
        return principal

    def _apply(self) -> None:
        """Derive everything from the current tokens; other sessions become invalid."""
        tokens = self.source.tokens
        self.sessions = Sessions(tokens, secure=self._secure, clock=self._wall)
        self.forms = FormProofs(tokens, secure=self._secure)
        self._tokens = Tokens(tokens)
        names = {token.name for token in tokens}
        self.last_used = {k: at for k, at in self.last_used.items() if k in names}


def _bearer_tokens(scope: Mapping[str, Any]) -> list[str]:
    """Return the bearer tokens of a request, without credentials of other schemes."""
    found = []
    for value in header_values(scope, "authorization"):
        scheme, _, secret = value.partition(" ")
        if scheme.lower() == "bearer":
            found.append(secret.strip())
    return found
