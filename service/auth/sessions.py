"""Sessions of browsers: a cookie that stands for a token, without having it.

The cookie has the token's name, until when it is good, and an HMAC of both. Its key
is derived from what is kept of the token: so the session outlives a restart of the
service, ends with the token, and follows its role. It also means that whoever can
read the token file can make a cookie, though no token, from it: it is for the
service's own user alone.
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

LASTS_S: Final = 12 * 3600
"""Seconds for which a session is good."""

_PURPOSE: Final = b"herdbook session 1"
_LONGEST: Final = 512


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session of a browser.

    Attributes:
        principal: Whose it is.
        over: Whether it has lasted its time.
    """

    principal: Principal
    over: bool


class Sessions:
    """Makes the cookies of sessions, and says whose one is.

    Args:
        tokens: The tokens of the service.
        secure: Whether browsers reach it through HTTPS alone.
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
        """Return the ``Set-Cookie`` header that begins a session of a token."""
        token = next(token for token in self._tokens if token.name == name)
        told = f"{name}|{int(self._clock()) + LASTS_S}".encode()
        value = f"{_encoded(told)}.{_encoded(_proof(token, told))}"
        return self._header(value, LASTS_S)

    def end(self) -> str:
        """Return the ``Set-Cookie`` header that ends whatever session there is."""
        return self._header("", 0)

    def session(self, value: str) -> Session | None:
        """Return the session that a cookie stands for; None if we did not make it.

        It is compared with what each token would have made of it, found or not.
        """
        told, proof = _parts(value)
        name, _, expiry = told.decode("utf-8", "replace").partition("|")
        found = None
        for token in self._tokens:
            right = hmac.compare_digest(_proof(token, told), proof)
            if right and token.name == name:
                found = token
        if found is None:
            return None
        return Session(
            principal=Principal(name=found.name, role=found.role),
            over=int(expiry) <= self._clock(),
        )

    def _header(self, value: str, lasts_s: int) -> str:
        secure = "; Secure" if self._secure else ""
        return (
            f"{COOKIE}={value}; Path=/; Max-Age={lasts_s}; HttpOnly; "
            f"SameSite=Strict{secure}"
        )


def cookie_of(scope: Mapping[str, Any], cookie: str = COOKIE) -> str | None:
    """Return a cookie's value; None where a request has none, or more than one."""
    pairs = "; ".join(header_values(scope, "cookie")).split(";")
    values = [
        value.strip()
        for name, _, value in (pair.partition("=") for pair in pairs)
        if name.strip() == cookie
    ]
    return values[0] if len(values) == 1 and values[0] else None


def _proof(token: Token, told: bytes) -> bytes:
    key = hmac.digest(bytes.fromhex(token.sha256), _PURPOSE, "sha256")
    return hmac.digest(key, told, "sha256")


def _parts(value: str) -> tuple[bytes, bytes]:
    """Return what a cookie says and its proof; nothing of what is no cookie."""
    told, _, proof = value.partition(".")
    if len(value) > _LONGEST:
        return b"", b""
    return _decoded(told), _decoded(proof)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    """Return what a text stands for; nothing unless it is written as we write it."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if _encoded(data) == text else b""
