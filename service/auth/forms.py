"""Forms: strict parsing, and protection against cross-site request forgery.

A page of another site can make a browser send a form with the cookies of this
service, and not every browser sends ``Origin``. So each page sets a random secret as a
cookie, and its forms contain a proof derived from that secret; only a page of this
service can read it. The service stores nothing: a page stays valid when the session
is renewed and when the service restarts.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from herdbook.service.auth.sessions import cookie_of
from herdbook.service.auth.tokens import Principal, Token
from herdbook.service.errors import (
    BadRequestError,
    UnprovenFormError,
    UnsupportedMediaError,
)
from herdbook.service.http.asgi import SAFE_METHODS, header_values
from herdbook.service.http.request import AnyRequest

COOKIE: Final = "herdbook_form"
"""The name of the cookie."""

FIELD: Final = "proof"
"""The name of the hidden field."""

MOST_FIELDS: Final = 100
"""Maximum number of fields of a form."""

_PURPOSE: Final = b"herdbook form 1"
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{22,64}")
_TYPE: Final = "application/x-www-form-urlencoded"


class FormProofs:
    """Creates and checks proofs.

    A proof is an HMAC of the browser's secret and the user's name. The key is derived
    from the user's token, so planting a cookie is not enough to forge a proof. Without
    tokens there is no such key, and all requests have the same user.

    Args:
        tokens: The tokens of the service.
        secure: Whether browsers reach the service through HTTPS only.
    """

    def __init__(self, tokens: Iterable[Token], *, secure: bool) -> None:
        self._keys = {
            token.name: hmac.digest(bytes.fromhex(token.sha256), _PURPOSE, "sha256")
            for token in tokens
        }
        self._secure = "; Secure" if secure else ""

    def prove(
        self, scope: Mapping[str, Any], principal: Principal
    ) -> tuple[str, str | None]:
        """Create the proof for the forms of a page.

        Args:
            scope: The request for the page.
            principal: The user.

        Returns:
            The proof, and the ``Set-Cookie`` header that the response needs, if any.
        """
        secret = _secret_of(scope)
        if secret is not None:
            return self._proof(secret, principal), None
        secret = secrets.token_urlsafe(16)
        cookie = f"{COOKIE}={secret}; Path=/; HttpOnly; SameSite=Strict{self._secure}"
        return self._proof(secret, principal), cookie

    def check(
        self, scope: Mapping[str, Any], principal: Principal, form: Mapping[str, str]
    ) -> None:
        """Check that a page of this service, in this browser, sent a form.

        Raises:
            UnprovenFormError: The proof is missing or not valid.
        """
        secret = _secret_of(scope)
        given = form.get(FIELD, "").encode("utf-8", "replace")
        if secret is None or not hmac.compare_digest(
            self._proof(secret, principal).encode(), given
        ):
            raise UnprovenFormError(
                "the form",
                "was not sent by a page of this service, or the page is too old",
                "Reload the page and try again. Programs should use the API at /v1",
            )

    def _proof(self, secret: str, principal: Principal) -> str:
        key = self._keys.get(principal.name, _PURPOSE)
        message = f"{secret}|{principal.name}".encode()
        return hmac.digest(key, message, "sha256").hex()


def has_bearer_token(scope: Mapping[str, Any]) -> bool:
    """Return whether a request has a bearer token; other sites cannot add one."""
    return any(
        value.lower().startswith("bearer ")
        for value in header_values(scope, "authorization")
    )


def needs_proof(scope: Mapping[str, Any]) -> bool:
    """Return whether a request to a page must contain a proof."""
    return scope["method"] not in SAFE_METHODS and not has_bearer_token(scope)


async def read_form(request: AnyRequest, *, most: int = MOST_FIELDS) -> dict[str, str]:
    """Parse a form; of several fields with the same name, the last one counts.

    Args:
        request: The request.
        most: Maximum number of fields.

    Raises:
        BadRequestError: The form is not UTF-8, or has too many fields.
        UnsupportedMediaError: The body has another format.
    """
    body = await request.body()
    if not body:
        return {}
    kind, _, rest = request.headers.get("content-type", "").partition(";")
    charset = rest.lower().replace('"', "").partition("charset=")[2].strip()
    if kind.strip().lower() != _TYPE or charset not in {"", "utf-8", "utf8"}:
        raise UnsupportedMediaError(
            "the body", "is not a form", f"Send it as {_TYPE}, in UTF-8"
        )
    try:
        fields = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=most
        )
    except UnicodeDecodeError:
        raise BadRequestError("the form", "is not UTF-8") from None
    except ValueError:
        raise BadRequestError("the form", f"has more than {most} fields") from None
    return dict(fields)


def _secret_of(scope: Mapping[str, Any]) -> str | None:
    secret = cookie_of(scope, COOKIE)
    return secret if secret and _SECRET.fullmatch(secret) else None
