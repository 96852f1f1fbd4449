"""Who may send what through the gateway.

Tokens are checked by a function that the caller of the gateway passes in, so that the
tokens of the service work as API keys here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import msgspec

from herdbook.core import CallerError
from herdbook.gateway.access.limits import UNLIMITED, Limits
from herdbook.gateway.protocol.answers import Refusal
from herdbook.gateway.protocol.endpoints import ADMIN, READ, ROLES, Endpoint
from herdbook.gateway.protocol.headers import Headers, Request, value_of

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_LOCAL_ORIGIN: Final = re.compile(
    r"https?://(localhost|127\.0\.0\.1|\[::1\]|0\.0\.0\.0)(:\d{1,5})?"
    r"|(app|file|tauri|vscode-webview|vscode-file)://.*"
)
"""Origins that Ollama accepts by default."""

KEY_HEADERS: Final = frozenset({b"authorization", b"x-api-key"})
"""Headers with a key; they are not sent to the server when tokens are used."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends a request.

    Attributes:
        name: Name of the token, or the address of the client without tokens.
        actor: The actor that is recorded.
        role: ``read``, ``operate`` or ``admin``.
        limits: What it may use.
    """

    name: str
    actor: str
    role: str
    limits: Limits = UNLIMITED


_PREFLIGHT: Final = b"access-control-request-method"
"""The header of a request by which a browser asks whether a page may send another."""

_BROWSER: Final = Caller(name="", actor="", role=READ)
"""Who sends such a request, which names nobody and uses no model."""

Authenticate: TypeAlias = Callable[[str], Caller | None]
"""Returns who a token belongs to, or None for an unknown token."""


class Access:
    """Checks the addressed host, the origin, the token and its role.

    Args:
        host: The address that the gateway listens on.
        hosts: Further names by which it may be addressed.
        authenticate: Checks a token; None if there are no tokens.

    Raises:
        CallerError: Others could reach the gateway without a token.
    """

    def __init__(
        self, host: str, hosts: Iterable[str], authenticate: Authenticate | None
    ) -> None:
        if authenticate is None and not _is_loopback(host):
            raise CallerError(
                f"the gateway on {host}",
                "can be reached from other machines but has no tokens",
                "Pass --tokens FILE, or listen on 127.0.0.1",
            )
        self._authenticate = authenticate
        self._names = {_plain(name) for name in (*_LOOPBACK, host, *hosts)}
        self._seen: dict[bytes, bool] = {}
        self._local: dict[str, Caller] = {}

    @property
    def uses_tokens(self) -> bool:
        """Whether clients need a token."""
        return self._authenticate is not None

    def check(self, request: Request, endpoint: Endpoint, address: str) -> Caller:
        """Return who sends a request.

        Raises:
            Refusal: The request must not be sent on.
        """
        self._check_host(request)
        if request.method == "OPTIONS" and _PREFLIGHT in request.values:
            return _BROWSER  # sent before a request with a token, and without it
        caller = self._caller(request.headers, address)
        if ROLES.index(caller.role) < ROLES.index(endpoint.role):
            raise missing_role(caller, endpoint.role)
        return caller

    def _check_host(self, request: Request) -> None:
        values = request.values
        host = values.get(b"host")
        allowed = request.http_1_0 if host is None else self._is_accepted_host(host)
        if not allowed or _has_several_hosts(request):
            raise Refusal(
                403,
                "This Host header is not allowed. Use the gateway's own address, or "
                "start it with --allow-host NAME.",
            )
        origin = values.get(b"origin")
        if origin and not self._is_accepted_origin(origin):
            raise Refusal(403, "Requests from pages on other sites are refused.")

    def shared_with(self, headers: Headers) -> Headers:
        """Return the headers of an answer that let the page of a request read it.

        Args:
            headers: The headers of the request.
        """
        origin = value_of(headers, b"origin")
        if not origin or not self._is_accepted_origin(origin):
            return []
        return [(b"Access-Control-Allow-Origin", origin), (b"Vary", b"Origin")]

    def _is_accepted_origin(self, origin: bytes) -> bool:
        local = _LOCAL_ORIGIN.fullmatch(origin.decode("latin-1")) is not None
        return local or self._is_accepted_host(origin.partition(b"://")[2])

    def _is_accepted_host(self, host: bytes) -> bool:
        """Return whether a host is accepted; remembers a few answers."""
        known = self._seen.get(host)
        if known is None:
            found = _HOST.fullmatch(host.decode("latin-1"))
            known = found is not None and _plain(found[1]) in self._names
            if len(self._seen) < 64:
                self._seen[host] = known
        return known

    def _caller(self, headers: Headers, address: str) -> Caller:
        if self._authenticate is None:
            caller = self._local.get(address)
            if caller is None:
                caller = Caller(name=address, actor=f"gateway:{address}", role=ADMIN)
                self._local[address] = caller
            return caller
        keys = [
            value.decode("latin-1")
            for name, value in headers
            if name.lower() in KEY_HEADERS
        ]
        secrets = {_secret(key) for key in keys}
        if len(secrets) != 1:
            raise Refusal(401, "Send a token: Authorization: Bearer TOKEN.")
        found = self._authenticate(secrets.pop())
        if found is None:
            raise Refusal(401, "Unknown token.")
        return found


def _has_several_hosts(request: Request) -> bool:
    if len(request.values) == len(request.headers):  # no header is there twice
        return False
    return sum(name.lower() == b"host" for name, _ in request.headers) > 1


def missing_role(caller: Caller, needed: str) -> Refusal:
    """Return the refusal of a request for which a token has too low a role."""
    return Refusal(
        403,
        f"This requires the {needed} role, but the token {caller.name!r} has "
        f"{caller.role}.",
    )


def _secret(value: str) -> str:
    """Return the token of an ``Authorization`` or ``X-Api-Key`` header."""
    scheme, _, rest = value.partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else value


def _plain(host: str) -> str:
    lower = host.lower().strip("[]").removesuffix(".")
    try:
        return str(ipaddress.ip_address(lower))
    except ValueError:
        return lower


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
