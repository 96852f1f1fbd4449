"""Forms: read strictly, and with proof that a page of ours sent them.

A browser sends what a page of another site has it send, with our cookies, and not
every browser says where it came from. So each page of ours gives the browser a secret
in a cookie and puts a proof made of it into its forms; only who can read our pages
can send it. It needs no memory: a page stays good when the session is renewed and
when the service restarts.
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
"""Fields of a form, at most."""

_PURPOSE: Final = b"herdbook form 1"
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{22,64}")
_TYPE: Final = "application/x-www-form-urlencoded"


class FormProofs:
    """Makes and checks the proofs.

    A proof is an HMAC of the browser's secret and the user's name. Its key is derived
    from the user's token, so that it cannot be made by who planted the cookie; where
    there are no tokens there is no such key, and everybody is the same user.

    Args:
        tokens: The tokens of the service.
        secure: Whether browsers reach it through HTTPS alone.
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
        """Return the proof for the forms of a page, and the ``Set-Cookie`` it needs.

        Args:
            scope: The request for the page.
            principal: Who asks for it.
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
        """Check that a form comes from a page that this browser got from us.

        Raises:
            UnprovenFormError: It does not.
        """
        secret = _secret_of(scope)
        given = form.get(FIELD, "").encode("utf-8", "replace")
        if secret is None or not hmac.compare_digest(
            self._proof(secret, principal).encode(), given
        ):
            raise UnprovenFormError(
                "the form",
                "was not sent by a page of this service, or the page is too old",
                "Reload the page and try again; programs use the API below /v1",
            )

    def _proof(self, secret: str, principal: Principal) -> str:
        key = self._keys.get(principal.name, _PURPOSE)
        told = f"{secret}|{principal.name}".encode()
        return hmac.digest(key, told, "sha256").hex()


def comes_from_a_program(scope: Mapping[str, Any]) -> bool:
    """Return whether a request has a bearer token, which no page of others can add."""
    return any(
        value.lower().startswith("bearer ")
        for value in header_values(scope, "authorization")
    )


def needs_proof(scope: Mapping[str, Any]) -> bool:
    """Return whether a request to a page has to carry a proof."""
    return scope["method"] not in SAFE_METHODS and not comes_from_a_program(scope)


async def read_form(request: AnyRequest, *, most: int = MOST_FIELDS) -> dict[str, str]:
    """Return the fields of a form; of several with one name, the last.

    Args:
        request: The request.
        most: How many fields there may be.

    Raises:
        BadRequestError: It is not UTF-8, or has too many fields.
        UnsupportedMediaError: It is in another format.
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
