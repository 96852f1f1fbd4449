"""The server's address: OLLAMA_HOST, read by Ollama's own rules.

Herdbook accepts what Ollama accepts, so that one setting serves both. Ollama also
binds to that address, while Herdbook only connects to it. Therefore an address that
means every interface becomes the loopback address, and an address that cannot be
connected to (such as an invalid port) is refused.
"""

from __future__ import annotations

import ipaddress
import os
import re
from base64 import b64encode
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from herdbook.core.errors import InvalidAddressError, InvalidConfigurationError

DEFAULT_PORT: Final = 11434
_SCHEME_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"\w[\w.-]*")


def server_setting(given: str | None) -> str | None:
    """Return an address as given, or that in ``OLLAMA_HOST`` if none is."""
    return os.environ.get("OLLAMA_HOST") if given is None else given


def base_url(setting: str | None = None) -> str:
    """Return the server's URL, without a slash at its end.

    A user and a password in the address are left out; see ``authorization``.

    Args:
        setting: The value of OLLAMA_HOST or ``--ollama``. None or an empty value
            means ``127.0.0.1:11434``.

    Raises:
        InvalidAddressError: The value is not an address to connect to.
    """
    scheme, separator, _, rest = _parts(setting)
    text = f"{scheme}{separator}{rest}"  # for errors: without the password
    if not separator:
        scheme = "http"
        if text == "ollama.com":
            scheme, rest = "https", "ollama.com:443"
    scheme = scheme.lower()
    if scheme not in _SCHEME_PORTS:
        raise InvalidAddressError(
            text, reason=f"{scheme}:// is not supported; use http:// or https://"
        )
    authority, _, path = rest.partition("/")
    default_port = _SCHEME_PORTS[scheme] if separator else DEFAULT_PORT
    host, port_text = _split(authority)
    port = _port(port_text, default_port)
    if not port:
        # Ollama would use its default port instead, which may be another server.
        raise InvalidAddressError(
            text, reason=f"port {port_text!r} is not a number from 1 to 65535"
        )
    address = f"{scheme}://{_connectable(host, text)}:{port}"
    return f"{address}/{quote(path, safe='/%')}".rstrip("/")


def authorization(setting: str | None, api_key: str | None = None) -> str | None:
    """Return the Authorization header for a server; None if there is no credential.

    Args:
        setting: The value of OLLAMA_HOST or ``--ollama``; ``user:password@host`` in it
            is sent as basic authentication, with percent-encoding decoded.
        api_key: The value of OLLAMA_API_KEY, sent as a bearer token if the address has
            no user, as Ollama's own clients do.

    Raises:
        InvalidConfigurationError: The API key is not printable ASCII.
    """
    _, _, userinfo, _ = _parts(setting)
    if userinfo is not None:
        user, _, password = userinfo.partition(":")
        pair = f"{unquote(user)}:{unquote(password)}"
        return f"Basic {b64encode(pair.encode()).decode()}"
    key = (api_key or "").strip()
    if not key:
        return None
    if not (key.isascii() and key.isprintable()):
        raise InvalidConfigurationError(
            "OLLAMA_API_KEY", "contains characters that a header cannot have"
        )
    return f"Bearer {key}"


def _parts(setting: str | None) -> tuple[str, str, str | None, str]:
    """Split an address into scheme, separator, user with password, and the rest."""
    text = (setting or "").strip().strip("\"'").strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    # At the last @: a password may contain a slash or an @ that is not encoded.
    userinfo, at, rest = rest.rpartition("@")
    return scheme, separator, userinfo if at else None, rest


def _split(authority: str) -> tuple[str, str | None]:
    """Split host and port as Go's ``net.SplitHostPort`` does."""
    host, colon, port = authority.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if colon and (bracketed or ":" not in host) and "]" not in port:
        return host.removeprefix("[").removesuffix("]"), port
    return authority.removeprefix("[").removesuffix("]"), None


def _port(text: str | None, default: int) -> int | None:
    """Return the port; None if it is not valid."""
    if not text:
        return default
    if text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535:
        return int(text)
    return None


def _connectable(host: str, text: str) -> str:
    if not host:
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not (_HOST.fullmatch(host) and _can_be_looked_up(host)):
            raise InvalidAddressError(
                text, reason=f"{host!r} is not a valid host name"
            ) from None
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return "[::1]" if address.is_unspecified else f"[{address}]"
    return "127.0.0.1" if address.is_unspecified else str(address)


def _can_be_looked_up(host: str) -> bool:
    """Return whether a look-up takes a host name; it raises ``UnicodeError`` if not."""
    try:
        host.encode("idna")
    except UnicodeError:  # a part is empty, or longer than 63 characters
        return False
    return True


def same_server(one: str, other: str) -> bool:
    """Return whether two URLs, as ``base_url`` returns them, are the same server.

    All loopback addresses count as one host. Host names ignore case.
    """
    return one == other or identity(one) == identity(other)


def identity(url: str) -> tuple[str, str, int | None, str]:
    """Return what two URLs of the same server have in common."""
    parts = urlsplit(url)
    host = "localhost" if is_local(url) else (parts.hostname or "").lower()
    port = parts.port or _SCHEME_PORTS.get(parts.scheme)
    return parts.scheme, host.rstrip("."), port, parts.path.rstrip("/")


def is_local(url: str) -> bool:
    """Return whether a server's URL points to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
