"""Sessions of browsers: a signed cookie that stands for a token.

The cookie contains the name of the token, the expiry time and an HMAC of both. The
key of the HMAC is derived from the stored hash of the token, so a session survives a
restart of the service, ends when the token is revoked, and follows its role. It also
means that anyone who can read the token file can forge a session cookie (but not a
token): only the user that runs the service may read that file.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from herdbook.service.auth.tokens import Principal, Token
from herdbook.service.http.asgi import header_values

COOKIE: Final = "herdbook_session"
"""The name of the cookie."""

SESSION_S: Final = 12 * 3600
"""Lifetime of a session, in seconds."""

_PURPOSE: Final = b"herdbook session 1"
_MAX_COOKIE_LENGTH: Final = 512


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session of a browser.

    Attributes:
        principal: The user.
        expired: Whether its lifetime is over.
    """

    principal: Principal
    expired: bool


class Sessions:
    """Creates and verifies session cookies.

    Args:
        tokens: The tokens of the service.
        secure: Whether browsers reach the service through HTTPS only.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        tokens: Iterable[Token],
        *,
        secure: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tokens = tuple(tokens)
        self._secure = secure
        self._clock = clock

    def begin(self, name: str) -> str:
        """Return the ``Set-Cookie`` header that starts a session for a token."""
        token = next(token for token in self._tokens if token.name == name)
        payload = f"{name}|{int(self._clock()) + SESSION_S}".encode()
        value = f"{_encoded(payload)}.{_encoded(_signature(token, payload))}"
        return self._header(value, SESSION_S)

    def end(self) -> str:
        """Return the ``Set-Cookie`` header that deletes the session cookie."""
        return self._header("", 0)

    def session(self, value: str) -> Session | None:
        """Return the session of a cookie; None if its signature is not valid.

        The signature is compared for all tokens in any case, so that the duration
        reveals nothing.
        """
        payload, signature = _parts(value)
        name, _, expiry = payload.decode("utf-8", "replace").partition("|")
        found = None
        for token in self._tokens:
            valid = hmac.compare_digest(_signature(token, payload), signature)
            if valid and token.name == name:
                found = token
        if found is None:
            return None
        return Session(
            principal=Principal(name=found.name, role=found.role),
            expired=int(expiry) <= self._clock(),
        )

    def _header(self, value: str, max_age_s: int) -> str:
        secure = "; Secure" if self._secure else ""
        return (
            f"{COOKIE}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; "
            f"SameSite=Strict{secure}"
        )


def cookie_of(scope: Mapping[str, Any], cookie: str = COOKIE) -> str | None:
    """Return the value of a cookie; None if it is missing or sent more than once."""
    pairs = "; ".join(header_values(scope, "cookie")).split(";")
    values = [
        value.strip()
        for name, _, value in (pair.partition("=") for pair in pairs)
        if name.strip() == cookie
    ]
    return values[0] if len(values) == 1 and values[0] else None


def _signature(token: Token, payload: bytes) -> bytes:
    key = hmac.digest(bytes.fromhex(token.sha256), _PURPOSE, "sha256")
    return hmac.digest(key, payload, "sha256")


def _parts(value: str) -> tuple[bytes, bytes]:
    """Return payload and signature of a cookie; empty if it is not well-formed."""
    payload, _, signature = value.partition(".")
    if len(value) > _MAX_COOKIE_LENGTH:
        return b"", b""
    return _decoded(payload), _decoded(signature)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    """Decode base64; empty unless the text is the canonical encoding of its data."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if _encoded(data) == text else b""
